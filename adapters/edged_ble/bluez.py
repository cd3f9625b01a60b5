"""bluetoothd over D-Bus, for what bleak does not do: find and switch radios, watch them come and go.

All of BlueZ's interfaces: https://github.com/bluez/bluez/tree/master/doc (org.bluez.Adapter.rst and its neighbours).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from bleak.backends.bluezdbus import manager as bleak_manager
from dbus_fast import BusType, Message, MessageType, Variant, unpack_variants
from dbus_fast.aio import MessageBus

from .remedies import FOREIGN, explain, explain_name

T = TypeVar("T")

SERVICE = "org.bluez"
ADAPTER = "org.bluez.Adapter1"
DEVICE = "org.bluez.Device1"
MONITORS = "org.bluez.AdvertisementMonitorManager1"
_DBUS = "org.freedesktop.DBus"
PROPERTIES = "org.freedesktop.DBus.Properties"
_OBJECTS = "org.freedesktop.DBus.ObjectManager"

CALL = 10.0
"""Seconds bluetoothd may take for an answer, where it has nothing to wait for itself."""
_GRACE = 3.0
"""Seconds that a cancelled call into bleak gets to tidy up, three times."""


@dataclass(frozen=True, slots=True)
class RadioInfo:
    """One radio as bluetoothd sees it."""

    path: str
    address: str
    powered: bool
    blocked: bool
    """By rfkill, as far as bluetoothd tells (BlueZ 5.65 and later)."""
    passive: bool
    """Whether it offers advertisement monitors, which passive scanning needs."""

    @property
    def index(self) -> str:
        """Its name in Linux, `hci0`."""
        return self.path.rpartition("/")[2]


# -- calls with an end -------------------------------------------------------------------------------------------------


async def bounded(what: Coroutine[Any, Any, T], seconds: float, name: str, *, grace: float = _GRACE) -> T:
    """Await a call into bleak, but no longer than this. Raises TimeoutError.

    When cancelled, bleak tidies up by further calls to bluetoothd, without a time-out of their own: if that hangs as
    well, a second cancellation ends it. One that no cancellation ends within some times `grace` is left to itself.
    """
    task = asyncio.create_task(what, name=name)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
    except asyncio.CancelledError:
        await _end(task, grace)
        raise
    if not done:
        await _end(task, grace)
        if not task.done() or task.cancelled() or task.exception() is not None:
            raise TimeoutError
    return task.result()


async def _end(task: asyncio.Task[Any], grace: float) -> None:
    for _ in range(3):
        task.cancel()
        done, _ = await asyncio.wait({task}, timeout=grace)
        if done:
            if not task.cancelled():
                task.exception()  # looked at, so that asyncio does not complain about it
            return


class Bluez:
    """A D-Bus connection of our own beside bleak's; it sees little: a radio's and bluetoothd's coming and going.

    `trouble` is set, and `news` says why, when the radio that is watched or bluetoothd went away. Every method raises
    TransientError with the remedy.
    """

    def __init__(self) -> None:
        self._bus: MessageBus | None = None
        self._ended: asyncio.Task[None] | None = None
        self._watched = ""
        self._rules: list[str] = []
        self._served: dict[str, Callable[[Message], Message]] = {}
        self.owner = ""
        """The D-Bus name of the bluetoothd that runs: another one after a restart."""
        self.trouble = asyncio.Event()
        self.news = ""
        self.cached: set[str] = set()
        """Paths of the devices that bluetoothd knew when `radios` was called."""

    @property
    def connected(self) -> bool:
        """Whether D-Bus is there."""
        return self._bus is not None and self._bus.connected

    async def connect(self) -> None:
        """Reach D-Bus, unless that is done."""
        if self.connected:
            return
        await self.close()
        bus = MessageBus(bus_type=BusType.SYSTEM)
        try:
            async with asyncio.timeout(CALL):
                await bus.connect()
        except FOREIGN as exc:
            bus.disconnect()
            raise explain(exc) from exc
        except BaseException:
            bus.disconnect()
            raise
        self._bus = bus
        bus.add_message_handler(self._message)
        self._ended = asyncio.create_task(self._wait_for_end(bus), name="D-Bus connection")
        try:
            await self._match(f"type='signal',sender='{_DBUS}',member='NameOwnerChanged',arg0='{SERVICE}'")
        except BaseException:
            await self.close()  # without this it would not notice that bluetoothd has gone
            raise

    async def close(self) -> None:
        """Leave D-Bus."""
        bus, self._bus = self._bus, None
        ended, self._ended = self._ended, None
        self.owner, self._watched = "", ""
        self._rules.clear()
        if bus is not None:
            bus.disconnect()
        if ended is not None:
            await asyncio.wait({ended}, timeout=1)
            ended.cancel()

    async def radios(self) -> list[RadioInfo]:
        """All radios that bluetoothd knows, by index."""
        reply = await self.call(SERVICE, "/", _OBJECTS, "GetManagedObjects")
        self.owner = (await self.call(_DBUS, "/org/freedesktop/DBus", _DBUS, "GetNameOwner", "s", [SERVICE])).body[0]
        found = []
        self.cached.clear()
        for path, interfaces in reply.body[0].items():
            if DEVICE in interfaces:
                self.cached.add(path)
            if ADAPTER not in interfaces:
                continue
            properties = unpack_variants(interfaces[ADAPTER])
            monitors = unpack_variants(interfaces.get(MONITORS, {}))
            found.append(
                RadioInfo(
                    path,
                    str(properties.get("Address", "")).upper(),
                    bool(properties.get("Powered")),
                    properties.get("PowerState") == "off-blocked",
                    "or_patterns" in monitors.get("SupportedMonitorTypes", []),
                )
            )
        return sorted(found, key=lambda radio: (len(radio.path), radio.path))

    async def watch(self, radio: RadioInfo) -> None:
        """From now on, set `trouble` when this radio is switched off or goes away, or bluetoothd does."""
        self.trouble.clear()
        self._watched = radio.path
        await self._match(
            f"type='signal',sender='{SERVICE}',path='{radio.path}',interface='{PROPERTIES}',"
            f"member='PropertiesChanged',arg0='{ADAPTER}'"
        )
        await self._match(
            f"type='signal',sender='{SERVICE}',interface='{_OBJECTS}',member='InterfacesRemoved',arg0path='{radio.path}'"
        )

    async def switch(self, radio: RadioInfo, *, on: bool) -> None:
        """Power a radio on or off."""
        body = [ADAPTER, "Powered", Variant("b", on)]
        await self.call(SERVICE, radio.path, PROPERTIES, "Set", "ssv", body, radio=radio.index)

    @property
    def identity(self) -> str:
        """Another one whenever what was registered with bluetoothd is gone."""
        return f"{self._bus.unique_name if self._bus else ''} {self.owner}"

    def serve(self, path: str, answer: Callable[[Message], Message]) -> None:
        """Answer bluetoothd's calls to this path."""
        self._served[path] = answer

    async def call(
        self, to: str, path: str, interface: str, member: str, signature: str = "", body: Sequence[Any] = (),
        *, radio: str = "", seconds: float = CALL,
    ) -> Message:  # fmt: skip
        """Call a method. Raises TransientError for an error as for no answer."""
        if self._bus is None or not self._bus.connected:
            raise explain(EOFError())
        message = Message(
            destination=to, path=path, interface=interface, member=member, signature=signature, body=list(body)
        )
        try:
            async with asyncio.timeout(seconds):
                reply = await self._bus.call(message)
        except FOREIGN as exc:
            raise explain(exc, radio) from exc
        if reply is None:
            raise explain(EOFError())
        if reply.message_type is MessageType.ERROR:
            text = str(reply.body[0]) if reply.body else ""
            raise explain_name(reply.error_name or "", text, radio)
        return reply

    async def _match(self, rule: str) -> None:
        if rule not in self._rules:
            await self.call(_DBUS, "/org/freedesktop/DBus", _DBUS, "AddMatch", "s", [rule])
            self._rules.append(rule)

    def _message(self, message: Message) -> Message | None:
        if message.message_type is MessageType.SIGNAL:
            self._signal(message)
        elif message.message_type is MessageType.METHOD_CALL and message.path in self._served:
            if message.sender == self.owner:
                return self._served[message.path](message)
            return Message.new_error(message, "org.freedesktop.DBus.Error.AccessDenied", "only bluetoothd may ask")
        return None

    def _signal(self, message: Message) -> None:
        if message.member == "NameOwnerChanged" and message.body[0] == SERVICE:
            self.tell("bluetoothd was started again" if message.body[2] else "bluetoothd has ended")
        elif message.member == "InterfacesRemoved":
            if message.body[0] == self._watched and ADAPTER in message.body[1]:
                self.tell("the radio was unplugged")
        elif message.member == "PropertiesChanged" and message.path == self._watched and message.body[0] == ADAPTER:
            powered = message.body[1].get("Powered")
            if powered is not None and not powered.value:
                self.tell("the radio was switched off")

    def tell(self, news: str) -> None:
        """Set `trouble`."""
        self.news = news
        self.trouble.set()

    async def _wait_for_end(self, bus: MessageBus) -> None:
        with contextlib.suppress(*FOREIGN):
            await bus.wait_for_disconnect()  # type: ignore[no-untyped-call]  # dbus-fast forgot to annotate it
        if bus is self._bus:
            self.tell("the connection to D-Bus was lost")


