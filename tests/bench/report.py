"""The results beside their targets: a table for the terminal and for the documentation, and a picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.support.load_server import REGISTERS

Results = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """One budget."""

    what: str
    target: str
    result: str
    met: bool


def budgets(results: Results) -> Iterator[Row]:
    """The budgets that this run can judge."""
    raw = results["raw"]["pymodbus"]["per_second"] * REGISTERS
    loads = [one for name, one in results.items() if name.startswith("load-")]
    kept_up = [one for one in loads if _kept_up(one)]
    if kept_up:
        best = max(kept_up, key=lambda one: float(one["readings_per_second"]))
        rate = best["readings_per_second"]
        yield Row(
            "sustained readings/s, one core, FULL durability, QoS 1, all delivered, p95 ≤ 2.5 s",
            "≥ 120,000 and ≥ 0.5 × raw pymodbus",
            f"{rate:,.0f} = {rate / raw:.2f} × ({raw:,.0f}), p95 {best['latency_ms']['p95'] / 1000:.2f} s",
            rate >= max(120_000, 0.5 * raw),
        )
        yield _most("CPU per million readings at that load, s", best["cpu_s_per_million"], 7)
        yield _most("memory per point at that load, bytes of RSS", _per_point(results, best), 400, digits=0)
    steady, prompt, idle = results["steady"], results["prompt"], results["idle"]
    yield _most("CPU at 1,000 readings/s (20 devices × 50 registers, 1 s), % of a core", steady["cpu_percent"], 1.0)
    yield _most(
        "read → received, p95, 1,000 readings/s, `flush: 100ms`, ms", prompt["latency_ms"]["p95"], 200, digits=0
    )
    yield _most("written per reading at 1,000 readings/s, bytes", steady["written_per_reading"], 30, digits=0)
    yield _most("written per reading at 10 readings/s, bytes", idle["written_per_reading"], 1000, digits=0)
    yield _most("difference of a 1 s period, p99, 1,000 readings/s, ms", steady["jitter_ms_p99"], 20, digits=1)
    yield _most("idle RSS, Modbus only, MiB", idle["rss_mib"], 45, digits=1)
    yield _most("idle PSS, Modbus only, MiB", idle["pss_mib"], 38, digits=1)
    yield _most(
        "process start → first message at the receiver, kept configuration, s", idle["first_message_warm_s"], 1.0
    )
    yield _most("the same from the YAML, s", idle["first_message_cold_s"], 1.5)
    drained = results["drain"]["drained_per_second"]
    yield Row("backlog drained beside live readings, readings/s", "≥ 50,000", f"{drained:,.0f}", drained >= 50_000)
    checked = [one for one in results.values() if "wrong" in one]
    bad = sum(one[key] for one in checked for key in ("wrong", "missing_reads", "disordered"))
    yield Row("wrong, lost or out of order, all runs together", "0", f"{bad:,}", bad == 0)


def _kept_up(one: Mapping[str, Any]) -> bool:
    delivered = one["readings_per_second"] >= 0.97 * one["due_per_second"] and not one["missing_reads"]
    return delivered and one["latency_ms"]["p95"] <= 2500


def _per_point(results: Results, best: Mapping[str, Any]) -> float:
    return float((best["rss_mib"] - results["idle"]["rss_mib"]) * 2**20 / best["due_per_second"])


def _most(what: str, value: float, limit: float, *, digits: int = 2) -> Row:
    return Row(what, f"≤ {limit:g}", f"{value:,.{digits}f}", value <= limit)


def markdown(results: Results) -> str:
    """The table of budgets, and the raw references."""
    lines = ["| what | target | result | |", "|---|---|---|---|"]
    lines += [f"| {row.what} | {row.target} | {row.result} | {'✓' if row.met else '✗'} |" for row in budgets(results)]
    lines += ["", "| raw reference, same run, same core | per second | CPU µs each |", "|---|---|---|"]
    names = {
        "pymodbus": "pymodbus alone: transactions of 50 registers",
        "streams": "bare asyncio loop: the same, nothing looked at",
        "aiomqtt": "aiomqtt alone: QoS 1 messages of 5 kB, 20 in flight",
        "sqlite": "sqlite3 alone: rows, 1,000 a commit, WAL, FULL",
    }
    lines += [
        f"| {names[name]} | {record['per_second']:,.0f} | {record['cpu_us']:,.1f} |"
        for name, record in results["raw"].items()
    ]
    return "\n".join(lines)


def picture(results: Results) -> str:
    """CPU of the core against readings per second, as SVG."""
    loads = [one for name, one in results.items() if name.startswith("load-")]
    points = [(0.0, 0.0)] + [(one["readings_per_second"], one["cpu_percent"]) for one in [results["steady"], *loads]]
    widest = max(x for x, _ in points) or 1.0
    place = [(60 + 500 * x / widest, 260 - 2.2 * y) for x, y in points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in place)
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="#1f6f8b"/>' for x, y in place[1:])
    labels = "".join(
        f'<text x="{x:.1f}" y="{y - 10:.1f}" text-anchor="end" font-size="12">{rate / 1000:,.0f}k/s: {cpu:.0f} %</text>'
        for (x, y), (rate, cpu) in zip(place[2:], points[2:], strict=True)
    )
    grid = "".join(
        f'<line x1="60" x2="570" y1="{260 - 2.2 * y:.0f}" y2="{260 - 2.2 * y:.0f}" stroke="#ddd"/>'
        f'<text x="52" y="{264 - 2.2 * y:.0f}" text-anchor="end" font-size="12">{y} %</text>'
        for y in (0, 25, 50, 75, 100)
    )
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 600 300" font-family="sans-serif">'
        '<rect width="600" height="300" fill="#fff"/>'
        f'{grid}<polyline points="{path}" fill="none" stroke="#1f6f8b" stroke-width="2"/>{dots}{labels}'
        '<text x="315" y="290" text-anchor="middle" font-size="13">readings per second, polled, made durable and '
        "delivered</text></svg>\n"
    )
