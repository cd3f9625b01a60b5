"""The promises that every connector keeps, whatever it speaks. A new one is added to `tests/support/receivers.py`.

What its messages look like is in `tests/cases/connectors`; `EDGED_UPDATE_CASES=1` writes them anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.buffer.batch import Batch
from edged.errors import PermanentError
from edged.model import Quality, Sample, Value, bad
from edged.uplink.api import (
    Chunk,
    Encoder,
    Lane,
    Message,
)
from edged.uplink.connectors import connector_names, load_connector
from edged.uplink.lanes import halves
from tests.contract.rig import (
    CASES,
    ENCODERS,
    ROOT,
    SENDING,
    SERVERS,
    batch_of,
    check_line,
    encoder_of,
    envelope,
    good_batch,
)
from tests.support.receivers import OFFLINE_SETTINGS

pytestmark = pytest.mark.mosquitto


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
