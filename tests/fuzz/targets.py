"""What takes bytes from outside, and what it may do with them: a result of the right type, or one of our errors."""

from __future__ import annotations

import json
import math
import random
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import orjson
from click.testing import CliRunner

from edged.adapter import load_adapter
from edged.backup.check import verify
from edged.buffer.codec import decode_batch, encode_batch
from edged.cli import main
from edged.config.history import History
from edged.config.library import document, families
from edged.config.load import load
from edged.downlink.api import Incoming, Refused
from edged.errors import ConfigError, EdgedError
from edged.flows.expression import EvaluationError, Expression, UnknownError
from edged.model import GOOD, Quality, Sample, bad
from edged.testing.receiver import decode as receive
from edged.uplink.dialects import sparkplug_payload
from edged.uplink.json_commands import parse_command
from edged_ble.codecs import bthome
from edged_ble.codecs.advert import Advertisement
from edged_ble.decoders import identify
from edged_ble.recording import recorded
from edged_modbus import pdu
from edged_modbus.ascii import AsciiReplyParser, ascii_frame
from edged_modbus.codec import compile_decoder
from edged_modbus.frame import RtuReplyParser, rtu_frame
from edged_modbus.planner import Costs, Limits, Table, plan
from edged_modbus.sunspec import definition, folder
from edged_modbus.sunspec_model import decode as decode_sunspec
from edged_modbus.sunspec_model import fields
from edged_serial.codecs import mbus, sml

ROOT = Path(__file__).parents[2]
_BARE = (bool, int, float, str)


@dataclass(frozen=True, slots=True)
class Target:
    """One way in."""

    name: str
    seeds: Sequence[bytes]
    run: Callable[[bytes], object]
    allowed: tuple[type[Exception], ...] = ()
    """What it declares to raise."""
    seconds: float = 1.0
    """What one input may take, on a busy machine too."""
    slow: bool = False
    """Some hundred a second at most: a few inputs are enough for a short run."""


# -- what comes out ----------------------------------------------------------------------------------------------------


def check_samples(samples: Sequence[Sample], *, finite: bool = True) -> None:
    """Values are plain, and finite where they come from the field."""
    for sample in samples:
        assert len(sample.values) == len(sample.points)
        for index, value in enumerate(sample.values):
            quality = sample.quality.get(index, GOOD)
            assert isinstance(quality, Quality)
            assert value is None or type(value) in _BARE, (sample.points[index], value)
            assert not (finite and isinstance(value, float)) or math.isfinite(value), (sample.points[index], value)


# -- fields ------------------------------------------------------------------------------------------------------------

REQUESTS: tuple[pdu.Request[Any], ...] = (
    pdu.read_registers(Table.HOLDING, 100, 3), pdu.read_registers(Table.INPUT, 0, 125),
    pdu.read_bits(Table.COIL, 0, 9), pdu.write_coil(3, True), pdu.write_register(3, 7),  # the value
    pdu.write_coils(3, (True, False, True)), pdu.write_registers(3, (1, 2)), pdu.mask_write(4, 1, 2),
    pdu.read_exception_status(), pdu.loopback(0x1234), pdu.read_write(0, 2, 5, (1,)), pdu.read_identification(),
)  # fmt: skip
REPLIES = (
    bytes.fromhex("03 06 00 01 00 02 00 03"), bytes((4, 250)) + bytes(250), bytes.fromhex("01 02 ff 01"),
    bytes.fromhex("05 00 03 ff 00"), bytes.fromhex("06 00 03 00 07"), bytes.fromhex("0f 00 03 00 03"),
    bytes.fromhex("10 00 03 00 02"), bytes.fromhex("16 00 04 00 01 00 02"), bytes.fromhex("07 5a"),
    bytes.fromhex("08 00 00 12 34"), bytes.fromhex("17 04 00 01 00 02"), bytes.fromhex("83 02"),
    bytes.fromhex("2b 0e 01 01 00 00 02 00 03 61 62 63 01 02 64 65"),
)  # fmt: skip


def _pdu(data: bytes) -> None:
    for request in REQUESTS:
        try:
            request.parse(data)
        except EdgedError:
            continue


