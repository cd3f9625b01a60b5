"""What Sparkplug messages say, held against Google's protobuf and the rules of the specification."""

from __future__ import annotations

import math
import struct
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edged.buffer.batch import Batch
from edged.config.base import DeviceConfig, PointConfig
from edged.config.types import Name
from edged.downlink.api import Incoming, Refused, TwinPoint, TwinValue
from edged.downlink.rules import LONGEST_ID
from edged.errors import PermanentError
from edged.model import Quality, Reason, Sample, Value, bad
from edged.uplink.api import Chunk, Envelope, Lane
from edged.uplink.connectors.sparkplug import SparkplugConnection
from edged.uplink.dialects import sparkplug_payload as payload
from edged.uplink.dialects.protobuf import fields
from edged.uplink.dialects.sparkplug import Node, SparkplugMessage, provenance
from edged.uplink.dialects.sparkplug_commands import SparkplugCommands
from edged.uplink.dialects.sparkplug_payload import DataType
from edged_modbus.point import ModbusPoint
from tests.support.sparkplug import parsed, payload_class, properties_of, value_of

MS = 1_700_000_000_123
US = MS * 1000
LIVE = Envelope("e1", 12, 9, Lane.LIVE)
PAST = replace(LIVE, lane=Lane.HISTORICAL)


def node(**points: PointConfig) -> Node:
    devices: dict[str, DeviceConfig] = {
        "m1": DeviceConfig(bus=Name("b"), points={Name(name): one for name, one in points.items()})
    }
    made = Node("fabrikam", "plant-7", lambda: devices)
    made.refresh()
    return made


def sample(*values: Value, quality: dict[int, Quality] | None = None, time: int = US, device: str = "m1") -> Sample:
    return Sample(device, time, 0, tuple(f"p{i}" for i in range(len(values))), values, quality or {})


def chunk(*samples: Sample) -> Chunk:
    return Chunk(12 - len(samples) + 1, samples, sum(len(one.points) for one in samples))


def data(of: Node, *samples: Sample, envelope: Envelope = LIVE) -> list[Any]:
    """The metrics of the DDATA, as protobuf reads them."""
    return list(parsed(of.encode(chunk(*samples), envelope).payload).metrics)


# -- types -----------------------------------------------------------------------------------------------------------


@given(st.one_of(st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()))
def test_every_value_arrives_as_it_was(value: Value) -> None:
    for start in (DataType.BOOLEAN, DataType.INT64, DataType.DOUBLE, DataType.STRING):
        kind = payload.suits(start, value)
        assert payload.suits(kind, value) is kind
        content = payload.metric(payload.type_field(kind) + payload.value_field(kind, value))
        got = value_of(payload_class().FromString(content).metrics[0])
        if kind is DataType.STRING and not isinstance(value, str):
            assert got == repr(value)
        elif isinstance(value, str) and not value.isprintable():
            assert got == value.encode("utf-8", "replace").decode()
        else:
            assert got == value


@given(
    st.lists(st.one_of(st.booleans(), st.integers(-(2**70), 2**70), st.floats(allow_nan=False), st.text(max_size=3)))
)
def test_a_type_once_widened_never_narrows(values: list[Value]) -> None:
    order = [DataType.BOOLEAN, DataType.INT64, DataType.UINT64, DataType.DOUBLE, DataType.STRING]
    kind = DataType.BOOLEAN
    for value in values:
        wider = payload.suits(kind, value)
        assert order.index(wider) >= order.index(kind)
        kind = wider


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (PointConfig(), DataType.DOUBLE),
        ("float32", DataType.DOUBLE),
        ("uint16", DataType.INT64),
        ("uint64", DataType.UINT64),
        ("bool", DataType.BOOLEAN),
        ("string", DataType.STRING),
        (("int16", 0.1), DataType.DOUBLE),
    ],
)
def test_the_configuration_hints_at_the_type(config: Any, kind: DataType) -> None:
    word, scale = config if isinstance(config, tuple) else (config, 1.0)
    point = PointConfig(scale=scale) if isinstance(word, str) else config
    if isinstance(word, str):
        object.__setattr__(point, "type", word)  # adapters' own classes have it
    assert births(node(p0=point))[0].datatype == kind


