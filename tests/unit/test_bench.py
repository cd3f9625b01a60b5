"""How the benchmark puts rounds together and judges budgets."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.bench import report, scale, system
from tests.bench.rounds import together

LOAD = {
    "devices": 4000, "due_per_second": 200_000, "readings_per_second": 199_000.0, "cpu_percent": 50.0,
    "cpu_s_per_million": 2.5, "rss_mib": 80.0, "latency_ms": {"p95": 500.0}, "missing_reads": 0, "wrong": 0,
    "disordered": 0, "written_per_reading": 10.0, "jitter_ms_p99": 3.0, "threads": 3, "descriptors": 32,
    "readings": 1000, "transactions_per_poll": 1.0,
}  # fmt: skip
RESULTS: dict[str, Any] = {
    "raw": {name: {"per_second": 6000.0, "cpu_us": 60.0} for name in ("pymodbus", "aiomqtt", "sqlite")},
    "commands": {"help_s": 0.1, "check_s": 1.2, "kept_s": 0.2},
    "idle": {
        "rss_mib": 38.0, "pss_mib": 26.0, "written_per_reading": 800.0, "first_message_warm_s": 0.6,
        "first_message_cold_s": 1.2,
    },
    "steady": LOAD | {"cpu_percent": 0.6},
    "prompt": LOAD,
    "load-4000": LOAD,
    "drain": {
        "drained_per_second": 60_000.0, "messages_per_second": 600.0, "message_bytes": 2700.0, "cpu_percent": 20,
        "aiomqtt_per_second": 5000.0, "of_aiomqtt": 0.12, "cpu_to_aiomqtt": 2.5, "rss_mib": 45.0,
        "live_latency_ms": {"p95": 600.0}, "live_alone_latency_ms": {"p95": 500.0},
    },
    "backlog": {"file_mib": 90.0, "opened_in_s": 0.01, "drained_per_s": 300_000, "rss_mib": 60.0},
    "ble": {"advertisements heard/s": 99.0, "RSS, MiB": 43.9, "% of one core": 2.0},
    "ble-busy": {"advertisements heard/s": 1990.0, "RSS, MiB": 46.5, "% of one core": 14.0},
    "sensors-1": {
        "devices": 100_000, "due_per_second": 1667.0, "events_per_second": 1666.0, "cpu_percent": 5.0, "rss_mib": 240.0,
        "latency_ms_p95": 900.0,
    },
}  # fmt: skip


def verdicts(results: dict[str, Any]) -> dict[str, bool | None]:
    return {row.what.partition(",")[0]: row.met for row in report.budgets(results)}


def test_numbers_are_medians_and_mistakes_the_worst_round() -> None:
    rounds = [{"cpu": one, "wrong": 0, "p": {"x": 2 * one}} for one in (3.0, 1.0, 2.0)]
    rounds[1]["wrong"] = 4
    assert together(rounds) == {"cpu": 2.0, "wrong": 4, "p": {"x": 4.0}}


def test_a_budget_is_judged_by_its_limit() -> None:
    assert verdicts(RESULTS)["sustained readings/s"] is True
    assert verdicts(RESULTS | {"load-4000": LOAD | {"missing_reads": 1}})["sustained readings/s"] is False
    assert verdicts(RESULTS | {"commands": RESULTS["commands"] | {"help_s": 0.2}})["`edged --help`"] is False


def test_what_a_booted_machine_has_shown_is_among_the_budgets_and_what_has_not_been_measured_says_so(
    tmp_path: Path,
) -> None:
    lines = tmp_path / "system.jsonl"
    lines.write_text(
        '{"at": 1, "name": "system", "quick": false, "upgrade_gap_s": 9.0}\n'
        '{"at": 86400, "name": "system", "quick": false, "upgrade_gap_s": 1.25}\n'
    )
    found = system.figures(lines, tmp_path / "none.service")
    assert found == {"upgrade_gap_s": 1.25, "on": "1970-01-02"}
    rows = {row.what.partition(":")[0]: row for row in report.budgets(RESULTS | {"system": found})}
    assert rows["upgrade"].result == "1.25 (on a booted Debian, 1970-01-02)"
    assert rows["upgrade"].met is True
    assert (rows["power cut with `flush"].result, rows["power cut with `flush"].met) == (
        "not measured here: `make system-test` first", None,
    )  # fmt: skip


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="there is no systemd-analyze")
def test_the_exposure_needs_no_booted_machine(tmp_path: Path) -> None:
    found = system.figures(tmp_path / "none.jsonl")
    (row,) = (row for row in report.budgets(RESULTS | {"system": found}) if row.what.startswith("exposure"))
    assert row.met is True
    (tmp_path / "open.service").write_text("[Service]\nExecStart=/bin/true\n")
    assert system.figures(tmp_path / "none.jsonl", tmp_path / "open.service")["exposure"] > 9


def test_a_mistake_anywhere_is_shown() -> None:
    assert verdicts(RESULTS)["wrong"] is True
    assert verdicts(RESULTS | {"prompt": LOAD | {"disordered": 1}})["wrong"] is False


def test_table_and_picture_are_made_of_what_was_measured() -> None:
    table = report.markdown(RESULTS)
    assert "199,000 = 0.66 × 300,000" in table
    assert "199k/s: 50 %" in report.picture(RESULTS)


def test_the_long_configuration_has_its_length() -> None:
    assert 1400 <= len(scale.long_configuration().splitlines()) < 1410


def test_two_runs_are_compared_by_their_ratios() -> None:
    first = report.ratios(RESULTS)
    assert first["sustained readings/s, by pymodbus alone x 50"] == 199_000 / 300_000
    assert report.comparison(first, first)[1] == []
    second = report.ratios(RESULTS | {"drain": RESULTS["drain"] | {"of_aiomqtt": 0.14}})
    text, apart = report.comparison(first, second)
    assert apart == ["messages/s of the drain, by aiomqtt alone"]
    assert "| 0.12 | 0.14 | 17% | ✗ |" in text
