"""What the frames of a line, and the counters of its UART, make the doctor say."""

from __future__ import annotations

import json
import os
import pty
import time
from pathlib import Path
from typing import Any

from edged.config.load import load
from edged.doctor.lines import judge, judged_buses, record_lines
from edged.errors import EdgedError

HEAD = {"trace": 1, "bus": "a", "adapter": "modbus-rtu", "character": 0.0005, "baudrate": 19200, "parity": "none",
        "echo": False, "timeout": 1.0, "offset": 0}  # fmt: skip
REQUEST = bytes.fromhex("010300000001840A")


def garbled(uart: dict[str, int]) -> list[str]:
    """A line on which every answer is garbage."""
    lines: list[dict[str, Any]] = [{**HEAD, "uart": uart}]
    for number in range(12):
        at = number * 1_000_000
        lines.append({"time": at, "link": 0, "direction": "tx", "data": REQUEST.hex()})
        lines.append({"time": at + 50_000, "link": 0, "direction": "rx", "data": "f8e0fe80f8"})
    return [json.dumps(line) for line in lines]


def test_what_the_uart_counted_is_part_of_the_evidence() -> None:
    (check,) = judge(garbled({"framing": 37, "parity": 0, "overrun": 2}))
    assert check.state == "problem"
    assert "the UART counted 37 framing errors, 2 overrun errors" in check.evidence
    (without,) = judge(garbled({"framing": 0, "parity": 0, "overrun": 0}))
    assert "UART" not in without.evidence


def test_all_lines_are_listened_to_at_the_same_time_and_one_that_cannot_be_opened_stops_no_other(
    tmp_path: Path,
) -> None:
    pairs = [pty.openpty() for _ in range(3)]
    buses = {f"b{i}": {"adapter": "modbus-rtu", "port": os.ttyname(ours)} for i, (_, ours) in enumerate(pairs)}
    buses["gone"] = {"adapter": "modbus-rtu", "port": "/dev/no-such-port"}
    devices = {f"d-{bus}": {"bus": bus, "unit": 1, "timeout": "5s", "points": {"p": {"holding": 0}}} for bus in buses}
    file = tmp_path / "edged.yaml"
    file.write_text(json.dumps({"gateway": {"id": "g"}, "buses": buses, "devices": devices, "connections": {}}))
    config = load(file).config
    assert config is not None
    assert judged_buses(config) == list(buses)
    began = time.monotonic()
    found = record_lines(config, list(buses), tmp_path, 4.0)
    took = time.monotonic() - began
    for pair in pairs:
        for end in pair:
            os.close(end)
    assert took < 3 * 4.0  # one after the other would be that much at the least
    assert isinstance(found["gone"], EdgedError) or len(found["gone"]) == 1
    for name in ("b0", "b1", "b2"):
        lines = found[name]
        assert not isinstance(lines, EdgedError)
        assert json.loads(lines[0])["uart"] == {"framing": 0, "parity": 0, "overrun": 0}
        assert json.loads(lines[1])["direction"] == "tx"
