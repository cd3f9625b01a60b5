"""What a connection says of itself, and how long it waits before it tries again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from edged.buffer.log import Buffer
from edged.clock import boot_id
from edged.config.model import BufferConfig
from edged.errors import ConfigError, EdgedError, PermanentError, TransientError
from edged.uplink.api import Message, Outcome, Pacing, Verdict
from edged.uplink.connectors.mqtt import CONNECTOR, MqttConnection
from edged.uplink.forwarder import Forwarder
from edged.uplink.state import State, Story
from edged.uplink.upstream import RECONNECT
from tests.support.forwarding import context_of
from tests.support.waiting import until


class BadLink:
    """A link over which no session ever begins. The wire is what is fake here."""

    window = 1

    def __init__(self, error: EdgedError, pacing: Pacing) -> None:
        self.pacing = pacing
        self._error = error

    async def connect(self, epoch: str) -> str:
        raise self._error

    def fits(self, message: Message) -> bool:
        return True

    async def send(self, message: Message) -> Outcome:
        return Outcome(Verdict.RETRY)

    async def announce(self) -> None:
        """Nobody to tell."""

    async def report(self) -> None:
        """Nobody to tell."""

    async def lost(self) -> str:
        return ""

    async def close(self) -> None:
        """Nothing is open."""


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (TransientError("no answer", reason="timeout"), State.UNREACHABLE),
        (TransientError("nothing listens", reason="refused"), State.UNREACHABLE),
        (TransientError("hung up", reason="closed"), State.CLOSED),
        (TransientError("is busy", reason="busy"), State.CLOSED),
        (PermanentError("wrong password", reason="refused"), State.AUTHENTICATION_FAILED),
        (PermanentError("unknown authority", reason="tls"), State.AUTHENTICATION_FAILED),
        (PermanentError("no QoS 1", reason="qos"), State.MISCONFIGURED),
        (ConfigError("no such file"), State.MISCONFIGURED),
    ],
)
async def test_a_connection_says_what_it_is_at_since_when_and_when_it_tries_again(
    tmp_path: Path, error: EdgedError, state: State
) -> None:
    buffer = Buffer(tmp_path / "buffer.db", BufferConfig(), ["cloud"], boot=boot_id())
    encoder = CONNECTOR.encoder(MqttConnection(connector="mqtt", url="mqtt://b"), context_of())
    await buffer.start()
    forwarder = Forwarder("cloud", encoder, BadLink(error, Pacing(retry_max=100.0)), buffer)
    assert (forwarder.state().state, forwarder.state().last_error) == (State.CLOSED, "")
    running = asyncio.create_task(forwarder.run())
    await until(lambda: forwarder.state().next_try)
    seen = forwarder.state()
    assert (seen.state, seen.last_error, seen.connected) == (state, str(error), False)
    assert seen.next_try > seen.since
    running.cancel()
    await asyncio.wait([running])
    await buffer.stop()


def test_an_open_session_remembers_the_last_error_and_waits_for_nothing() -> None:
    story = Story("cloud", lambda: 0, 30.0)
    story.opening()
    story.off(TransientError("nothing listens", reason="refused"))
    story.wait(20)
    assert story.next_try
    story.opening()
    assert (story.state, story.next_try) == (State.OPENING, 0)
    story.on("MQTT 5")
    assert (story.state, story.last_error) == (State.OPENED, "nothing listens")
    story.off(TransientError("no answer any more", reason="timeout"))
    assert story.state is State.CLOSED, "it was there"


@pytest.mark.parametrize(
    ("preset", "outage", "pause"),
    [
        ("calm", 0, 600), ("calm", 11.9 * 3600, 600), ("calm", 12.1 * 3600, 3600), ("calm", 1e9, 3600),
        ("normal", 0, 300), ("normal", 3700, 3600), ("normal", 26 * 3600, 86_400), ("normal", 1e9, 86_400),
        ("aggressive", 0, 180), ("aggressive", 4 * 3600, 1800), ("aggressive", 1e9, 3600),
    ],
)  # fmt: skip
def test_the_presets_never_give_up(preset: str, outage: float, pause: float) -> None:
    assert Pacing(retry_steps=RECONNECT[preset]).step(outage) == pause


async def test_a_preset_tries_once_soon_and_then_rarely(tmp_path: Path) -> None:
    buffer = Buffer(tmp_path / "buffer.db", BufferConfig(), ["cloud"], boot=boot_id())
    encoder = CONNECTOR.encoder(MqttConnection(connector="mqtt", url="mqtt://b"), context_of())
    await buffer.start()
    link = BadLink(TransientError("no answer"), Pacing(retry_max=0.1, retry_steps=RECONNECT["normal"]))
    forwarder = Forwarder("cloud", encoder, link, buffer)
    running = asyncio.create_task(forwarder.run())
    await until(lambda: forwarder.state().attempts == 2 and forwarder.state().next_try)
    await asyncio.sleep(0.3)
    assert forwarder.state().attempts == 2
    running.cancel()
    await asyncio.wait([running])
    await buffer.stop()