def births(of: Node, known: dict[str, TwinPoint] | None = None) -> list[Any]:
    return list(parsed(of.device_birth("m1", known or {}, US).payload).metrics)


# -- births ----------------------------------------------------------------------------------------------------------


def test_a_node_is_born_with_bdseq_and_the_way_to_a_rebirth() -> None:
    one = node()
    message = one.node_birth(3, {"read": 7}, US)
    assert message.topic == "spBv1.0/fabrikam/NBIRTH/plant-7"
    assert not message.retain
    got = parsed(payload.stamped(message.payload, US, 0))
    assert (got.timestamp, got.seq, got.HasField("seq")) == (MS, 0, True)
    names = {metric.name: (metric.datatype, value_of(metric), metric.timestamp) for metric in got.metrics}
    assert names["bdSeq"] == (4, 3, MS)
    assert names["Node Control/Rebirth"] == (11, False, MS)
    assert names["Readings/read"] == (4, 7, MS)


def test_a_node_dies_with_the_bdseq_of_its_birth_and_no_seq() -> None:
    message = node().node_death(255)
    got = parsed(payload.stamped(message.payload, US, None))
    assert message.topic == "spBv1.0/fabrikam/NDEATH/plant-7"
    assert [(metric.name, value_of(metric)) for metric in got.metrics] == [("bdSeq", 255)]
    assert not got.HasField("seq")


def test_a_device_is_born_with_all_that_is_known_of_its_metrics() -> None:
    one = node(
        supply=PointConfig(unit="°C", range=(-40, 120), description="to the plant", writable=True),
        counter=PointConfig(),
    )
    supply, counter = births(one, {"supply": TwinPoint(TwinValue(21.5, US - 5_000_000))})
    assert (supply.name, supply.alias, supply.datatype) == ("supply", 1, DataType.DOUBLE)
    assert (value_of(supply), supply.timestamp) == (21.5, MS - 5000)
    assert properties_of(supply) == {
        "Quality": 192, "readOnly": False, "engUnit": "°C", "engLow": -40, "engHigh": 120,
        "documentation": "to the plant",
    }  # fmt: skip
    assert (counter.name, counter.alias, counter.is_null, counter.timestamp) == ("counter", 2, True, MS)
    assert properties_of(counter) == {"Quality": 500, "edged quality": "unread", "readOnly": True}


def test_a_value_that_is_bad_now_is_born_as_null() -> None:
    (metric,) = births(node(p0=PointConfig()), {"p0": TwinPoint(TwinValue(5.0, US, bad(Reason.TIMEOUT)))})
    assert metric.is_null
    assert properties_of(metric)["Quality"] == 0
    assert properties_of(metric)["edged quality"] == "bad(timeout)"


def test_a_command_for_a_metric_that_is_gone_never_writes_the_one_that_came_instead() -> None:
    points = {Name("old"): PointConfig()}
    made = Node("fabrikam", "plant-7", lambda: {"m1": DeviceConfig(bus=Name("b"), points=dict(points))})
    made.refresh()
    points.clear()
    made.refresh()
    points[Name("new")] = PointConfig()
    made.refresh()
    with pytest.raises(Refused):
        SparkplugCommands(made, 30.0, "scada").decode(dcmd(alias=1, double_value=21.5))
    (command,) = SparkplugCommands(made, 30.0, "scada").decode(dcmd(alias=2, double_value=21.5))
    assert command.address == "m1/new"


def test_aliases_differ_within_the_node_and_stay() -> None:
    devices: dict[str, DeviceConfig] = {
        f"d{i}": DeviceConfig(bus=Name("b"), points={Name("x"): PointConfig()}) for i in range(3)
    }
    one = Node("g", "n", lambda: devices)

    def aliases() -> dict[str, int]:
        one.refresh()
        return {name: parsed(one.device_birth(name, {}, US).payload).metrics[0].alias for name in devices}

    before = aliases()
    assert sorted(before.values()) == [1, 2, 3]
    del devices["d0"]
    devices["d9"] = DeviceConfig(bus=Name("b"), points={Name("x"): PointConfig()})
    after = aliases()
    assert (after["d1"], after["d2"]) == (before["d1"], before["d2"])
    assert len(set(after.values())) == 3


# -- data ------------------------------------------------------------------------------------------------------------


