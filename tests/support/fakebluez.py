"""A bluetoothd of our own on a private D-Bus, for bleak as it is: what BlueZ does that matters to a gateway.

Faithful where it hurts (BlueZ 5.86, src/adapter.c and src/device.c): discovery belongs to the connection that began it;
without `DuplicateData` unchanged data are not repeated and all that was heard of a device is merged; signal strength is
told when it changes by 8 dB or a proximity filter is set; a device that is silent goes away; a radio that connects
hears nothing, if a test says so. Every method can be made to fail, to take long, or never to answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dbus_fast import BusType, Message, MessageType, Variant
from dbus_fast.aio import MessageBus

ADAPTER, DEVICE = "org.bluez.Adapter1", "org.bluez.Device1"
SERVICE, CHARACTERISTIC = "org.bluez.GattService1", "org.bluez.GattCharacteristic1"
MONITORS, AGENT = "org.bluez.AdvertisementMonitorManager1", "org.bluez.Agent1"
OBJECTS, PROPERTIES = "org.freedesktop.DBus.ObjectManager", "org.freedesktop.DBus.Properties"
_DBUS = "org.freedesktop.DBus"
_RSSI_THRESHOLD = 8


@dataclass
class Gatt:
    """One characteristic of a fake device."""

    service: str
    uuid: str
    flags: Sequence[str] = ("read", "write", "notify")
    value: bytes | Callable[[], bytes] = b""


@dataclass
class Radio:
    """What the fake knows of one radio."""

    path: str
    filters: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Connection → its discovery filter."""
    sessions: set[str] = field(default_factory=set)
    """Connections that discover."""
    monitors: dict[str, str] = field(default_factory=dict)
    """Path of an advertisement monitor → whose it is."""
    blocked: bool = False
    """By rfkill."""
    deaf: bool = False
    """It says that it scans, but hears nothing; the fault that needs a watchdog."""
    deaf_until: str = ""
    """What heals it: `scan` for a new scan, `power` for switching it off and on."""
    busy: int = 0
    """Connections being made."""
    deaf_when_busy: bool = False