def _frames(data: bytes) -> None:
    for request in REQUESTS:
        for parser in (RtuReplyParser(17, request), AsciiReplyParser(17, request)):
            whole = (data, rtu_frame(17, data[:253]), ascii_frame(17, data[:253]))[len(data) % 3]
            for at in range(0, len(whole), 7):
                reply = parser.feed(whole[at : at + 7])
                if reply is not None:
                    assert request.size_of(reply) == len(reply), "a frame of another size is no reply"
                    break
            assert parser.complaint()
            assert len(parser.rest) <= 4096, "what is kept is bounded"


@cache
def _devices(family: str) -> Mapping[str, Any]:
    """All shipped profiles of an adapter as devices of one configuration."""
    adapter = {"modbus": "modbus-tcp", "serial": "serial", "ble": "ble"}[family]
    (found,) = (one for one in families() if one.name == family)
    buses: dict[str, Any] = {"radio": {"adapter": "ble"}}
    devices: dict[str, Any] = {}
    for number, file in enumerate(sorted(found.folder.glob("*.yaml"))):
        needs = found.adapter.profile_needs(_plain(file)) if hasattr(found.adapter, "profile_needs") else {}
        place = {"serial": {"port": f"/dev/ttyS{number}"}, "modbus": {"host": f"192.0.2.{number % 250 + 1}"}}
        bus = "radio" if family == "ble" else f"b{number}"
        if family != "ble":
            buses[bus] = {"adapter": adapter, **place[family]}
        own = {"unit": 1} if family == "modbus" else {}
        address = {"address": f"C0:00:00:00:{number // 256:02X}:{number % 256:02X}"} if "address" in needs else {}
        devices[f"d{number}"] = {"bus": bus, "profile": file.stem, "every": "10s", **own, **needs, **address}
        if family == "serial" and "address" in needs:
            devices[f"d{number}"]["address"] = 1
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "edged.yaml"
        path.write_text(json.dumps({"gateway": {"id": "g"}, "buses": buses, "devices": devices}))
        loaded = load(path)
    assert loaded.config is not None, [problem.render() for problem in loaded.problems][:3]
    return {str(one.profile): one for one in loaded.config.devices.values()}


def _plain(file: Path) -> dict[str, Any]:
    from edged.config.nodes import plain  # noqa: PLC0415  # beside its use

    tree, _ = document(file)
    assert tree is not None
    return dict(plain(tree))


@cache
def _vectors(family: str) -> Sequence[tuple[str, Mapping[str, Any], bytes]]:
    """(Profile, vector, its bytes) of all that are shipped."""
    found: list[tuple[str, Mapping[str, Any], bytes]] = []
    (one,) = (one for one in families() if one.name == family)
    for file in sorted(one.folder.glob("*.yaml")):
        for vector in _plain(file).get("tests") or ():
            text = str(vector.get("text", ""))
            data = bytes.fromhex(str(vector["hex"])) if "hex" in vector else text.encode("latin-1")
            found.append((file.stem, {key: vector[key] for key in vector if key not in ("text", "hex")}, data))
    return found


def _by_profile(family: str) -> Target:
    """Its codecs, behind the profiles: the first two bytes choose a vector, the rest is in the place of its bytes."""
    adapter: Any = load_adapter({"serial": "serial", "ble": "ble"}[family])
    vectors = _vectors(family)

    def run(data: bytes) -> None:
        profile, vector, _ = vectors[int.from_bytes(data[:2], "big") % len(vectors)]
        device, found = _devices(family)[profile], {**vector, "hex": data[2:].hex()}
        check_samples(adapter.decoded(device, found))
        if family == "serial":  # past the framing and its checksum, which would stop nearly all of it
            check_samples(adapter.decoded(device, {**found, "whole": True}))

    seeds = [index.to_bytes(2, "big") + data for index, (_, _, data) in enumerate(vectors)]
    return Target(f"{family} profiles", seeds, run, (ConfigError,))


def _registers(data: bytes) -> None:
    """Registers of any content, as each Modbus profile decodes them."""
    devices = list(_devices("modbus").values())
    device = devices[int.from_bytes(data[:2], "big") % len(devices)]
    if device.sunspec is not None:
        return
    source = random.Random(data)
    for block in plan(
        {name: point.span for name, point in device.points.items()}, Costs(1, 0.01, 0.001), Limits()
    ).blocks:
        decoder = compile_decoder(block, device.points)
        if block.table.is_bits:
            values, quality = decoder.decode_bits([source.random() < 0.5 for _ in range(block.count)])
        else:
            words = [source.choice((0, 0x7FFF, 0x8000, 0xFFFF, source.randrange(65536))) for _ in range(block.count)]
            values, quality = decoder.decode_registers(words)
        check_samples([Sample("d", 0, 0, decoder.points, list(values), dict(quality))])