def test_data_have_aliases_times_and_where_they_belong() -> None:
    one = node(p0=PointConfig(), p1=PointConfig())
    message = one.encode(chunk(sample(1.5, 2.5), sample(1.75, 2.75, time=US + 1000)), LIVE)
    assert message.topic == "spBv1.0/fabrikam/DDATA/plant-7/m1"
    got = parsed(payload.stamped(message.payload, US + 9000, 255))
    assert (got.timestamp, got.seq) == (MS + 9, 255)
    assert [(m.alias, m.timestamp, value_of(m), m.HasField("name"), m.is_historical) for m in got.metrics] == [
        (1, MS, 1.5, False, False), (2, MS, 2.5, False, False), (1, MS + 1, 1.75, False, False),
        (2, MS + 1, 2.75, False, False),
    ]  # fmt: skip
    assert provenance(got.body.decode(), "plant-7") == {
        "gateway": "plant-7", "epoch": "e1", "lane": "live", "first": 11, "seq": 12, "prev": 9, "readings": 4,
        "replay": False,
    }  # fmt: skip


def test_a_value_that_is_not_good_is_null_and_says_why_and_the_next_good_one_says_that_it_is() -> None:
    one = node(p0=PointConfig())
    timeout, stale, fine, again = data(
        one, sample(None, quality={0: bad(Reason.TIMEOUT)}), sample(3.0, quality={0: Quality("uncertain", "clock")}),
        sample(4.0), sample(5.0),
    )  # fmt: skip
    assert (value_of(timeout), properties_of(timeout)) == (None, {"Quality": 0, "edged quality": "bad(timeout)"})
    assert (value_of(stale), properties_of(stale)) == (3.0, {"Quality": 500, "edged quality": "uncertain(clock)"})
    assert (value_of(fine), properties_of(fine)) == (4.0, {"Quality": 192})
    assert (value_of(again), properties_of(again)) == (5.0, {})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None])
def test_what_is_no_number_is_never_sent_as_one(value: Value) -> None:
    (metric,) = data(node(p0=PointConfig()), sample(value))
    assert metric.is_null
    assert properties_of(metric)["Quality"] == 0


def test_a_bad_value_is_never_shown_even_if_there_is_one() -> None:
    (metric,) = data(node(p0=PointConfig()), sample(7.0, quality={0: bad(Reason.RANGE)}))
    assert metric.is_null
    assert not metric.HasField("double_value")


def test_the_backlog_is_historical_and_leaves_the_present_quality_alone() -> None:
    one = node(p0=PointConfig())
    (past,) = data(one, sample(None, quality={0: bad(Reason.TIMEOUT)}), envelope=PAST)
    assert past.is_historical
    (now,) = data(one, sample(2.0))
    assert (now.is_historical, properties_of(now)) == (False, {})
    replayed = one.encode(replace(chunk(sample(1.0)), replay=True), LIVE)
    assert parsed(replayed.payload).metrics[0].is_historical


def test_what_is_not_newer_than_the_birth_is_historical() -> None:
    one = node(p0=PointConfig(), p1=PointConfig())
    births(one, {"p0": TwinPoint(TwinValue(9.0, US))})
    old, other = data(one, sample(8.0, 1.0, time=US - 1))
    assert (old.is_historical, other.is_historical) == (True, False), "p1 was born without a value"
    assert not data(one, sample(10.0, 1.0, time=US + 1))[0].is_historical


def test_a_value_of_another_type_asks_for_a_birth() -> None:
    one = node(p0=PointConfig())
    births(one)
    assert data(one, sample(1.0))[0].datatype == DataType.DOUBLE
    assert one.due == set()
    assert data(one, sample("open"))[0].datatype == DataType.STRING
    assert one.due == {"m1"}
    assert births(one)[0].datatype == DataType.STRING
    assert one.due == set()


def test_readings_of_what_is_configured_no_more_get_a_birth_of_their_own() -> None:
    one = node(p0=PointConfig())
    births(one)
    message = one.encode(chunk(sample(1.0, device="gone")), PAST)
    assert message.device == "gone"
    assert one.due == {"gone"}
    born = parsed(one.device_birth("gone", {}, US).payload).metrics
    assert [(metric.name, metric.alias) for metric in born] == [("p0", 2)]
    assert one.refresh() == (["m1"], ["gone"])