class FakeBluez:
    """org.bluez. One object may be started and stopped many times."""

    def __init__(self, radios: Mapping[str, str] | None = None, *, passive: bool = False) -> None:
        self._radios = {"hci0": "00:00:00:00:00:01"} if radios is None else dict(radios)
        self._passive = passive
        self._bus: MessageBus | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._agents: dict[str, str] = {}
        self._gatt: dict[str, list[Gatt]] = {}
        self._passkeys: dict[str, int | None] = {}
        self._bonded: set[str] = set()
        self.objects: dict[str, dict[str, dict[str, Variant]]] = {}
        self.radios: dict[str, Radio] = {}
        self.calls: list[tuple[str, str]] = []
        """(method, path) of every call."""
        self.fail: dict[str, tuple[str, str] | list[tuple[str, str]]] = {}
        """Method → error and text; a list is used up."""
        self.delay: dict[str, float] = {}
        self.hang: set[str] = set()
        """Methods that never answer, `StartDiscovery`, or only for an object, `StartDiscovery /org/bluez/hci0`."""
        self.keep = 1000
        """Devices that have been silent longest go away beyond so many."""
        self.written: dict[str, bytes] = {}
        self.connected_at_most = 0

    @property
    def running(self) -> bool:
        return self._bus is not None

    async def start(self) -> FakeBluez:
        self._bus = await MessageBus(bus_type=BusType.SYSTEM).connect()
        self._bus.add_message_handler(self._handle)
        await self._call_bus("AddMatch", "type='signal',member='NameOwnerChanged'")
        await self._bus.request_name("org.bluez")
        for index, address in self._radios.items():
            self.plug(index, address)
        return self

    def stop(self) -> None:
        """What kill -9 of bluetoothd does: no farewell."""
        assert self._bus is not None
        for task in self._tasks:
            task.cancel()
        self._bus.disconnect()
        self._bus = None
        self.objects.clear()
        self.radios.clear()
        self._agents.clear()

    def plug(self, index: str, address: str) -> None:
        path = f"/org/bluez/{index}"
        self.radios[index] = Radio(path)
        texts = {"Address": address, "Name": index, "Alias": index, "PowerState": "on"}
        self.objects[path] = {
            ADAPTER: {
                **{name: Variant("s", text) for name, text in texts.items()},
                "Powered": Variant("b", True),
                "Discovering": Variant("b", False),
                "UUIDs": Variant("as", []),
                "Roles": Variant("as", ["central"]),
            }
        }
        if self._passive:
            self.objects[path][MONITORS] = {"SupportedMonitorTypes": Variant("as", ["or_patterns"])}
        self._added(path)

    def unplug(self, index: str) -> None:
        radio = self.radios.pop(index)
        for path in [path for path in self.objects if path.startswith(radio.path + "/")] + [radio.path]:
            self._remove(path)

    def power(self, index: str, *, on: bool) -> None:
        radio = self.radios[index]
        if not on:
            radio.sessions.clear()
            radio.filters.clear()
        elif radio.deaf_until == "power":
            radio.deaf = False
        self._change(radio.path, ADAPTER, {"Powered": Variant("b", on)})

    def block(self, index: str, *, on: bool) -> None:
        """rfkill."""
        self.radios[index].blocked = on
        state = Variant("s", "off-blocked" if on else "off")
        self._change(self.radios[index].path, ADAPTER, {"PowerState": state})
        if on:
            self.power(index, on=False)

    def scanning(self, index: str = "hci0") -> bool:
        radio = self.radios.get(index)
        return radio is not None and bool(radio.sessions or radio.monitors)

    # -- what is in the air ------------------------------------------------------------------------------------------

    def path(self, address: str, index: str = "hci0") -> str:
        return f"/org/bluez/{index}/dev_{address.replace(':', '_')}"

    def advertise(
        self,
        address: str,
        manufacturer: Mapping[int, bytes] | None = None,
        service: Mapping[str, bytes] | None = None,
        *,
        rssi: int = -60,
        name: str = "",
        index: str = "hci0",
        kind: str = "public",
    ) -> bool:
        """One advertisement is in the air. Whether bluetoothd told anybody."""
        radio = self.radios.get(index)
        if radio is None or not self.scanning(index) or radio.deaf or (radio.busy and radio.deaf_when_busy):
            return False
        duplicates = any(one.get("DuplicateData") for one in radio.filters.values())
        proximity = any("RSSI" in one for one in radio.filters.values())
        path = self.path(address, index)
        known = self.objects.get(path, {}).get(DEVICE)
        change: dict[str, Variant] = {}
        before = known.get("RSSI") if known else None
        threshold = 0 if proximity else _RSSI_THRESHOLD
        if before is None or abs(before.value - rssi) >= max(threshold, 1) or proximity:
            change["RSSI"] = Variant("n", rssi)
        for key, data, signature in (("ManufacturerData", manufacturer, "a{qv}"), ("ServiceData", service, "a{sv}")):
            if data:
                old = known.get(key) if known else None
                merged = {} if duplicates or old is None else dict(old.value)
                merged |= {number: Variant("ay", octets) for number, octets in data.items()}
                if duplicates or old is None or _plain(merged) != _plain(old.value):
                    change[key] = Variant(signature, merged)
        if name:
            change |= {"Name": Variant("s", name), "Alias": Variant("s", name)}
        if known is None:
            self._meet(address, path, radio.path, name, kind, change)
            return True
        self.objects[path] = self.objects.pop(path)  # heard last
        if change:
            self._change(path, DEVICE, change)
        return bool(change)

    def _meet(self, address: str, path: str, radio: str, name: str, kind: str, more: Mapping[str, Variant]) -> None:
        alias = name or address.replace(":", "-")
        flags = {"Paired": address in self._bonded, **dict.fromkeys(("Trusted", "Blocked", "LegacyPairing"), False)}
        self.objects[path] = {
            DEVICE: {
                "Address": Variant("s", address),
                "AddressType": Variant("s", kind),
                "Alias": Variant("s", alias),
                **{flag: Variant("b", value) for flag, value in flags.items()},
                "Connected": Variant("b", False),
                "ServicesResolved": Variant("b", False),
                "UUIDs": Variant("as", []),
                "Adapter": Variant("o", radio),
                **more,
            }
        }
        self._added(path)
        devices = [path for path, one in self.objects.items() if DEVICE in one]
        if len(devices) > self.keep:
            self._remove(next(path for path in devices if not self.objects[path][DEVICE]["Connected"].value))

    def forget(self, address: str, index: str = "hci0") -> None:
        self._remove(self.path(address, index))

    # -- devices that can be connected to ----------------------------------------------------------------------------

    def peripheral(self, address: str, *characteristics: Gatt, passkey: int | None = None) -> None:
        self._gatt[address] = list(characteristics)
        self._passkeys[address] = passkey

    def notify(self, address: str, uuid: str, value: bytes, index: str = "hci0") -> bool:
        """The device sends a value by itself. Whether anybody had asked for it."""
        sent = False
        for path, interfaces in list(self.objects.items()):
            one = interfaces.get(CHARACTERISTIC)
            mine = path.startswith(self.path(address, index)) and one is not None and one["UUID"].value == uuid
            if mine and interfaces[CHARACTERISTIC]["Notifying"].value:
                self._change(path, CHARACTERISTIC, {"Value": Variant("ay", value)})
                sent = True
        return sent

    def drop(self, address: str, index: str = "hci0") -> None:
        """The connection is lost."""
        path = self.path(address, index)
        for one in [one for one in self.objects if one.startswith(path + "/")]:
            self._remove(one)
        self._change(path, DEVICE, {"ServicesResolved": Variant("b", False)})
        self._change(path, DEVICE, {"Connected": Variant("b", False)})

    def connections(self) -> int:
        return sum(one[DEVICE]["Connected"].value for one in self.objects.values() if DEVICE in one)

    # -- signals -----------------------------------------------------------------------------------------------------

    def _signal(self, path: str, interface: str, member: str, signature: str, body: list[Any]) -> None:
        if self._bus is not None:
            _ = self._bus.send(
                Message(
                    message_type=MessageType.SIGNAL,
                    path=path,
                    interface=interface,
                    member=member,
                    signature=signature,
                    body=body,
                )
            )

    def _added(self, path: str) -> None:
        self._signal("/", OBJECTS, "InterfacesAdded", "oa{sa{sv}}", [path, self.objects[path]])

    def _remove(self, path: str) -> None:
        interfaces = self.objects.pop(path, {})
        self._signal("/", OBJECTS, "InterfacesRemoved", "oas", [path, list(interfaces)])

    def _change(self, path: str, interface: str, properties: Mapping[str, Variant]) -> None:
        if path in self.objects:
            self.objects[path][interface].update(properties)
            self._signal(path, PROPERTIES, "PropertiesChanged", "sa{sv}as", [interface, dict(properties), []])

    # -- calls -------------------------------------------------------------------------------------------------------

    async def _call_bus(self, member: str, argument: str) -> None:
        assert self._bus is not None
        await self._bus.call(
            Message(
                destination=_DBUS, path="/org/freedesktop/DBus", interface=_DBUS, member=member, signature="s",
                body=[argument],
            )
        )  # fmt: skip

    def _handle(self, message: Message) -> bool | None:
        if message.message_type is MessageType.SIGNAL and message.member == "NameOwnerChanged":
            name, _, now = message.body
            if not now:
                self._left(name)
            return None
        if message.message_type is not MessageType.METHOD_CALL or self._bus is None:
            return None
        if message.destination not in {"org.bluez", self._bus.unique_name}:
            return None
        if str(message.interface).startswith(("org.freedesktop.DBus.Peer", "org.freedesktop.DBus.Introspectable")):
            return None
        self.calls.append((str(message.member), str(message.path)))
        task = asyncio.get_running_loop().create_task(self._answer(message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    def _left(self, name: str) -> None:
        """A connection has ended: bluetoothd ends what it had begun."""
        self._agents.pop(name, None)
        for radio in self.radios.values():
            radio.sessions.discard(name)
            radio.filters.pop(name, None)
            radio.monitors = {path: owner for path, owner in radio.monitors.items() if owner != name}

    async def _answer(self, message: Message) -> None:
        member = str(message.member)
        if member in self.hang or f"{member} {message.path}" in self.hang:
            return
        if member in self.delay:
            await asyncio.sleep(self.delay[member])
        try:
            failure = self.fail.get(member)
            if failure:
                raise _Refused(*(failure.pop(0) if isinstance(failure, list) else failure))
            signature, body = await self._serve(member, message)
        except _Refused as exc:
            name = exc.name if "." in exc.name else f"org.bluez.Error.{exc.name}"
            reply = Message.new_error(message, name, exc.text)
        else:
            reply = Message.new_method_return(message, signature, body)
        if self._bus is not None:
            _ = self._bus.send(reply)

    async def _serve(self, member: str, message: Message) -> tuple[str, list[Any]]:
        path, body, sender = str(message.path), message.body, str(message.sender)
        if member == "GetManagedObjects":
            return "a{oa{sa{sv}}}", [self.objects]
        if path == "/org/bluez":
            self._agents[sender] = body[0]
            return "", []
        if path not in self.objects:
            raise _Refused("org.freedesktop.DBus.Error.UnknownObject", "Method called on an object that does not exist")
        if message.interface == PROPERTIES:
            return self._property(member, path, body)
        if message.interface in {ADAPTER, MONITORS}:
            return self._radio_call(member, path, body, sender)
        if message.interface == DEVICE:
            return await self._device_call(member, path, sender)
        return self._characteristic_call(member, path, body)

    def _property(self, member: str, path: str, body: list[Any]) -> tuple[str, list[Any]]:
        if member == "GetAll":
            return "a{sv}", [self.objects[path][body[0]]]
        if member == "Get":
            return "v", [self.objects[path][body[0]][body[1]]]
        if body[1] == "Powered":
            radio = self.radios[path.rpartition("/")[2]]
            if radio.blocked and body[2].value:
                raise _Refused("Failed", "Blocked through rfkill")
            self.power(path.rpartition("/")[2], on=body[2].value)
        else:
            self._change(path, body[0], {body[1]: body[2]})
        return "", []

    def _radio_call(self, member: str, path: str, body: list[Any], sender: str) -> tuple[str, list[Any]]:
        radio = self.radios[path.rpartition("/")[2]]
        if not self.objects[path][ADAPTER]["Powered"].value:
            raise _Refused("NotReady", "Resource Not Ready")
        if member == "SetDiscoveryFilter":
            radio.filters[sender] = {name: value.value for name, value in body[0].items()}
        elif member == "StartDiscovery":
            if sender in radio.sessions:
                raise _Refused("InProgress", "Operation already in progress")
            radio.sessions.add(sender)
        elif member == "StopDiscovery":
            if sender not in radio.sessions:
                raise _Refused("Failed", "No discovery started")
            radio.sessions.discard(sender)
            radio.filters.pop(sender, None)
        elif member == "RegisterMonitor":
            radio.monitors[body[0]] = sender
        elif member == "UnregisterMonitor":
            radio.monitors.pop(body[0], None)
        if member in {"StartDiscovery", "RegisterMonitor"} and radio.deaf_until == "scan":
            radio.deaf = False
        self._change(path, ADAPTER, {"Discovering": Variant("b", bool(radio.sessions))})
        return "", []

    async def _device_call(self, member: str, path: str, sender: str) -> tuple[str, list[Any]]:
        device = self.objects[path][DEVICE]
        address = device["Address"].value
        if member == "Pair":
            await self._pair(path, address, sender)
        elif member == "Disconnect":
            self.drop(address, path.split("/")[3])
        elif member == "Connect":
            if address not in self._gatt:
                raise _Refused("Failed", "le-connection-abort-by-remote")
            self._change(path, DEVICE, {"Connected": Variant("b", True)})
            self.connected_at_most = max(self.connected_at_most, self.connections())
            self._resolve(path, address)
        return "", []

    def _resolve(self, path: str, address: str) -> None:
        handle, services = 16, {}
        for one in self._gatt[address]:
            if one.service not in services:
                services[one.service] = where = f"{path}/service{handle:04x}"
                handle += 1
                self.objects[where] = {
                    SERVICE: {
                        "UUID": Variant("s", one.service),
                        "Primary": Variant("b", True),
                        "Device": Variant("o", path),
                        "Includes": Variant("ao", []),
                    }
                }
                self._added(where)
            where = f"{services[one.service]}/char{handle:04x}"
            handle += 2
            self.objects[where] = {
                CHARACTERISTIC: {
                    "UUID": Variant("s", one.uuid),
                    "Service": Variant("o", services[one.service]),
                    "Value": Variant("ay", b""),
                    "Notifying": Variant("b", False),
                    "Flags": Variant("as", list(one.flags)),
                    "MTU": Variant("q", 247),
                }
            }
            self._added(where)
        self._change(path, DEVICE, {"ServicesResolved": Variant("b", True)})

    def _characteristic_call(self, member: str, path: str, body: list[Any]) -> tuple[str, list[Any]]:
        uuid = self.objects[path][CHARACTERISTIC]["UUID"].value
        address = path.split("/")[4].removeprefix("dev_").replace("_", ":")
        one = next(one for one in self._gatt[address] if one.uuid == uuid)
        if member == "ReadValue":
            return "ay", [one.value() if callable(one.value) else one.value]
        if member == "WriteValue":
            one.value = self.written[uuid] = bytes(body[0])
        elif member in {"StartNotify", "StopNotify"}:
            self._change(path, CHARACTERISTIC, {"Notifying": Variant("b", member == "StartNotify")})
        return "", []

    async def _pair(self, path: str, address: str, sender: str) -> None:
        agent = self._agents.get(sender)
        if agent is None:
            raise _Refused("AuthenticationFailed", "Authentication Failed")
        passkey = self._passkeys.get(address)
        member = "RequestAuthorization" if passkey is None else "RequestPasskey"
        assert self._bus is not None
        reply = await self._bus.call(
            Message(destination=sender, path=agent, interface=AGENT, member=member, signature="o", body=[path])
        )
        refused = reply.message_type is MessageType.ERROR
        if refused or (passkey is not None and reply.body != [passkey]):
            raise _Refused("AuthenticationFailed", "Authentication Failed")
        self._bonded.add(address)
        self._change(path, DEVICE, {"Paired": Variant("b", True)})


class _Refused(Exception):  # noqa: N818  # what D-Bus calls an error reply
    def __init__(self, name: str, text: str) -> None:
        super().__init__(name, text)
        self.name, self.text = name, text


def _plain(data: Mapping[Any, Variant]) -> dict[Any, bytes]:
    return {key: bytes(octets.value) for key, octets in data.items()}
