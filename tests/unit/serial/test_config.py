"""A mistake in a description is found when it is read, with the place of it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edged.config.compiled import load_compiled
from edged.config.load import load
from edged.errors import ConfigError
from edged_serial import SERIAL
from edged_serial.config import SerialBus, SerialDevice
from edged_serial.device import Device, raw_value

Make = Callable[[str], SerialDevice]
GOOD = "decode: {regex: '(?P<v>.*)'}\npoints: {v: {}}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("points: {v: {}}", "`decode` is missing"),
        ("decode: {}\npoints: {v: {}}", "give one of `regex`"),
        ("decode: {json: true, known: sml}\npoints: {v: {}}", "not json and known"),
        (GOOD + "framing: {type: markers, start: a}", "needs `stop`"),
        (GOOD + "framing: {type: lines, length: 4}", "has no meaning with `type: lines`"),
        (GOOD + "framing: {type: fixed, length: 4}", "nobody can tell noise from a frame"),
        (GOOD + 'framing: {type: delimiter, end: "→"}', "not one byte"),
        (GOOD + "send: '{address}'", "the device has no `address`"),
        (GOOD + "send: '{check}'", "there is no `check`"),
        (GOOD + "address: x1\nsend: '{address:02d}'", "`send`: 'x1' does not fit {address:02d}"),
        (GOOD + "address: 300\nsend: '{address:B}'", "`send`: 300 does not fit {address:B}"),
        (GOOD + "address: '5€'\nsend: '{address}'", "`send`: '5€' does not fit {address:}"),
        (GOOD + "send: '{sequence:b}'", "`send`: 255 does not fit {sequence:b}"),
        (GOOD + "send: x\nwake: {send: '{address:02d}'}", "`wake`: '' does not fit {address:02d}"),
        (GOOD + "framing: {type: fixed, length: 2, start: abc}", "together they are longer than it"),
        (GOOD + "send: '{value}'", "`write`"),
        (GOOD + "check: {type: crc}", "`crc` has the parameters"),
        (GOOD + "check: {type: crc99}", "did you mean `crc`"),
        (GOOD + "line: 9600 8X1", "write speed, data bits"),
        ("decode: {regex: '(?P<w>.*)'}\npoints: {v: {}}", "needs the field 'v'"),
        ("decode: {regex: '(?P<v>(a+)+)'}\npoints: {v: {}}", "for ever"),
        ("decode: {struct: {layout: HH, fields: [v]}}\npoints: {v: {}}", "2 values, and there are 1 names"),
        ("decode: {struct: {layout: Z, fields: [v]}}\npoints: {v: {}}", "not a layout"),
        ("decode: {struct: {layout: 9999999999B, fields: [v]}}\npoints: {v: {}}", "the longest frame has 65536"),
        ("decode: {struct: {layout: HH, fields: [v, v]}}\npoints: {v: {}}", "a name twice"),
        ("decode: {regex: '(?P<v>.*)'}\npoints: {v: {writable: true}}", "belong together"),
        ("decode: {regex: '(?P<v>.*)'}\npoints: {v: {type: text, scale: 2}}", "`scale` is for numbers"),
        ("decode: {regex: '(?P<v>.*)', expect: {x: 1}}\npoints: {v: {}}", "there is no such field"),
        ("messages: {a: {decode: {regex: '(?P<v>.*)'}}}\nsend: x\npoints: {v: {}}", "move them into `messages`"),
        (
            "messages: {a: {decode: {regex: '(?P<v>.*)'}}, b: {decode: {regex: '(?P<v>.*)'}}}\npoints: {v: {}}",
            "in which `message`",
        ),
        ("dialogue: mbus\ndecode: {known: sml}\npoints: {v: {}}", "{known: mbus}"),
        (GOOD + "timeout: 0", "must lie between 1ms and 10m"),
        (GOOD + "retries: 11", "between 0 and 10"),
    ],
)
def test_mistakes_are_told(device_of: Make, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"edged\.yaml:\d+:\d+: devices\.thing") as caught:
        device_of(text)
    assert message in str(caught.value)


def test_a_mistake_in_a_profile_has_its_line_and_column(tmp_path: Path) -> None:
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "own.yaml").write_text(
        "profile: own\ndevice:\n  decode:\n    regex: '(?P<v>[)'\npoints:\n  v: {}\n", encoding="utf-8"
    )
    path = tmp_path / "edged.yaml"
    path.write_text(
        "gateway: {id: test}\nbuses:\n  line: {adapter: serial, port: /dev/ttyS0}\n"
        "devices:\n  thing: {bus: line, profile: own}\n",
        encoding="utf-8",
    )
    (problem,) = load(path).problems
    assert "own.yaml:4:" in str(problem)
    assert "is not a regular expression" in str(problem)


@pytest.mark.parametrize("profile", sorted(path.stem for path in (SERIAL.profiles() or Path()).glob("*.yaml")))
def test_a_compiled_configuration_is_the_same(tmp_path: Path, profile: str) -> None:
    path = tmp_path / "edged.yaml"
    path.write_text(
        "gateway: {id: test}\nbuses:\n  line: {adapter: serial, port: /dev/ttyS0}\n"
        f"devices:\n  thing: {{bus: line, profile: {profile}, address: 1}}\n",
        encoding="utf-8",
    )
    loaded = load(path).config
    assert loaded is not None
    if profile == "dsmr-p1":  # one is enough to show that the cache is used; each costs a second
        assert load_compiled(path, tmp_path / "cache") == loaded
        assert load_compiled(path, tmp_path / "cache") == loaded
    from edged.config.plain import build, dump  # noqa: PLC0415  # what the cache is made with

    assert build(SerialDevice, dump(loaded.devices["thing"])) == loaded.devices["thing"]


def test_the_line_is_as_the_profiles_say_unless_the_bus_says_it(device_of: Make) -> None:
    meter = device_of("profile: sml-meter")
    slow = device_of(GOOD + "line: 300 7E1")
    bus = SerialBus(adapter="serial", port="/dev/ttyS0")
    assert bus.settings({}).baudrate == 9600
    settings = bus.settings({"a": slow})
    assert (settings.baudrate, settings.bytesize, settings.parity) == (300, 7, "even")
    assert SerialBus(adapter="serial", port="/dev/ttyS0", baudrate=1200).settings({"a": slow}).baudrate == 1200
    with pytest.raises(ConfigError, match="a 300, b 9600"):
        bus.settings({"a": slow, "b": meter})


def test_a_bus_checks_what_it_is_told() -> None:
    with pytest.raises(ValueError, match="not the speed"):
        SerialBus(adapter="serial", port="/dev/ttyS0", baudrate=3)
    with pytest.raises(ValueError, match="not a port"):
        SerialBus(adapter="serial", port="COM3")


def test_values_on_their_way_down(device_of: Make) -> None:
    text = """