def test_a_device_that_does_not_answer_is_down() -> None:
    one = node(p0=PointConfig(), p1=PointConfig())

    def down(quality: dict[int, Quality], envelope: Envelope = LIVE) -> bool:
        return one.encode(chunk(sample(None, None, quality=quality)), envelope).down

    assert down({0: bad(Reason.TIMEOUT), 1: bad(Reason.UNREACHABLE)})
    assert not down({0: bad(Reason.TIMEOUT), 1: bad(Reason.TIMEOUT)}, PAST)
    assert not down({0: bad(Reason.TIMEOUT), 1: bad(Reason.EXCEPTION)})
    assert not down({0: bad(Reason.TIMEOUT)})


def test_of_samples_that_thinning_has_emptied_only_the_number_is_left() -> None:
    message = node().encode(chunk(Sample("m1", US, 0, (), ())), LIVE)
    assert isinstance(message, SparkplugMessage)
    assert message.topic == "spBv1.0/fabrikam/NDATA/plant-7"
    assert list(parsed(message.payload).metrics) == []


def test_readings_of_several_devices_are_never_one_message() -> None:
    with pytest.raises(PermanentError, match="one device"):
        node(p0=PointConfig()).encode(chunk(sample(1.0), sample(2.0, device="m2")), LIVE)


# -- cutting ---------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 4))), st.integers(1, 6))
def test_chunks_cover_the_batch_in_order_and_have_one_device_each(shape: list[tuple[str, int]], limit: int) -> None:
    samples = tuple(sample(*range(size), device=device) for device, size in shape)
    one = replace(node(), max_readings=limit)
    chunks = list(one.split(Batch(7, samples, "boot", sum(size for _, size in shape))))
    assert [s for piece in chunks for s in piece.samples] == list(samples)
    assert [piece.first for piece in chunks] == [
        7 + sum(len(before.samples) for before in chunks[:i]) for i in range(len(chunks))
    ]
    for piece in chunks:
        filled = [s for s in piece.samples if s.points]
        assert len({s.device for s in filled}) <= 1
        assert piece.readings == sum(len(s.points) for s in filled)
        assert piece.readings <= limit or len(filled) == 1


# -- what comes ------------------------------------------------------------------------------------------------------


@given(st.sampled_from([1, 2, 3, 4]), st.integers(-128, 127))
def test_a_command_is_read_as_its_sender_meant_it(kind: int, value: int) -> None:
    given_payload = payload_class()(timestamp=MS)
    metric = given_payload.metrics.add(name="x", datatype=kind)
    if kind == 4:
        metric.long_value = value & 2**64 - 1
    else:
        metric.int_value = value & 2**32 - 1
    got = payload.parse(given_payload.SerializeToString())
    assert (got.time, got.metrics[0].name, got.metrics[0].value) == (MS, "x", value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("float_value", 1.5),
        ("double_value", 0.1),
        ("boolean_value", True),
        ("string_value", "ö"),
        ("long_value", 2**63),
    ],
)
def test_every_kind_of_value_can_be_read(field: str, value: Any) -> None:
    given_payload = payload_class()()
    setattr(given_payload.metrics.add(alias=300), field, value)
    (metric,) = payload.parse(given_payload.SerializeToString()).metrics
    assert (metric.alias, metric.value) == (300, value)


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
@example(struct.unpack("<f", b"\xff\xff\x7f\x7f")[0])
def test_a_float_of_32_bits_is_the_shortest_number_that_is_one(value: float) -> None:
    given_payload = payload_class()()
    given_payload.metrics.add(name="x", float_value=value)
    (metric,) = payload.parse(given_payload.SerializeToString()).metrics
    assert isinstance(metric.value, float)
    assert struct.pack("<f", metric.value) == struct.pack("<f", value)
    assert len(repr(metric.value)) <= len(repr(value))


@pytest.mark.parametrize("value", [21.7, 0.1, -1e-3, 1e30, 0.0, math.inf])
def test_a_float_of_32_bits_is_read_as_it_was_written(value: float) -> None:
    given_payload = payload_class()()
    given_payload.metrics.add(name="x", float_value=value)
    assert payload.parse(given_payload.SerializeToString()).metrics[0].value == value


