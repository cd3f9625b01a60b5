"""What an unknown device sends is recognised, and the profile that comes of it reads the device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.config.load import load
from edged.media import Chunk, LineErrors, LineSettings
from edged_serial import SERIAL
from edged_serial.codecs.checks import CRCS, Check
from edged_serial.codecs.nmea import sentence
from edged_serial.codecs.sml import file_of, transmission
from edged_serial.device import Device
from edged_serial.learn import Guess, Learned, analyse, learn

LINE = LineSettings(port="/dev/ttyS0")
CRC = Check("crc16-modbus", CRCS["crc16-modbus"], order="little")
SUM = Check("sum8", first=2)


def heard(data: bytes, cut: int = 13) -> list[Chunk]:
    return [Chunk(data[i : i + cut], i * 1000) for i in range(0, len(data), cut)]


def look(data: bytes) -> Guess:
    return analyse(LINE, heard(data), None)


STREAMS = {
    "lines": b"".join(b"T= %d.5 'C  RH= 4%d.1 %%\r\n" % (20 + i, i) for i in range(9)),
    "csv": b"".join(b"ID7,%d.25,-%d,ok\r\n" % (i, i * 3) for i in range(9)),
    "keys": b"".join(b"temp=%d.5;hum=%d\n" % (i, 40 + i) for i in range(9)),
    "json": b"".join(b'{"t": %d.5, "name": "x"}\n' % i for i in range(9)),
    "fixed": b"".join(
        SUM.encode(f[2:]).join([f, b""]) for f in [b"\xaa\x55" + bytes([i, 200 - i, 3, i * 7 & 255]) for i in range(12)]
    ),
    "crc": b"".join(
        f + CRC.encode(f) for f in [b"\x01\x99" + bytes([i * 31 & 255, 255 - i, 0, 17 * i & 255]) for i in range(12)]
    ),
    "stx": b"".join(f + b"%02X" % (sum(f) & 255) for f in [b"\x02W%d.5kg\x03" % (10 + i) for i in range(9)]),
    "sml": transmission(file_of([(bytes([1, 0, 1, 8, 0, 255]), 30, -1, 12345)])) * 3,
    "obis": b"/ESY5Q3D\r\n\r\n1-0:1.8.0*255(00026107.70*kWh)\r\n1-0:1.7.0*255(000500.40*W)\r\n!\r\n" * 2,
}


@pytest.mark.parametrize("name", STREAMS)
def test_the_profile_that_is_guessed_reads_the_stream(name: str, tmp_path: Path) -> None:
    learned = learn([(LINE, heard(STREAMS[name]), None)])
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "guessed.yaml").write_text(learned.profile("guessed"), encoding="utf-8")
    path = tmp_path / "edged.yaml"
    path.write_text(
        "gateway: {id: test}\nbuses:\n  line: {adapter: serial, port: /dev/ttyS0}\n"
        "devices:\n  thing: {bus: line, profile: guessed}\n",
        encoding="utf-8",
    )
    loaded = load(path)
    assert loaded.config is not None, loaded.problems
    config: Any = loaded.config.devices["thing"]
    device = Device.compile("thing", config)
    (kind,) = device.kinds.values()
    frames = [found for one in kind.framer().feed(STREAMS[name]) if (found := device.decode(kind, one)[0])]
    assert frames
    (columns,) = device.columns(list(config.points))
    for found in frames[1:]:
        sample = columns.sample("thing", found, 0, 0)
        assert not sample.quality, sample


@pytest.mark.parametrize(
    ("name", "check"),
    [
        ("fixed", {"type": "sum8", "first": 2}),
        ("crc", {"type": "crc16-modbus", "order": "little"}),
        ("stx", {"type": "sum8", "notation": "hex"}),
        ("lines", {}),
        ("csv", {}),
    ],
)
def test_checksums_are_found_and_not_invented(name: str, check: dict[str, object]) -> None:
    assert look(STREAMS[name]).check == check


def test_nmea_is_recognised() -> None:
    guess = look(b"\r\n".join(sentence(f"WIMWV,{i}.0,R,1.{i},M,A") for i in range(5)) + b"\r\n")
    assert guess.decode == {"known": "nmea"}
    assert guess.check["type"] == "xor"
    assert guess.points["mwv_wind_speed"] == {"field": "MWV.wind_speed"}


def test_seven_bits_with_parity_are_seen_in_eight() -> None:
    text = STREAMS["lines"]
    even = bytes(byte | (0x80 if byte.bit_count() & 1 else 0) for byte in text)
    guess = look(even)
    assert guess.line == "9600 7E1"
    assert guess.printable == 1.0


def test_the_right_speed_is_listed_first() -> None:
    fast = LineSettings(port="/dev/ttyS0", baudrate=19200)
    silent = LineSettings(port="/dev/ttyS0", baudrate=300)
    noise = bytes((i * 89 + (i * i) % 251) & 255 for i in range(300))
    learned = learn(
        [
            (silent, [], None),
            (LINE, heard(noise), LineErrors(framing=200, parity=0, overrun=0, breaks=0)),
            (fast, heard(STREAMS["lines"]), LineErrors(framing=0, parity=0, overrun=0, breaks=0)),
        ]
    )
    assert learned.guesses[0].settings.baudrate == 19200
    assert "19200 8N1" in learned.report[1]
    assert "nothing came" in "\n".join(learned.report)


def test_nothing_makes_no_profile() -> None:
    assert learn([]).profile("x") == ""
    assert learn([(LINE, [], None)]).profile("x") == ""


@given(st.binary(max_size=300))
def test_any_bytes_can_be_looked_at(data: bytes) -> None:
    assert isinstance(learn([(LINE, heard(data), None)]), Learned)
    assert learn([(LINE, heard(data), None)]).report


def test_the_adapter_offers_it() -> None:
    learner: Callable[..., Learned] = SERIAL.learn
    assert learner([(LINE, heard(STREAMS["csv"]), None)]).guesses[0].points