decode: {keys: {}}
points:
  scaled: {scale: 0.1, offset: -40, writable: true, write: {send: "{value}"}, range: [-40, 60]}
  mapped: {map: {raw: [4, 20], to: [0, 100]}, writable: true, write: {send: "{value}"}}
  word: {enum: {"1": on, "0": off}, writable: true, write: {send: "{value}"}}
  counter: {scale: 0.001, writable: true, write: {send: "{value}"}}
"""
    config: Any = device_of(text)
    assert raw_value(config, "scaled", 20) == 600
    assert raw_value(config, "mapped", 50) == 12
    assert str(raw_value(config, "scaled", -18.47)) == "215.3"
    assert raw_value(config, "counter", 1_234_567_890.123) == 1_234_567_890_123
    assert raw_value(config, "word", "on") == "1"
    for point, value in (("scaled", 61), ("word", "maybe"), ("scaled", "x"), ("scaled", None)):
        with pytest.raises(ValueError, match=r"outside|none of|cannot be written"):
            raw_value(config, point, value)


@pytest.mark.parametrize(("package", "known"), [("pynmea2", "nmea"), ("meterbus", "mbus")])
def test_a_missing_package_is_told_with_its_extra(
    device_of: Make, monkeypatch: pytest.MonkeyPatch, package: str, known: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=r"edged\.yaml:\d+:\d+: .*pip install 'edged\[meters\]'"):
        device_of(f"decode: {{known: {known}}}\npoints: {{v: {{}}}}")


def test_an_address_of_any_length_is_compared_without_its_leading_zeros(device_of: Make) -> None:
    device = Device.compile(
        "a", device_of("address: 7\nframing: {max: 9000}\ndecode: {csv: {fields: [address, v]}}\npoints: {v: {}}")
    )
    (kind,) = device.kinds.values()
    assert device.decode(kind, b"0" * 5000 + b"7,1")[0] is not None
    assert device.decode(kind, b"1" * 5000 + b"7,1")[0] is None
    assert device.decode(kind, b"70,1")[0] is None
