"""The results beside their targets: a table for the terminal and for the documentation, and a picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.bench import references
from tests.support.load_server import REGISTERS

Results = Mapping[str, Any]
_POINTS = "load-2000"
"""2,000 devices of 50 points."""


@dataclass(frozen=True, slots=True)
class Row:
    """One budget."""

    what: str
    target: str
    result: str
    met: bool | None
    """None: there is no target, or this run cannot judge it."""


def budgets(results: Results) -> Iterator[Row]:
    """The budgets, as far as this run has measured them."""
    yield from _maximum(results)
    steady, prompt, idle = results["steady"], results["prompt"], results["idle"]
    yield _most("CPU at 1,000 readings/s (20 devices × 50 registers, 1 s), % of a core", steady["cpu_percent"], 1.0)
    yield _most(
        "poll → published, p95, 1,000 readings/s, `flush: 100ms`, ms", prompt["latency_ms"]["p95"], 200, digits=0
    )
    yield _most("the same with `flush: 1s`, ms", steady["latency_ms"]["p95"], 2500, digits=0)
    yield _most("written per reading at 1,000 readings/s, `flush: 1s`, bytes", steady["written_per_reading"], 30)
    yield _most("written per reading at 10 readings/s, bytes", idle["written_per_reading"], 1000, digits=0)
    yield _most("spread of a 1 s period at 1,000 readings/s, p99, ms", steady["jitter_ms_p99"], 20, digits=1)
    per_poll = steady["transactions_per_poll"]
    yield Row(
        "transactions for a poll of 50 registers (that plans are the best ones is proved against brute force in "
        "`tests/unit/modbus/test_planner.py`)",
        "1, the planner's optimum", f"{per_poll:.3f}", 0.99 <= per_poll <= 1.01,
    )  # fmt: skip
    yield from _serial(results)
    yield from _drain(results)
    yield from _writes(results)
    yield _most("idle RSS, Modbus only, MiB", idle["rss_mib"], 45, digits=1)
    yield _most("idle PSS, Modbus only, MiB", idle["pss_mib"], 38, digits=1)
    yield from _waiting(results)
    yield from _growth(results)
    yield from _sensors(results)
    yield from _radio(results)
    yield from _system(results)
    yield Row(
        "threads and descriptors with 20 Modbus connections", "stated",
        f"{steady['threads']:.0f} threads, {steady['descriptors']:.0f} descriptors", None,
    )  # fmt: skip
    checked = [one for one in results.values() if "wrong" in one]
    bad = sum(one[key] for one in checked for key in ("wrong", "missing_reads", "disordered"))
    readings = sum(one.get("readings", 0) for one in checked)
    told = f"{bad:,.0f} of {readings:,.0f} readings"
    yield Row("wrong, lost or out of order, all runs together", "0", told, bad == 0)


def _maximum(results: Results) -> Iterator[Row]:
    raw = results["raw"]["pymodbus"]["per_second"] * REGISTERS
    held = [one for one in _loads(results) if kept_up(one)]
    what = "sustained readings/s, one core, FULL durability, QoS 1, all delivered, p95 ≤ 2.5 s"
    if not held:
        yield Row(what, "≥ 120,000 and ≥ 0.5 × raw pymodbus", "no step of the ladder was kept up with", met=False)
        return
    best = max(held, key=lambda one: float(one["readings_per_second"]))
    rate = best["readings_per_second"]
    yield Row(
        what, "≥ 120,000 and ≥ 0.5 × raw pymodbus",
        f"{rate:,.0f} = {rate / raw:.2f} × {raw:,.0f}, p95 {best['latency_ms']['p95'] / 1000:.2f} s, "
        f"{best['cpu_percent']:.0f} % of the core",
        rate >= max(120_000, 0.5 * raw),
    )  # fmt: skip
    yield _most("CPU per million readings at that load, s", best["cpu_s_per_million"], 7)


def kept_up(one: Mapping[str, Any]) -> bool:
    """Whether all was polled, delivered, and in time."""
    delivered = one["readings_per_second"] >= 0.97 * one["due_per_second"] and not one["missing_reads"]
    return delivered and one["latency_ms"]["p95"] <= 2500


def _loads(results: Results) -> list[Mapping[str, Any]]:
    return [one for name, one in results.items() if name.startswith(("load-", "top-"))]


def _serial(results: Results) -> Iterator[Row]:
    for name, share in (("rtu-9600", 0.99), ("rtu-115200", 0.95)):
        one = results.get(name)
        if one is None:
            continue
        baudrate = f"{int(name.removeprefix('rtu-')):,}"
        yield Row(
            f"RTU at {baudrate} baud, 10 devices × 20 registers: share of the wire limit", f"≥ {share:.0%}",
            f"{one['share']:.1%} on average, {one['typical']:.1%} typically", one["share"] >= share,
        )  # fmt: skip
        early = one["early"]
        yield Row(f"silences too short at {baudrate} baud", "0", f"{early:.0f}", early == 0)
    if "rtu-115200" in results:
        yield _most("CPU at 115,200 baud, % of a core", 100 * results["rtu-115200"]["cpu"], 6, digits=1)


def _drain(results: Results) -> Iterator[Row]:
    drain = results["drain"]
    rate = drain["drained_per_second"]
    yield Row("backlog drained beside 1,000 live readings/s, readings/s", "≥ 50,000", f"{rate:,.0f}", rate >= 50_000)
    share = drain["of_aiomqtt"]
    yield Row(
        f"the same in messages ({drain['message_bytes']:,.0f} bytes), to aiomqtt alone with such messages", "≥ 0.5",
        f"{share:.2f} = {drain['messages_per_second']:,.0f}/s to {drain['aiomqtt_per_second']:,.0f}/s, at "
        f"{drain['cpu_percent']:.0f} % of the core",
        share >= 0.5,
    )  # fmt: skip
    beside, alone = drain["live_latency_ms"]["p95"], drain["live_alone_latency_ms"]["p95"]
    yield Row(
        "p95 of the live readings beside it, to that without a backlog", "≤ 2", f"{beside / alone:.2f}",
        beside <= 2 * alone,
    )  # fmt: skip
    yield Row("RSS during the drain, MiB", "stated", f"{drain['rss_mib']:.0f}", None)
    if (one := results.get("backlog")) is not None:
        yield Row(
            f"a start with {one['file_mib']:.0f} MiB of backlog in the buffer", "stated",
            f"opened in {one['opened_in_s']:.2f} s, drained at {one['drained_per_s']:,.0f} readings/s, up to "
            f"{one['rss_mib']:.0f} MiB RSS", None,
        )  # fmt: skip


def _writes(results: Results) -> Iterator[Row]:
    one = results.get("writes")
    if one is None:
        return
    yield Row(
        "a command → verified result at the sender, p95, ms", "stated",
        f"{one['p95_ms']:.0f} (median {one['median_ms']:.0f})", None,
    )  # fmt: skip
    yield Row(
        f"{one['queued']:,.0f} commands at once", "all told",
        f"verified in {one['seconds']:.1f} s, RSS + {one['rss_after_mib'] - one['rss_before_mib']:.1f} MiB",
        one["told"].get("verified") == one["queued"],
    )  # fmt: skip


def _radio(results: Results) -> Iterator[Row]:
    if "ble" not in results:
        return
    calm, busy = results["ble"], results["ble-busy"]
    yield _most(
        f"RSS, BLE only, {calm['advertisements heard/s']:,.0f} advertisements/s, MiB", calm["RSS, MiB"], 45, digits=1
    )
    what = f"BLE only, {busy['advertisements heard/s']:,.0f} advertisements/s"
    yield _most(f"{what}: CPU, % of a core", busy["% of one core"], 25, digits=1)
    yield Row(f"{what}: RSS, MiB", "stated", f"{busy['RSS, MiB']:.1f}", None)


_BOOTED = {
    "boot_to_first_message_s": ("boot → first message at the receiver, s", 30, 1),
    "kill_to_ready_s": ("`kill -9` → ready again, the slowest of three, s", 2, 2),
    "upgrade_gap_s": ("upgrade: the longest time without a poll of a device with `every: 1s`, s", 2.3, 2),
    "power_cut_ms": ("power cut with `flush: 500ms`: readings lost, ms", 1000, 0),
}
"""Figure of `make system-test` → what it is, its limit, digits."""


def _system(results: Results) -> Iterator[Row]:
    found = results.get("system", {})
    if "exposure" in found:
        yield _most("exposure of the service, by `systemd-analyze security`", found["exposure"], 2, digits=1)
    for name, (what, limit, digits) in _BOOTED.items():
        if name in found:
            value = found[name]
            said = f"{value:,.{digits}f} (on a booted Debian, {found['on']})"
            yield Row(what, f"≤ {limit:g}", said, value <= limit)
        else:
            yield Row(what, f"≤ {limit:g}", "not measured here: `make system-test` first", None)


def _waiting(results: Results) -> Iterator[Row]:
    idle, commands = results["idle"], results["commands"]
    yield _most("process start → first message at the receiver, s", idle["first_message_warm_s"], 1.0)
    yield Row("the same, the YAML not seen before, s", "stated", f"{idle['first_message_cold_s']:.2f}", None)
    yield _most("`edged --help`, ms", 1000 * commands["help_s"], 150, digits=0)
    yield _most("`edged check` of 1,400 lines, s", commands["check_s"], 1.5)
    yield _most("the same file, seen before, as the daemon starts with it, s", commands["kept_s"], 0.4)


def _growth(results: Results) -> Iterator[Row]:
    if "few" not in results or _POINTS not in results:
        return
    few, many, points = results["few"], results["load-1000"], results[_POINTS]
    for what, one in (("10 → 1,000 devices", many), ("500 → 100,000 points", points)):
        yield _most(
            f"CPU per reading, {what}, each second: ratio", one["cpu_s_per_million"] / few["cpu_s_per_million"], 1.2
        )
    per_point = (points["rss_mib"] - results["idle"]["rss_mib"]) * 2**20 / (points["due_per_second"] - 10)
    yield _most("memory per point, 10 → 100,000 points, bytes of RSS", per_point, 400, digits=0)


def ratios(results: Results) -> dict[str, float]:
    """What can be held against another run: results by what the same run's raw references took, or by each other."""
    raw = results["raw"]
    transaction, steady, drain = raw["pymodbus"]["cpu_us"], results["steady"], results["drain"]
    found = {
        "CPU of a poll at 1,000 readings/s, by a transaction of pymodbus alone": (
            1e4 * steady["cpu_percent"] / (steady["due_per_second"] / REGISTERS) / transaction
        ),
        "messages/s of the drain, by aiomqtt alone": drain["of_aiomqtt"],
        "CPU of a message of the drain, by aiomqtt alone": drain["cpu_to_aiomqtt"],
    }
    held = [one for one in _loads(results) if kept_up(one)]
    if held:
        best = max(held, key=lambda one: float(one["readings_per_second"]))
        found["sustained readings/s, by pymodbus alone x 50"] = (
            best["readings_per_second"] / raw["pymodbus"]["per_second"] / REGISTERS
        )
        found["CPU of 50 readings there, by a transaction of pymodbus alone"] = (
            REGISTERS * best["cpu_s_per_million"] / transaction
        )
    if "few" in results and _POINTS in results:
        few = results["few"]["cpu_s_per_million"]
        found["CPU per reading, 1,000 devices by 10"] = results["load-1000"]["cpu_s_per_million"] / few
        found["CPU per reading, 100,000 points by 500"] = results[_POINTS]["cpu_s_per_million"] / few
    sensors = results["sensors-1"]
    found["CPU of a simulated event, by a transaction of pymodbus alone"] = (
        1e4 * sensors["cpu_percent"] / sensors["events_per_second"] / transaction
    )
    found |= {
        f"share of the wire at {name.removeprefix('rtu-')} baud": one["share"]
        for name, one in results.items()
        if name.startswith("rtu-")
    }
    return found


