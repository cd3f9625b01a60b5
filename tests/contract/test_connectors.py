"""The promises that every connector keeps, whatever it speaks. A new one is added to `tests/support/receivers.py`.

What its messages look like is in `tests/cases/connectors`; `EDGED_UPDATE_CASES=1` writes them anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.adapter import PointConfig
from edged.buffer.batch import Batch
from edged.clock import wall_us
from edged.config.base import DeviceConfig
from edged.config.model import Config
from edged.config.types import Duration, Name
from edged.doctor.check import Check
from edged.doctor.network import check_connections
from edged.downlink.api import Command, CommandResult, Commands, State
from edged.errors import EdgedError, PermanentError
from edged.model import Quality, Sample, Value, bad
from edged.testing.proxy import FaultProxy
from edged.uplink.api import (
    Chunk,
    ConnectionContext,
    Connector,
    Encoder,
    Envelope,
    Lane,
    Link,
    Message,
    Server,
    Serves,
    Verdict,
)
from edged.uplink.connectors import connector_names, load_connector, load_forwarding, load_server
from edged.uplink.lanes import halves
from edged_modbus.exposed import ServedPoint
from tests.support.forwarding import context_of
from tests.support.mosquitto import free_port
from tests.support.mqttdevices import Publisher
from tests.support.receivers import OFFLINE_SETTINGS, RECEIVERS, Receiver
from tests.support.sparkplug import payload_class
from tests.support.subscriber import Subscriber, subscribed
from tests.support.waiting import until

pytestmark = pytest.mark.mosquitto
ROOT = Path(__file__).parents[2]
CASES = ROOT / "tests" / "cases" / "connectors"
SERVERS = {"modbus-server", "prometheus"}
"""Those who are asked."""
SENDING = sorted(RECEIVERS)
LAYOUTS = ("samples", "senml", "senml-cbor", "influx", "template")
ENCODERS = [*SENDING, *(f"mqtt {layout}" for layout in LAYOUTS), "file columns", "file csv"]
T0 = 1_795_219_200_000_000
POINTS = {
    Name("supply"): PointConfig(unit="°C"), Name("count"): PointConfig(), Name("on"): PointConfig(writable=True),
    Name("state"): PointConfig(description="What it does"),
}  # fmt: skip
DEVICES = {
    "chiller": DeviceConfig(bus=Name("line"), labels={"room": "plant"}, points=POINTS),
    "boiler": DeviceConfig(bus=Name("line"), points=POINTS),
}
NAMES = tuple(map(str, POINTS))


def context() -> ConnectionContext:
    return context_of(devices=DEVICES, secret=lambda secret: getattr(secret, "text", secret))


def made(name: str, settings: dict[str, Any]) -> tuple[Connector, Any]:
    """The connector and the configuration of a connection."""
    connector = load_forwarding(name)
    known = {one.name for one in fields(connector.connection_config)}
    usual: dict[str, Any] = {"connect_timeout": Duration(3), "response_timeout": Duration(2), "retry_max": Duration(1)}
    quick = {key: value for key, value in usual.items() if key in known}
    return connector, connector.connection_config(connector=name, **{**quick, **settings})


def encoder_of(variant: str) -> Encoder:
    """`NAME`, or `NAME LAYOUT`."""
    name, _, layout = variant.partition(" ")
    more = {"template": "{device}/{point} {value} {iso}"} if layout == "template" else {}
    connector, config = made(name, {**OFFLINE_SETTINGS[name], **({"layout": layout} if layout else {}), **more})
    told = context()
    encoder = connector.encoder(config, told)
    connector.link(config, told)  # some need both
    return encoder


def batch_of(*samples: Sample, first: int = 5, target: str = "") -> Batch:
    return Batch(first, samples, "boot", sum(len(sample.points) for sample in samples), target)


def envelope(chunk: Chunk, prev: int = 4, lane: Lane = Lane.LIVE) -> Envelope:
    return Envelope("0123456789abcdef", chunk.last, prev, lane)


def good_batch(target: str = "") -> Batch:
    """Each type, each kind of quality, two devices."""
    odd = {0: Quality("uncertain", "clock"), 1: bad("timeout")}
    return batch_of(
        Sample("chiller", T0, 1, NAMES, [21.5, 7, True, "rün"]),
        Sample("boiler", T0 + 1_000_000, 2, NAMES, [-0.25, None, False, ""], odd),
        Sample("chiller", T0 + 2_000_000, 3, NAMES[:2], [22.5, 2**53 + 1]),
        target=target,
    )


def check_line(error: EdgedError) -> None:
    """What a person reads is one line, and says something."""
    assert str(error).strip()
    assert "\n" not in str(error)


# -- all of them -------------------------------------------------------------------------------------------------------


def test_every_connector_that_is_installed_is_held_to_these_promises() -> None:
    assert set(connector_names()) == set(SENDING) | SERVERS
    assert set(OFFLINE_SETTINGS) == set(SENDING)


@pytest.mark.parametrize("name", connector_names())
def test_it_has_a_page_and_says_what_each_setting_is_for(name: str) -> None:
    page = ROOT / "docs" / "how-to" / f"{name}.md"
    assert page.is_file()
    assert f"how-to/{name}.md" in (ROOT / "docs" / "index.md").read_text("utf-8")
    text = page.read_text("utf-8")
    assert f"connector: {name}" in text
    assert load_connector(name).connection_config.__doc__
    reference = (ROOT / "docs" / "reference" / "configuration.md").read_text("utf-8")
    assert f": {name}`" in reference or f"`{name}`" in reference or f"connector `{name}`" in reference


# -- encoders ----------------------------------------------------------------------------------------------------------


def shown(message: Message) -> dict[str, Any]:
    """A message as people can read it."""
    try:
        text: Any = message.payload.decode()
        text = json.loads(text) if "json" in message.content_type else text.splitlines()
    except ValueError:
        text = message.payload.hex()
    told = {"topic": message.topic, "type": message.content_type, "properties": dict(message.properties)}
    return {**told, "retain": message.retain, "payload": text}


@pytest.mark.parametrize("name", ENCODERS)
def test_the_golden_samples_become_the_golden_messages(name: str) -> None:
    found = []
    for target, lane in (("", Lane.LIVE), ("", Lane.HISTORICAL), ("cloud", Lane.REPLAY)):
        encoder, prev = encoder_of(name), 4
        for chunk in encoder.split(good_batch(target)):
            message = encoder.encode(chunk, envelope(chunk, prev, lane))
            prev = prev if message.skip else chunk.last
            found.append({"lane": str(lane), "first": chunk.first, "seq": chunk.last, **shown(message)})
    text = json.dumps(found, indent=1, ensure_ascii=False) + "\n"
    golden = CASES / f"{name.replace(' ', '-')}.json"
    if os.environ.get("EDGED_UPDATE_CASES"):
        golden.write_text(text, "utf-8")
    assert text == golden.read_text("utf-8")


ODD = ["", "a/b", "+", "#", "$", "é" * 30, "\x00", "\r\n", '"', "{}", "x" * 400]
WORDS = st.text(max_size=12) | st.sampled_from(ODD)
NAMED: st.SearchStrategy[str] = WORDS.filter(len)
VALUES: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.floats() | WORDS | st.sampled_from(["z" * 70_000, 2**63, 2**64 - 1, -(2**63), 1e308])
    | st.integers(-(2**63), 2**64 - 1)
)  # fmt: skip


@st.composite
def hostile(draw: st.DrawFn) -> Batch:
    """Whatever an adapter of a third party may store."""
    samples = []
    for _ in range(draw(st.integers(1, 4))):
        points = tuple(draw(st.lists(NAMED, max_size=3, unique=True)))
        values: list[Value] = draw(st.lists(VALUES, min_size=len(points), max_size=len(points)))
        quality = {i: bad("decode") for i, value in enumerate(values) if value is None}
        doubtful = draw(st.booleans())
        if points and doubtful:
            quality[0] = draw(st.sampled_from([Quality("uncertain", "range"), bad("timeout")]))
        device = draw(st.sampled_from(["chiller", "boiler", "unknown", "a/b+c#", "gerät"]))
        samples.append(Sample(device, draw(st.integers(-(10**15), 2**62)), 0, points, values, quality))
    return batch_of(*samples)


def divided(encoder: Encoder, batch: Batch) -> Iterator[tuple[Chunk, Message | None]]:
    """Chunks and their messages, as a forwarder makes them; None for what can never be sent."""
    todo = list(encoder.split(batch))
    while todo:
        chunk = todo.pop(0)
        try:
            yield chunk, encoder.encode(chunk, envelope(chunk))
        except PermanentError as exc:
            check_line(exc)
            if len(chunk.samples) > 1:
                todo[:0] = halves(chunk)
            else:
                yield chunk, None


@pytest.mark.parametrize("name", ENCODERS)
@given(batch=hostile())
def test_whatever_was_stored_becomes_messages_or_is_refused(name: str, batch: Batch) -> None:
    encoder, again = encoder_of(name), encoder_of(name)
    chunks = list(encoder.split(batch))
    assert [(chunk.first, chunk.last) for chunk in chunks] == [(one.first, one.last) for one in again.split(batch)]
    assert sum(chunk.readings for chunk in chunks) == batch.readings
    expected = batch.first
    for chunk, message in divided(encoder, batch):
        assert chunk.first == expected, "nothing is left out, and nothing comes twice"
        expected = chunk.last + 1
        if message is None:
            continue
        assert 0 <= message.left_out <= chunk.readings
        assert message.skip or (message.topic and "\x00" not in message.topic)
        if message.payload and message.content_type == "application/json":
            json.loads(message.payload, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert expected == batch.last + 1


@pytest.mark.parametrize("name", ENCODERS)
def test_a_message_that_is_sent_again_after_a_crash_is_the_same(name: str) -> None:
    before, after = encoder_of(name), encoder_of(name)
    for chunk in before.split(good_batch()):
        once = [one.encode(chunk, envelope(chunk)) for one in (before, after)]
        if name != "sparkplug":  # counts its messages, as its specification wants
            assert once[0] == once[1]


# -- links -------------------------------------------------------------------------------------------------------------


class Session:
    """A link and what to send over it."""

    def __init__(self, name: str, receiver: Receiver, commands: Commands | None = None) -> None:
        self.receiver = receiver
        connector, config = made(name, {**receiver.settings, **({"commands": True} if commands else {})})
        told = replace(context(), commands=commands)
        self.encoder = connector.encoder(config, told)
        self.link: Link = connector.link(config, told)
        self._prev = 0

    def message(self) -> Message:
        """The next one."""
        first = self._prev + 1
        sample = Sample("chiller", T0 + first, 0, NAMES[:1], [float(first)])
        (chunk,) = self.encoder.split(batch_of(sample, first=first))
        message = self.encoder.encode(chunk, envelope(chunk, self._prev))
        self._prev = chunk.last
        return message

    async def verdict(self, message: Message | None = None) -> Verdict:
        async with asyncio.timeout(20):
            return (await self.link.send(message or self.message())).verdict

    async def connect(self, seconds: float = 20) -> None:
        async with asyncio.timeout(seconds):
            while True:
                try:
                    line = await self.link.connect("0123456789abcdef")
                except EdgedError as exc:
                    check_line(exc)
                    await self.link.close()
                    await asyncio.sleep(0.1)
                else:
                    assert line
                    assert "\n" not in line
                    return


@asynccontextmanager
async def session(name: str, folder: Path) -> AsyncIterator[Session]:
    async with RECEIVERS[name](folder) as receiver:
        one = Session(name, receiver)
        try:
            yield one
        finally:
            await one.link.close()


def left_open() -> tuple[int, int, int]:
    """Tasks, threads and descriptors."""
    threads = sum("edged" in one.name or "mqtt" in one.name.lower() for one in threading.enumerate())
    return len(asyncio.all_tasks()), threads, len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("name", SENDING)
async def test_a_session_delivers_and_leaves_nothing_behind(name: str, tmp_path: Path) -> None:
    async with session(name, tmp_path) as one:
        await one.connect()  # what is loaded or opened once for all
        await one.link.close()
        before = left_open()
        for _ in range(2):
            await one.connect()
            assert 1 <= one.link.window <= 1000
            message = one.message()
            assert one.link.fits(message)
            assert await one.verdict(message) is Verdict.DELIVERED
            await one.link.announce()
            await one.link.report()
            await one.link.close()
            await one.link.close()
            assert await one.verdict() is Verdict.RETRY, "there is no session"
        async with asyncio.timeout(10):
            while any(now > then for now, then in zip(left_open(), before, strict=True)):
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("name", [one for one in SENDING if one != "file"])
async def test_a_receiver_that_goes_and_comes_back_refuses_nothing(name: str, tmp_path: Path) -> None:
    async with session(name, tmp_path) as one:
        away = one.receiver.away
        assert away is not None
        await one.connect()
        assert await one.verdict() is Verdict.DELIVERED
        await asyncio.to_thread(away.stop)
        message = one.message()
        assert await one.verdict(message) is Verdict.RETRY
        async with asyncio.timeout(20):
            assert await one.link.lost()
        await one.link.close()
        with pytest.raises(EdgedError) as caught:
            await one.link.connect("0123456789abcdef")
        check_line(caught.value)
        await one.link.close()
        await asyncio.to_thread(away.start)
        await one.connect()
        assert await one.verdict(message) is Verdict.DELIVERED


@pytest.mark.parametrize("name", [one for one in SENDING if one not in {"file", "http", "thingworx"}])
async def test_what_is_too_large_is_never_sent_and_harms_nothing_else(name: str, tmp_path: Path) -> None:
    async with session(name, tmp_path) as one:
        await one.connect()
        large = replace(one.message(), payload=bytes(300 * 1024))
        assert not one.link.fits(large)
        outcome = await one.link.send(large)
        assert (outcome.verdict, outcome.reason) == (Verdict.REJECTED, "too_large")
        assert await one.verdict() is Verdict.DELIVERED


@pytest.mark.parametrize("name", ["http", "thingworx"])
async def test_what_is_refused_is_rejected_and_what_may_pass_is_tried_again(name: str, tmp_path: Path) -> None:
    async with session(name, tmp_path) as one:
        refuse = one.receiver.refuse
        assert refuse is not None
        await one.connect()
        assert await one.verdict() is Verdict.DELIVERED
        for status in (400, 413):
            refuse(status)
            assert await one.verdict() is Verdict.REJECTED, status
        message = one.message()
        for status in (503, 429):
            refuse(status)
            assert await one.verdict(message) is Verdict.RETRY, status
        refuse(204)
        assert await one.verdict(message) is Verdict.DELIVERED


@pytest.mark.parametrize("name", SENDING)
async def test_an_attempt_that_is_cancelled_leaves_the_link_usable(name: str, tmp_path: Path) -> None:
    async with session(name, tmp_path) as one:
        for pause in (0.0, 0.002):
            attempt = asyncio.ensure_future(one.link.connect("0123456789abcdef"))
            await asyncio.sleep(pause)
            attempt.cancel()
            await asyncio.wait([attempt])
            await one.link.close()
        await one.connect()
        assert await one.verdict() is Verdict.DELIVERED


BROKERED = ["homeassistant", "mqtt", "sparkplug", "thingsboard", "watson-iot"]
"""Those that an ordinary broker does for."""


@asynccontextmanager
async def brokered(
    name: str, folder: Path, commands: Commands | None = None
) -> AsyncIterator[tuple[Session, FaultProxy, Subscriber]]:
    """A session through a proxy, and somebody who hears all that the broker is told."""
    async with RECEIVERS[name](folder) as receiver, AsyncExitStack() as stack:
        port = int(receiver.settings["url"].rpartition(":")[2])
        proxy = await stack.enter_async_context(FaultProxy("127.0.0.1", port))
        subscriber = stack.enter_context(subscribed(port, "#"))
        one = Session(
            name, Receiver({**receiver.settings, "url": f"mqtt://127.0.0.1:{proxy.port}"}, receiver.away), commands
        )
        try:
            yield one, proxy, subscriber
        finally:
            await one.link.close()


async def quiet(subscriber: Subscriber, more_than: int = 0) -> None:
    """Until something has come, and nothing more comes."""
    await until(lambda: len(subscriber.messages) > more_than)
    count = -1
    while count < (count := len(subscriber.messages)):
        await asyncio.sleep(0.2)


@pytest.mark.parametrize("name", BROKERED)
async def test_of_a_session_that_breaks_the_broker_says_what_the_gateway_says_at_an_end(
    name: str, tmp_path: Path
) -> None:
    async with brokered(name, tmp_path) as (one, proxy, heard):
        said = []
        for end in (proxy.reset, None):
            await one.connect()
            assert await one.verdict() is Verdict.DELIVERED
            await quiet(heard)
            before = len(heard.messages)
            if end:
                end()
                assert await asyncio.wait_for(one.link.lost(), 20)
            await one.link.close()
            await quiet(heard, before)
            (last,) = heard.messages[before:]  # once: whoever says good-bye leaves no will
            said.append(last)
        will, farewell = said
        assert will.topic == farewell.topic
        assert will.payload
        assert farewell.payload
        await one.connect()
        await quiet(heard)
        news = heard.messages[heard.messages.index(farewell) + 1 :]
        assert news[0].topic != farewell.topic or news[0].payload != farewell.payload, "it is there again, and says so"


COMMANDS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "mqtt": (
        "edged/plant-7/command",
        lambda: orjson.dumps({"id": "1", "point": "chiller/on", "value": True, "expires": wall_us() + 10**7}),
    ),
    "homeassistant": ("edged/plant-7/ha/set/chiller/on", lambda: b"ON"),
    "sparkplug": ("spBv1.0/edged/DCMD/plant-7/chiller", lambda: written("on", boolean_value=True)),
    "thingsboard": (
        "v1/gateway/rpc", lambda: b'{"device": "chiller", "data": {"id": 1, "method": "on", "params": true}}',
    ),
    "watson-iot": (
        "iot-2/type/edged-device/id/chiller/cmd/write/fmt/json", lambda: b'{"d": {"point": "on", "value": true}}',
    ),
}  # fmt: skip
"""For each that takes commands, where they come, and one."""
_DEEP = b"[" * 300 + b"1" + b"]" * 300
HOSTILE = [
    b"", b"\xff\xfe", b"null", b"9" * 400, b"{}", b"[]", b"[" * 100_000, _DEEP, b"x" * 200_000, b"\x12\x7f",
    b'{"id": "1", "point": "chiller/on", "value": 1, "ttl": 1e305, "time": "2026-11-21T12:00:00Z"}',
    b'{"id": "1", "point": "#", "value": 1, "expires": 18446744073709551615}',
    b'{"device": "chiller", "data": {"id": 1, "method": [], "params": 1}}',
    b'{"device": "chiller", "data": {"id": %b, "method": "on", "params": 1}}' % _DEEP, b'{"d": {"value": %b}}' % _DEEP,
]  # fmt: skip


def written(metric: str, **value: object) -> bytes:
    """A DCMD."""
    content = payload_class()(timestamp=wall_us() // 1000)
    content.metrics.add(name=metric, **value)
    return bytes(content.SerializeToString())


class Taken:
    """Takes every command. Implements `edged.downlink.api.Commands`."""

    def __init__(self) -> None:
        self.commands: list[Command] = []

    def good(self) -> list[Command]:
        """Those that are meant. What is wrong with others, such as a point that is none, is judged behind `submit`."""
        return [one for one in self.commands if one.address == "chiller/on" and one.value is True]

    async def submit(self, command: Command) -> CommandResult:
        self.commands.append(command)
        return CommandResult(id=command.id, device=command.device, point=command.point, state=State.ACCEPTED)

    async def results(self) -> AsyncIterator[CommandResult]:
        await asyncio.Event().wait()
        yield CommandResult(id="", device="", point="", state=State.ACCEPTED)

    def told(self, result: CommandResult) -> None:
        """Nobody wants to know."""


@pytest.mark.parametrize("name", BROKERED)
async def test_nothing_that_somebody_sends_ends_a_session_or_is_taken_for_a_command(name: str, tmp_path: Path) -> None:
    taken = Taken()
    topic, good = COMMANDS[name]
    async with brokered(name, tmp_path, taken) as (one, proxy, _), AsyncExitStack() as stack:
        await one.connect()
        assert isinstance(one.link, Serves)
        serving = asyncio.create_task(one.link.serve(contextlib.nullcontext))
        stack.callback(serving.cancel)
        somebody = Publisher(proxy.upstream[1])
        stack.callback(somebody.client.loop_stop)
        stack.callback(somebody.client.disconnect)
        for payload in HOSTILE:
            for where in (topic, f"{topic.rpartition('/')[0]}/%ff"):
                await asyncio.to_thread(somebody.say, where, payload)
        await asyncio.to_thread(somebody.say, topic, good(), retain=True)  # it would come again and again
        await asyncio.to_thread(somebody.say, topic, good())
        await until(lambda: taken.good() or serving.done())
        assert not serving.done()
        assert len(taken.good()) == 1, "what is retained is none"
        assert await one.verdict() is Verdict.DELIVERED
        assert proxy.accepted == 1


@pytest.mark.parametrize("name", SENDING)
async def test_the_doctor_says_whether_the_way_is_free_and_what_is_in_it(name: str, tmp_path: Path) -> None:
    async with RECEIVERS[name](tmp_path) as receiver:
        _, settings = made(name, receiver.settings)
        config = Config(gateway=context().gateway, connections={Name("cloud"): settings})

        async def checks() -> dict[str, Check]:
            found = await asyncio.to_thread(lambda: list(check_connections(config, tmp_path)))
            assert all(one.evidence and "\n" not in one.evidence + one.remedy for one in found)
            assert all(bool(one.remedy) == (one.state in {"problem", "warning"}) for one in found)
            return {one.name: one for one in found}

        free = await checks()
        assert not [one for one in free.values() if one.state == "problem"]
        if receiver.away is None:
            assert [one.state for one in free.values()] == ["n/a"]
            return
        assert free["port cloud"].state == "ok"
        if name == "azure-iot-hub":
            return  # of its stand-in only what is behind the door can be stopped
        await asyncio.to_thread(receiver.away.stop)
        blocked = await checks()
        (found,) = [one for one in blocked.values() if one.state == "problem"]
        assert urlsplit(settings.url).netloc.rpartition(":")[2] in found.evidence
        await asyncio.to_thread(receiver.away.start)


# -- servers -----------------------------------------------------------------------------------------------------------


def server_of(name: str, port: int) -> Server:
    connector = load_server(name)
    more: dict[str, Any] = {"points": {"chiller/supply": ServedPoint(input=0)}} if name == "modbus-server" else {}
    config = connector.connection_config(connector=name, **{"listen": f"127.0.0.1:{port}", **more})
    return connector.server(config, context())


async def run_once(server: Server, port: int) -> tuple[int, int, int]:
    """Serve some clients and end; what is left open."""
    assert not server.state().listening
    running = asyncio.create_task(server.run())
    await until(lambda: server.state().listening == f"127.0.0.1:{port}")
    clients = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
    await until(lambda: server.state().clients == 3)
    clients[0][1].close()
    await until(lambda: server.state().clients == 2)
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()
    for reader, writer in clients[1:]:
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()
    await until(lambda: server.state().clients == 0)
    await asyncio.sleep(0.05)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    return left_open()


@pytest.mark.parametrize("name", sorted(SERVERS))
async def test_a_server_listens_while_it_runs_and_leaves_nothing_behind(name: str) -> None:
    port = free_port()
    once = await run_once(server_of(name, port), port)
    again = await run_once(server_of(name, port), port)
    assert all(one <= then for one, then in zip(again, once, strict=True))


@pytest.mark.parametrize("name", sorted(SERVERS))
async def test_a_server_whose_port_is_taken_says_so_and_may_try_again(name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = server_of(name, port)
        with pytest.raises(EdgedError, match=f"127.0.0.1:{port}") as caught:
            await server.run()
        check_line(caught.value)
    running = asyncio.create_task(server.run())
    await until(lambda: server.state().listening)
    running.cancel()
    await asyncio.wait([running])
