"""Pairing: an agent that gives bluetoothd the passkey of the device being paired, and answers for nothing else.

BlueZ asks the agent of the D-Bus connection that calls Pair (src/agent.c, agent_get), so no other agent is disturbed.
https://github.com/bluez/bluez/blob/master/doc/org.bluez.Agent.rst
"""

from __future__ import annotations

import asyncio

from dbus_fast import Message, Variant

from edged.adapter import ConfigError, Secret, TransientError

from .bluez import DEVICE, PROPERTIES, SERVICE, Bluez

_AGENT = "/org/edged/agent"
_DIGITS = 6


class Pairing:
    """Pairs the devices of one radio, one after the other."""

    def __init__(self, bluez: Bluez) -> None:
        self._bluez = bluez
        self._turn = asyncio.Lock()
        self._registered = ""
        """The bluetoothd that knows the agent."""
        self._device = ""
        """The D-Bus path of the device being paired."""
        self._passkey: int | None = None

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
            bluez.serve(_AGENT, self.answer)
            await bluez.call(
                SERVICE, "/org/bluez", "org.bluez.AgentManager1", "RegisterAgent", "os", [_AGENT, "KeyboardDisplay"]
            )
            self._registered = bluez.identity
        self._device, self._passkey = path, passkey
        try:
            await bluez.call(SERVICE, path, DEVICE, "Pair", seconds=seconds)
            trusted = [DEVICE, "Trusted", Variant("b", True)]  # noqa: FBT003  # Variant's own signature
            await bluez.call(SERVICE, path, PROPERTIES, "Set", "ssv", trusted)
        finally:
            self._device = ""

    def answer(self, question: Message) -> Message:
        """What the agent says to a question of bluetoothd."""
        member, body = question.member, question.body
        if member in {"Release", "Cancel"}:
            return Message.new_method_return(question)
        if not self._device or body[0] != self._device:
            return _rejected(question, "edged is not pairing with this device")
        if member == "RequestAuthorization":
            return Message.new_method_return(question)
        if self._passkey is None:
            return _rejected(question, "no passkey is configured")
        if member == "RequestPasskey":
            return Message.new_method_return(question, "u", [self._passkey])
        if member == "RequestPinCode":
            return Message.new_method_return(question, "s", [f"{self._passkey:06d}"])
        if member == "RequestConfirmation" and body[1] == self._passkey:
            return Message.new_method_return(question)
        return _rejected(question, "the device shows another number than the configured passkey")


def _rejected(question: Message, why: str) -> Message:
    return Message.new_error(question, "org.bluez.Error.Rejected", why)


def passkey_of(secret: Secret | None) -> int | None:
    """The passkey as a number. Raises ConfigError."""
    if secret is None:
        return None
    if not (secret.text.isdecimal() and len(secret.text) <= _DIGITS):
        raise ConfigError("`passkey` must be six digits")
    return int(secret.text)