APART = 0.15
"""By so much two runs on the same machine may differ."""


def comparison(first: Mapping[str, float], second: Mapping[str, float]) -> tuple[str, list[str]]:
    """(A table of the ratios of two runs, those that differ by more than `APART` of the smaller one)."""
    lines, apart = ["| ratio | first run | second run | difference | |", "|---|---|---|---|---|"], []
    for name in first:
        if name not in second:
            lines.append(f"| {name} | {first[name]:.3g} | not measured | | |")
            continue
        low, high = sorted((first[name], second[name]))
        difference = high / low - 1
        if difference > APART:
            apart.append(name)
        mark = _MARKS[difference <= APART]
        lines.append(f"| {name} | {first[name]:.3g} | {second[name]:.3g} | {difference:.0%} | {mark} |")
    return "\n".join(lines), apart


def holds(one: Mapping[str, Any]) -> bool:
    """Whether the daemon keeps up with so many simulated devices."""
    return bool(one["events_per_second"] >= 0.97 * one["due_per_second"] and one["latency_ms_p95"] <= 2500)


def _sensors(results: Results) -> Iterator[Row]:
    runs = {int(name.removeprefix("sensors-")): one for name, one in results.items() if name.startswith("sensors-")}
    one = runs[1]
    what = f"{one['devices']:,} simulated devices, {one['due_per_second']:,.0f} events/s"
    yield Row(f"{what}: events/s delivered", "all", f"{one['events_per_second']:,.0f}", holds(one))
    yield _most(f"{what}: CPU, % of a core", one["cpu_percent"], 10, digits=1)
    yield _most(f"{what}: RSS, MiB", one["rss_mib"], 250, digits=0)
    best = max((multiple for multiple, one in runs.items() if holds(one)), default=0)
    if best > 1:
        top = runs[best]
        yield Row(
            f"{what}: the highest multiple that holds", "stated",
            f"{best} × = {top['events_per_second']:,.0f} events/s at {top['cpu_percent']:.0f} % of a core", None,
        )  # fmt: skip


def _most(what: str, value: float, limit: float, *, digits: int = 2) -> Row:
    return Row(what, f"≤ {limit:g}", f"{value:,.{digits}f}", value <= limit)


_MARKS = {True: "✓", False: "✗", None: ""}


def markdown(results: Results) -> str:
    """The table of budgets, and the raw references."""
    lines = ["| what | target | result | |", "|---|---|---|---|"]
    lines += [f"| {row.what} | {row.target} | {row.result} | {_MARKS[row.met]} |" for row in budgets(results)]
    lines += ["", "| raw reference, same run, same core | per second | CPU µs each |", "|---|---|---|"]
    lines += [
        f"| {references.NAMES[name]} | {record['per_second']:,.0f} | {record['cpu_us']:,.1f} |"
        for name, record in results["raw"].items()
    ]
    lines += ["", "| ratio, to be compared with other runs | |", "|---|---|"]
    lines += [f"| {name} | {value:.3g} |" for name, value in ratios(results).items()]
    return "\n".join(lines)


def picture(results: Results) -> str:
    """CPU of the core against readings per second, as SVG."""
    points = [(0.0, 0.0)]
    points += sorted((one["readings_per_second"], one["cpu_percent"]) for one in [results["steady"], *_loads(results)])
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
