from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.buffer.codec import decode_batch, encode_batch
from edged.errors import PermanentError
from edged.model import ALL_GOOD, Quality, Sample, Value, bad

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False),
    texts,
)
names = st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8), max_size=5).map(tuple)
qualities = st.one_of(
    texts.map(bad),
    texts.map(lambda reason: Quality("uncertain", reason)),
    st.sampled_from([bad("timeout"), bad("range"), Quality("good")]),
)


@st.composite
def samples(draw: st.DrawFn) -> list[Sample]:
    shapes = draw(st.lists(names, min_size=1, max_size=3))
    result = []
    for _ in range(draw(st.integers(1, 6))):
        points = draw(st.sampled_from(shapes))
        row: list[Value] = [draw(values) for _ in points]
        indices = st.sampled_from(range(len(points))) if points else st.nothing()
        some = draw(st.dictionaries(indices, qualities))
        every = dict.fromkeys(range(len(points)), draw(qualities))
        quality = draw(st.sampled_from([ALL_GOOD, some, every]))
        time = draw(st.integers(0, 2**53))
        result.append(Sample(draw(texts), time, draw(st.integers(0, 2**53)), points, row, quality))
    return result


def identity(value: Value) -> tuple[str, object]:
    """Equal only for what is the same to the bit: True is not 1, 1 is not 1.0, 0.0 is not -0.0."""
    return type(value).__name__, value.hex() if isinstance(value, float) else value


def plain(one: Sample) -> tuple[object, ...]:
    return one.device, one.time, one.mono, one.points, [identity(v) for v in one.values], dict(one.quality)


@given(samples())
def test_what_is_encoded_comes_back_the_same(batch: list[Sample]) -> None:
    readings = sum(len(one.values) for one in batch)
    decoded = decode_batch(encode_batch(batch), 7, "boot", readings)
    assert [plain(one) for one in decoded.samples] == [plain(one) for one in batch]
    assert (decoded.first, decoded.last, decoded.boot) == (7, 6 + len(batch), "boot")
    assert decoded.readings == readings


@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_an_infinite_value_survives_beside_a_missing_one(value: float) -> None:
    batch = [Sample("m", 1, 1, ("a", "b", "c"), [value, None, 1.5], {1: bad("timeout")})]
    assert list(decode_batch(encode_batch(batch), 1, "boot", 3).samples[0].values) == [value, None, 1.5]


def test_not_a_number_comes_back_as_such() -> None:
    decoded = decode_batch(encode_batch([Sample("m", 1, 1, ("a",), [math.nan])]), 1, "boot", 1)
    assert str(decoded.samples[0].values[0]) == "nan"


def test_the_same_shape_is_one_object_in_all_batches() -> None:
    blob = encode_batch([Sample("m", 1, 1, ("a", "b"), [1, 2]), Sample("n", 2, 2, tuple("ab"), [3, 4])])
    first, second = (decode_batch(blob, seq, "boot", 4).samples for seq in (1, 3))
    assert first[0].points is first[1].points is second[0].points


def test_equal_qualities_share_one_object() -> None:
    blob = encode_batch([Sample("m", 1, 1, ("a", "b"), [None, None], {0: bad("timeout"), 1: bad("timeout")})])
    quality = decode_batch(blob, 1, "boot", 2).samples[0].quality
    assert quality[0] is quality[1] is bad("timeout")


@pytest.mark.parametrize(
    "one",
    [
        Sample("m", 1, 1, ("a",), [2**64]),
        Sample("m", 1, 1, ("a",), [b"bytes"]),  # type: ignore[list-item]  # what an adapter must not do, but may
        Sample("m", 1, 1, ("a",), ["\ud800"]),
        Sample("m", 1, 1, ("a", "b"), [1]),
        Sample("m", 1, 1, ("a\x1fb",), [1]),
        Sample("m", 1.5, 1, ("a",), [1]),  # type: ignore[arg-type]  # likewise
        Sample("m", 1, 2**63, ("a",), [1]),
        Sample("m", 1, 1, ("a",), [datetime.now(UTC)]),  # type: ignore[list-item]  # likewise
    ],
    ids=[
        "beyond 64 bits",
        "bytes",
        "half a surrogate pair",
        "a value is missing",
        "control character in a name",
        "fraction of a microsecond",
        "time",
        "a date",
    ],
)
def test_what_cannot_be_stored_is_refused(one: Sample) -> None:
    with pytest.raises(PermanentError) as refused:
        encode_batch([Sample("m", 1, 1, ("a",), [1]), one])
    assert refused.value.reason == "unencodable"


@given(samples(), st.data())
def test_a_damaged_blob_is_refused_or_decoded_but_never_crashes(batch: list[Sample], data: st.DataObject) -> None:
    blob = bytearray(encode_batch(batch))
    blob[data.draw(st.integers(0, len(blob) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        decode_batch(bytes(blob[: data.draw(st.integers(0, len(blob)))]), 1, "boot", 1)
    except ValueError:
        return