@cache
def _models() -> Sequence[Mapping[str, Any]]:
    numbers = sorted(int(file.stem.removeprefix("model_")) for file in folder().glob("model_*.json"))
    return [found for number in numbers if (found := definition(number)) is not None]


def _sunspec(data: bytes) -> None:
    models = _models()
    model = models[int.from_bytes(data[:2], "big") % len(models)]
    words = [int.from_bytes(data[at : at + 2], "big") for at in range(2, len(data) - 1, 2)]
    try:
        found = fields(model, words)
    except ValueError:
        return
    for one in found:
        value, why = decode_sunspec(one, words)
        assert isinstance(why, str)
        check_samples([Sample("d", 0, 0, (one.name,), [value], {0: bad(why)} if why else {})])


def _advertisement(data: bytes) -> None:
    company, service = int.from_bytes(data[:2], "little"), data[2:4][::-1].hex()
    uuid = f"0000{service:0>4}-0000-1000-8000-00805f9b34fb"
    identify(Advertisement("C0:00:00:00:00:01", "P 1", -60, {company: data[4:]}, {uuid: data[4:]}), libraries=True)


def _bthome(data: bytes) -> None:
    found = bthome.parse(data)
    check_samples([Sample("d", 0, 0, tuple(found.values), list(found.values.values()), {})])


def _mbus(data: bytes) -> None:
    body = data[4:-2]
    whole = mbus.long_frame(body) if len(data) % 2 and 3 <= len(body) <= 255 else data
    if mbus.valid(whole):
        mbus.more_follows(whole)
        mbus.secondary_of(whole)
    mbus.split(data)


# -- files and messages ------------------------------------------------------------------------------------------------


def _batch(data: bytes) -> None:
    """`data`: what is inside of the compression, which would stop nearly all of it."""
    data = zlib.compress(data, 1)
    samples = decode_batch(data, 1, "boot", 3).samples
    # Each row has a checksum, and to look for a list or map among the values would cost a quarter of decoding them.
    forged = any(isinstance(value, list | dict) for sample in samples for value in sample.values)
    check_samples([] if forged else samples, finite=False)


def _command(data: bytes) -> None:
    command = parse_command(Incoming(topic="edged/g/commands", payload=data))
    assert isinstance(command.device, str)
    assert command.value is None or type(command.value) in _BARE


def _sparkplug(data: bytes) -> None:
    parsed = sparkplug_payload.parse(data)
    for metric in parsed.metrics:
        assert metric.value is None or type(metric.value) in _BARE


def _expression(data: bytes) -> None:
    expression = Expression(data.decode("utf-8", "replace"))
    value = expression.value({"a": 1.5, "b": "x", "value": 3, "temp": None}, lambda name: name)
    assert value is None or type(value) in _BARE


@cache
def _scratch() -> Path:
    return Path(tempfile.mkdtemp(prefix="edged-fuzz-"))


def _config(data: bytes) -> None:
    path = _scratch() / "edged.yaml"
    path.write_bytes(data)
    loaded = load(path, environ={}, find_secrets=True)
    assert loaded.config is not None or loaded.problems, "refused without a word"
    for problem in loaded.problems:
        assert problem.render()


def _profile(data: bytes) -> None:
    place = _scratch() / "profiles"
    place.mkdir(exist_ok=True)
    (place / "own.yaml").write_bytes(data)
    path = _scratch() / "with-profile.yaml"
    path.write_text(
        "gateway: {id: g}\nbuses: {plc: {adapter: modbus-tcp, host: 192.0.2.1}}\n"
        "devices: {d: {bus: plc, unit: 1, profile: own}}\n"
    )
    loaded = load(path, environ={})
    assert loaded.config is not None or loaded.problems


def _command_line(*words: str) -> Callable[[bytes], None]:
    """A command that reads a file, as a person would run it."""

    def run(data: bytes) -> None:
        path = _scratch() / "file"
        path.write_bytes(data)
        result = CliRunner().invoke(main, [*words, str(path)])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code in (0, 1, 2), result.output

    return run


def _history(data: bytes) -> None:
    place = _scratch() / "history"
    place.mkdir(exist_ok=True)
    (place / "1.json").write_bytes(data)
    (place / "000001.json").write_bytes(data)
    History(place).entries()


