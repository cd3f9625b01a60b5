from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from edged.adapter import BusConfig, Duration
from edged.media import LineSettings
from edged.media.settings import remote_address


@pytest.mark.parametrize(
    "port",
    [
        "/dev/ttyUSB0",
        "/dev/serial/by-id/usb-FTDI-if00-port0",
        "usb:0403:6001",
        "usb:0403:6001/FT4XYZ",
        "socket://192.0.2.1:4001",
        "rfc2217://[2001:db8::1]:4001",
    ],
)
def test_good_ports(port: str) -> None:
    assert LineSettings(port=port).port == port


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"port": "ttyUSB0"}, "write a path such as"),
        ({"port": "usb:403:6001"}, "usb:VENDOR:PRODUCT"),
        ({"port": "socket://host"}, "socket://HOST:PORT"),
        ({"port": "socket://host:99999"}, "socket://HOST:PORT"),
        ({"port": "/dev/ttyS0", "baudrate": 9}, "speed of a serial line"),
        ({"port": "/dev/ttyS0", "stopbits": 3}, "1, 1.5 or 2"),
        ({"port": "/dev/ttyS0", "rs485": "rts", "rtscts": True}, "uses the RTS wire"),
        ({"port": "socket://host:1", "rs485": "rts"}, "serial server's business"),
        ({"port": "/dev/ttyS0", "rs485_before": Duration(0.001)}, "need `rs485: kernel`"),
        ({"port": "/dev/ttyS0", "rs485": "rts", "rs485_after": Duration(2)}, "at most 1s"),
        ({"port": "socket://host:1", "connect_timeout": Duration(0)}, "longer than 0"),
    ],
)
def test_bad_settings_say_what_to_write(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        LineSettings(**settings)


@pytest.mark.parametrize(
    ("settings", "bits"),
    [
        ({}, 10),
        ({"parity": "even"}, 11),
        ({"bytesize": 7, "parity": "even"}, 10),
        ({"stopbits": 2}, 11),
        ({"parity": "mark", "stopbits": 1.5}, 11.5),
    ],
)
def test_length_of_a_character(settings: dict[str, Any], bits: float) -> None:
    line = LineSettings(port="/dev/ttyS0", baudrate=19_200, **settings)
    assert line.character == pytest.approx(bits / 19_200)


def test_mixed_into_a_bus_both_sides_check_themselves() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Bus(LineSettings, BusConfig):
        pass

    with pytest.raises(ValueError, match="dead_share"):
        Bus(adapter="x", port="/dev/ttyS0", dead_share=2)
    with pytest.raises(ValueError, match="port"):
        Bus(adapter="x", port="ttyS0")


def test_address_of_a_serial_server() -> None:
    assert remote_address("socket://moxa:4001") == ("moxa", 4001)
    assert remote_address("rfc2217://[2001:db8::1]:4001") == ("2001:db8::1", 4001)
