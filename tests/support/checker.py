"""Holds what arrived against what the load server served: every value traced back to the one read it came from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.support.load_server import count, expected, stamp


@dataclass
class Report:
    """What became of the reads, over all devices. Times in microseconds."""

    samples: int = 0
    good_readings: int = 0
    bad_readings: int = 0
    wrong: int = 0
    """Values that belong to no reply, or not to the reply that their count names."""
    missing: int = 0
    """Replies between the first and the last seen of a device that never arrived."""
    repeated: int = 0
    disordered: int = 0
    """Samples of one device and lane that came after a later one, repetitions aside."""
    stamp_errors: list[int] = field(default_factory=list)
    """By how much each sample's time is later than the server's stamp."""
    last: dict[str, int] = field(default_factory=dict)
    """Device → the number of the last reply seen."""


def rows(payload: Mapping[str, Any]) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """(device, time, value by point) of a `columns` payload. Points without a value are left out."""
    for table in payload["tables"]:
        for device, time, values in zip(table["devices"], table["times"], table["values"], strict=True):
            yield device, time, dict(zip(table["points"], values, strict=True))


def newest(payload: Mapping[str, Any]) -> int:
    """When the device answered what was read last in a message, by the load server's clock; 0 if that is not in it."""
    stamped = [values for _, _, values in rows(payload) if all(values.get(f"r{i}") is not None for i in range(4))]
    return max(map(stamp, stamped), default=0)


def check(payloads: Iterable[Mapping[str, Any]]) -> Report:
    """Judge decoded `columns` payloads in the order of their arrival."""
    report = Report()
    seen: dict[str, set[int]] = {}
    newest: dict[tuple[str, str], int] = {}
    for payload in payloads:
        for device, time, values in rows(payload):
            report.samples += 1
            report.bad_readings += sum(value is None for value in values.values())
            if any(values.get(f"r{i}") is None for i in range(6)):
                continue
            reply = count(values)
            report.good_readings += sum(value is not None for value in values.values())
            report.stamp_errors.append(time - stamp(values))
            report.wrong += sum(
                value is not None and register > 5 and value != expected(reply, register)
                for register, value in ((int(point[1:]), value) for point, value in values.items())
            )
            of_device = seen.setdefault(device, set())
            if reply in of_device:
                report.repeated += 1
                continue
            of_device.add(reply)
            lane = (device, payload["lane"])
            report.disordered += reply < newest.get(lane, 0)
            newest[lane] = max(newest.get(lane, 0), reply)
    for device, replies in seen.items():
        report.missing += max(replies) - min(replies) + 1 - len(replies)
        report.last[device] = max(replies)
    return report