def _backup(data: bytes) -> None:
    path = _scratch() / "a.tar"
    path.write_bytes(data)
    verify(path)


def _texts(*patterns: str) -> list[bytes]:
    return [path.read_bytes() for pattern in patterns for path in sorted(ROOT.glob(pattern))]


TRACE = (
    b'{"bus": "line-a", "adapter": "modbus-rtu", "offset": 1795240000000000, "baudrate": 9600, "links": ["line-a"]}\n'
    b'{"time": 1000000, "link": 0, "direction": "sent", "data": "0c040000000271161"}\n'
    b'{"time": 1010000, "link": 0, "direction": "received", "data": "0c0404435c0000a1b2"}\n'
    b'{"time": 1020000, "link": 0, "direction": ">", "data": "0103"}\n{"missed": 3}\n{"ended": "over"}\n'
)


def _batches() -> list[bytes]:
    samples = [
        Sample("meter", 10**15 + n, n, ("a", "b", "c"), [n, x, "é"], {1: bad("timeout")} if n % 2 else {})
        for n, x in enumerate((1.5, math.inf, None, -0.0))
    ]
    return [zlib.decompress(encode_batch(some)) for some in (samples, samples[:1])]


def targets() -> Iterator[Target]:
    """All of them."""
    yield Target("modbus PDUs", REPLIES, _pdu)
    framed = [rtu_frame(17, reply) for reply in REPLIES] + [ascii_frame(17, reply) for reply in REPLIES]
    yield Target("modbus frames", framed, _frames, seconds=5)
    yield Target(
        "modbus registers", [n.to_bytes(2, "big") + b"x" for n in range(40)], _registers, seconds=20, slow=True
    )
    yield Target("sunspec models", [n.to_bytes(2, "big") + bytes(range(200)) for n in range(60)], _sunspec)
    yield _by_profile("serial")
    yield _by_profile("ble")
    adverts = [data for _, _, data in _vectors("ble")]
    yield Target("advertisements of strangers", [b"\x99\x04\xd2\xfc" + data for data in adverts], _advertisement)
    yield Target("bthome", adverts, _bthome, (ValueError,))
    yield Target("sml", [data for _, _, data in _vectors("serial")], sml.parse, (ValueError,))
    yield Target("m-bus", [data for _, _, data in _vectors("serial")], _mbus, (ValueError,))
    yield Target("batches of the buffer", _batches(), _batch, (ValueError,))
    commands = [
        b'{"point": "tank/valve", "value": true, "id": "1", "expires": 1795240000000000, "confirm": false}',
        b'{"point": "a/b", "raw": "0102", "valid_for": 3.5, "requester": "me"}',
    ]
    yield Target("commands by MQTT", commands, _command, (Refused,))
    metrics = b"\x08\x80\x01\x12\x10\n\x04temp\x18\x01 \n\x65\x00\x00\x80?\x12\x08\n\x01a \x0cz\x01b\x18\x03"
    yield Target("sparkplug payloads", [metrics], _sparkplug, (ValueError,))
    yield Target("messages at a receiver", [b'{"v":1,"gateway":"g"}', orjson.dumps({"v": 1, "seq": 2})], receive)
    texts = [
        b"a * 2 + (3 if b == 'x' else abs(-a))",
        b"round(a ** 2, 3) >= value and not temp",
        b"read('a') + label('b')",
    ]
    yield Target("expressions", texts, _expression, (ValueError, EvaluationError, UnknownError))
    lines = (ROOT / "config/demo-ble.jsonl").read_bytes().splitlines()[:40]
    yield Target("recordings", lines, lambda data: recorded(data.decode("utf-8", "replace")), (ValueError,))
    yield Target("traces", [TRACE], _command_line("trace", "--replay"), slow=True)
    shipped = _texts("config/*.yaml", "tests/cases/config/*/edged.yaml")
    yield Target("configurations", shipped, _config, seconds=20, slow=True)
    yield Target("profiles", _texts("adapters/edged_modbus/profiles/*.yaml")[:30], _profile, seconds=20, slow=True)
    yield Target("history", [b'{"number": 1, "time": "t", "result": "good", "main": "/a", "files": {}}'], _history)
    yield Target("backups", [b"", bytes(2048)], _backup, (ConfigError, EdgedError), slow=True)