@given(st.binary(max_size=60))
def test_whatever_comes_is_a_payload_or_a_value_error(content: bytes) -> None:
    try:
        payload.parse(content)
    except ValueError:
        return
    list(fields(content))


def test_a_torn_payload_is_told() -> None:
    whole = node().node_birth(0, {}, US).payload
    for cut in range(1, 20):
        with pytest.raises(ValueError, match=r"torn|more than"):
            payload.parse(whole[:cut])


# -- configuration ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [({"group": "a/b"}, "part of topics"), ({"node": "+"}, "part of topics"), ({"max_readings": 0}, "between 1 and")],
)
def test_what_cannot_work_is_refused_with_advice(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        SparkplugConnection(connector="sparkplug", url="mqtt://b", **settings)


# -- commands --------------------------------------------------------------------------------------------------------


def dcmd(topic: str = "spBv1.0/fabrikam/DCMD/plant-7/m1", *, time: int | None = MS, **metric: Any) -> Incoming:
    content = payload_class()()
    if time is not None:
        content.timestamp = time
    content.metrics.add(datatype=DataType.DOUBLE, **metric)
    return Incoming(topic=topic, payload=content.SerializeToString())


@pytest.mark.parametrize("named", [{"name": "p0"}, {"alias": 1}])
def test_a_host_writes_a_metric_by_name_or_alias(named: dict[str, Any]) -> None:
    dialect = SparkplugCommands(node(p0=PointConfig()), 30.0, "scada")
    assert dialect.topics() == [("spBv1.0/fabrikam/DCMD/plant-7/+", 1)]
    (command,) = dialect.decode(dcmd(double_value=21.5, **named))
    assert (command.address, command.value, command.valid_for, command.expires) == ("m1/p0", 21.5, 30.0, None)
    assert dialect.decode(dcmd(double_value=21.5, **named))[0].id == command.id, "the broker may repeat it"
    assert dialect.decode(dcmd(double_value=21.5, time=MS + 1, **named))[0].id != command.id


@pytest.mark.parametrize(
    ("point", "given_value", "wanted"),
    [
        (ModbusPoint(holding=1, type="int16"), {"int_value": 2**32 - 5}, -5),
        (ModbusPoint(holding=1, type="int32"), {"long_value": 2**64 - 5}, -5),
        (ModbusPoint(holding=1, type="uint32"), {"long_value": 2**32 - 5}, 2**32 - 5),
        (ModbusPoint(holding=1, type="uint64"), {"long_value": 2**64 - 5}, 2**64 - 5),
        (ModbusPoint(holding=1, type="int16"), {"int_value": 7}, 7),
    ],
)
def test_a_host_need_not_repeat_the_type_of_a_metric(point: Any, given_value: Any, wanted: int) -> None:
    content = payload_class()(timestamp=MS)
    content.metrics.add(name="p0", **given_value)
    message = replace(dcmd(name="p0"), payload=content.SerializeToString())
    (command,) = SparkplugCommands(node(p0=point), 30.0, "scada").decode(message)
    assert command.value == wanted


def test_a_long_text_can_be_written_and_is_recognised_when_it_comes_again() -> None:
    dialect = SparkplugCommands(node(p0=PointConfig()), 30.0, "scada")
    ids = [
        dialect.decode(dcmd(name="p0", string_value=text))[0].id for text in ("x" * 4000, "x" * 4000, "x" * 3999 + "y")
    ]
    assert all(len(one) <= LONGEST_ID for one in ids)
    assert ids[0] == ids[1] != ids[2]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (dcmd("spBv1.0/fabrikam/DCMD/plant-7/m9", name="p0", double_value=1.0), "unknown-point"),
        (dcmd(name="p9", double_value=1.0), "unknown-point"),
        (dcmd(alias=2, double_value=1.0), "unknown-point"),
        (dcmd(name="p0"), "malformed"),
        (dcmd(name="p0", double_value=1.0, time=None), "malformed"),
        (replace(dcmd(name="p0", double_value=1.0), retained=True), "retained"),
        (replace(dcmd(), payload=b"\x12\x7f"), "malformed"),
    ],
)
def test_what_is_no_command_is_refused(message: Incoming, reason: str) -> None:
    with pytest.raises(Refused) as caught:
        SparkplugCommands(node(p0=PointConfig()), 30.0, "").decode(message)
    assert caught.value.reason == reason
