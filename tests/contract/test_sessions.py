"""What every connector promises of its way down and of its end: the will, what others send, what the doctor says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import orjson
import pytest

from edged.clock import wall_us
from edged.config.model import Config
from edged.config.types import Name
from edged.doctor.check import Check
from edged.doctor.network import check_connections
from edged.downlink.api import Command, CommandResult, Commands, State
from edged.testing.proxy import FaultProxy
from edged.uplink.api import (
    Serves,
    Verdict,
)
from tests.contract.rig import (
    SENDING,
    Session,
    context,
    made,
)
from tests.support.mqttdevices import Publisher
from tests.support.receivers import RECEIVERS, Receiver
from tests.support.sparkplug import payload_class
from tests.support.subscriber import Subscriber, subscribed
from tests.support.waiting import until

pytestmark = pytest.mark.mosquitto
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