# -- bleak's own connection --------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Shared:
    """What the radios of one event loop share: bleak's only connection."""

    owner: str = ""
    """The bluetoothd it has been made for."""
    users: set[Bluez] = field(default_factory=set)


_shared: WeakKeyDictionary[asyncio.AbstractEventLoop, _Shared] = WeakKeyDictionary()


def _ours() -> _Shared:
    return _shared.setdefault(asyncio.get_running_loop(), _Shared())


def use_bleak(user: Bluez) -> None:
    """From now on `user` is told when bleak's connection is ended on behalf of another."""
    _ours().users.add(user)


def leave_bleak(user: Bluez) -> None:
    """Take that back. The last one ends bleak's connection."""
    shared = _ours()
    shared.users.discard(user)
    if not shared.users:
        drop_bleak(user)


def renew_bleak(user: Bluez) -> bool:
    """See to it that bleak knows nothing of an earlier bluetoothd; whether it did.

    bleak does not notice a restart: it keeps the objects of the old one for ever, and a hung call in its queue. Only
    the end of its D-Bus connection clears that; bluetoothd then also ends whatever was begun on it.
    """
    shared = _ours()
    renewed = shared.owner not in {"", user.owner}
    if renewed:
        drop_bleak(user)
    shared.owner = user.owner
    return renewed


def _bleak_bus() -> MessageBus | None:
    """The D-Bus connection of bleak's manager, which offers no way to look at it or to end it: only here."""
    manager = bleak_manager._global_instances.get(asyncio.get_running_loop())  # noqa: SLF001  # see above
    return manager._bus if manager is not None else None  # noqa: SLF001  # see above


def bleak_is_alive() -> bool:
    """Whether bleak's connection is there. It tells nobody when it ends."""
    bus = _bleak_bus()
    return bus is not None and bus.connected


def drop_bleak(user: Bluez) -> None:
    """End bleak's D-Bus connection; it makes a new one when next used. Its other users begin anew."""
    shared = _ours()
    shared.owner = ""
    bus = _bleak_bus()
    if bus is not None:
        bus.disconnect()
    for other in shared.users - {user}:
        other.tell("the connection to bluetoothd was renewed for another radio")
