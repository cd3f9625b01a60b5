"""Pairing: an agent that gives bluetoothd the passkey of the device being paired, and answers for nothing else.

BlueZ asks the agent of the D-Bus connection that calls Pair (src/agent.c, agent_get), so no other agent is disturbed.
https://github.com/bluez/bluez/blob/master/doc/org.bluez.Agent.rst
"""
# dbus-fast reads D-Bus signatures from the annotations.
# ruff: noqa: F821, UP037, N802  # D-Bus signatures are no Python types, and its method names are as they are

from __future__ import annotations

import asyncio

from dbus_fast import Variant
from dbus_fast.errors import DBusError
from dbus_fast.service import ServiceInterface, dbus_method

from edged.adapter import ConfigError, Secret, TransientError

from .bluez import DEVICE, PROPERTIES, SERVICE, Bluez

_AGENT = "/org/edged/agent"
_DIGITS = 6


class Agent(ServiceInterface):
    """Answers bluetoothd's questions about one device at a time."""

    def __init__(self) -> None:
        super().__init__("org.bluez.Agent1")
        self.device = ""
        """The D-Bus path of the device being paired."""
        self.passkey: int | None = None

    def _check(self, device: str) -> None:
        if device != self.device:
            raise DBusError("org.bluez.Error.Rejected", "edged is not pairing with this device")

    @dbus_method()
    def Release(self) -> None:
        """The agent is not needed any more."""

    @dbus_method()
    def RequestPasskey(self, device: "o") -> "u":  # type: ignore[name-defined]  # a D-Bus signature
        """The device asks for its passkey."""
        self._check(device)
        if self.passkey is None:
            raise DBusError("org.bluez.Error.Rejected", "no passkey is configured")
        return self.passkey

    @dbus_method()
    def RequestPinCode(self, device: "o") -> "s":  # type: ignore[name-defined]  # a D-Bus signature
        """The same for old devices."""
        return f"{self.RequestPasskey(device):06d}"

    @dbus_method()
    def RequestAuthorization(self, device: "o") -> None:  # type: ignore[name-defined]  # a D-Bus signature
        """The device has neither keys nor display."""
        self._check(device)

    @dbus_method()
    def RequestConfirmation(self, device: "o", passkey: "u") -> None:  # type: ignore[name-defined]  # D-Bus signatures
        """The device shows a number: the one configured."""
        self._check(device)
        if passkey != self.passkey:
            raise DBusError("org.bluez.Error.Rejected", "the device shows another number than the configured passkey")

    @dbus_method()
    def Cancel(self) -> None:
        """It gave up."""


class Pairing:
    """Pairs the devices of one radio, one after the other."""

    def __init__(self, bluez: Bluez) -> None:
        self._bluez = bluez
        self._agent = Agent()
        self._turn = asyncio.Lock()
        self._registered = ""
        """The bluetoothd that knows the agent."""

    async def pair(self, path: str, passkey: int | None, seconds: float) -> None:
        """Pair the device with this D-Bus path, unless it is paired. Raises TransientError."""
        async with self._turn:
            try:
                await self._pair(path, passkey, seconds)
            except TransientError as exc:
                raise TransientError(f"it could not be paired ({exc})") from exc

    async def _pair(self, path: str, passkey: int | None, seconds: float) -> None:
        bluez = self._bluez
        reply = await bluez.call(SERVICE, path, PROPERTIES, "Get", "ss", [DEVICE, "Paired"])
        if reply.body[0].value:
            return
        if self._registered != bluez.identity:
            bluez.export(_AGENT, self._agent)
            await bluez.call(
                SERVICE, "/org/bluez", "org.bluez.AgentManager1", "RegisterAgent", "os", [_AGENT, "KeyboardDisplay"]
            )
            self._registered = bluez.identity
        self._agent.device, self._agent.passkey = path, passkey
        try:
            await bluez.call(SERVICE, path, DEVICE, "Pair", seconds=seconds)
            trusted = [DEVICE, "Trusted", Variant("b", True)]  # noqa: FBT003  # Variant's own signature
            await bluez.call(SERVICE, path, PROPERTIES, "Set", "ssv", trusted)
        finally:
            self._agent.device = ""


def passkey_of(secret: Secret | None) -> int | None:
    """The passkey as a number. Raises ConfigError."""
    if secret is None:
        return None
    if not (secret.text.isdecimal() and len(secret.text) <= _DIGITS):
        raise ConfigError("`passkey` must be six digits")
    return int(secret.text)
