"""What a job learns, without a wire: the device is a function that says which addresses it refuses."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from edged.adapter import ConfigError, Duration, Name
from edged.model import bad
from edged_modbus.config import ModbusDevice
from edged_modbus.job import ModbusJob, Reader, merged
from edged_modbus.planner import Span, Table, network_costs
from edged_modbus.point import ModbusPoint

MINUTE = 60.0


def same(points: tuple[str, ...]) -> tuple[str, ...]:
    return points


def job_for(starts: Sequence[int], **settings: object) -> ModbusJob:
    points = {Name(f"h{start}"): ModbusPoint(holding=start) for start in starts}
    config = ModbusDevice(bus=Name("bus"), timeout=Duration(1), points=points, **settings)  # type: ignore[arg-type]  # as given
    return ModbusJob("m", config, list(points), network_costs(), same)


def poll(job: ModbusJob, refuses: Callable[[Reader], int], now: float) -> list[str]:
    """One poll without a limit; `refuses` gives an exception code or 0. Returns the notes."""
    queue = [*job.readers, *job.due(now)]
    while queue:
        reader = queue.pop(0)
        code = refuses(reader)
        if code:
            queue[:0] = job.refused(reader, code, now)
        else:
            job.answered(reader)
    return conclude(job)


def conclude(job: ModbusJob) -> list[str]:
    job.conclude()
    return job.news()


def refusing(*dead: int) -> Callable[[Reader], int]:
    return lambda reader: 2 if any(reader.block.start <= d < reader.block.span.end for d in dead) else 0


def left_out(job: ModbusJob) -> list[str]:
    return sorted(point for points, _ in job.dead() for point in points)


def test_a_dead_register_is_asked_for_again_after_a_minute_then_ever_more_rarely() -> None:
    job = job_for(range(10))
    assert poll(job, refusing(4), 0.0) == ["m: holding 4 does not exist (exception 2); leaving out h4"]
    asked = [now for now in range(1, 4000, 10) if job.due(now) and poll(job, refusing(4), now) == []]
    gaps = [later - earlier for earlier, later in zip([0, *asked], asked, strict=False)]
    assert gaps[0] == pytest.approx(60, abs=10)
    assert gaps[1] == pytest.approx(120, abs=10)
    assert max(gaps) == pytest.approx(600, abs=10)
    assert gaps == sorted(gaps)
    assert left_out(job) == ["h4"]


def test_a_register_that_appears_is_read_again_and_told() -> None:
    job = job_for(range(10))
    poll(job, refusing(4), 0.0)
    assert poll(job, refusing(), MINUTE) == ["m: holding 4 answers now; reading h4 again"]
    assert left_out(job) == []
    assert [reader.block.span for reader in job.readers] == [Span(Table.HOLDING, 0, 10)]
    assert poll(job, refusing(), MINUTE + 1) == []


def test_of_many_dead_registers_few_are_asked_for_in_one_poll_and_all_in_turn() -> None:
    job = job_for(range(0, 2000, 100))
    dead = refusing(*range(0, 1000, 100))
    poll(job, dead, 0.0)
    asked: list[str] = []
    for n in range(5):
        due = job.due(MINUTE + n)
        assert len(due) <= 2
        asked += [point for reader in due for point in reader.points]
        poll(job, dead, MINUTE + n)
    assert sorted(asked) == sorted(left_out(job))


def test_those_still_dead_are_not_named_again_when_another_comes_back() -> None:
    job = job_for(range(20))
    assert len(poll(job, refusing(4, 9), 0.0)) == 1
    assert poll(job, refusing(9), MINUTE) == ["m: holding 4 answers now; reading h4 again"]
    assert poll(job, refusing(9), MINUTE + 1) == []
    assert left_out(job) == ["h9"]


def test_neighbours_are_named_as_a_range() -> None:
    job = job_for(range(20))
    (note,) = poll(job, refusing(4, 5, 6, 15), 0.0)
    assert note == "m: holding 4-6, holding 15 does not exist (exception 2); leaving out h4, h5, h6, h15"


def test_what_is_never_answered_is_held_for_dead_only_while_others_answer() -> None:
    job = job_for([0, 1000])
    silent = job.readers[0]
    for _ in range(10):
        job.silent(silent, 0.0, others_answer=False)
        assert conclude(job) == []
    assert left_out(job) == []
    assert job.readers[-1] is silent, "it must not keep the others from being read"
    for _ in range(2):
        job.silent(silent, 0.0, others_answer=True)
        assert conclude(job) == []
    job.silent(silent, 0.0, others_answer=True)
    assert conclude(job) == ["m: holding 0 is never answered, unlike others; leaving out h0"]
    assert dict(job.dead()) == {("h0",): bad("timeout")}


def test_one_answer_in_between_forgives_a_silence() -> None:
    job = job_for([0, 1000])
    silent = job.readers[0]
    for _ in range(5):
        job.silent(silent, 0.0, others_answer=True)
        job.silent(silent, 0.0, others_answer=True)
        job.answered(silent)
    assert left_out(job) == []


def test_a_silent_block_is_halved_one_piece_a_poll() -> None:
    job = job_for(range(8))
    polls = 0
    while "h5" not in left_out(job):
        polls += 1
        for reader in list(job.readers):
            if reader.block.start <= 5 < reader.block.span.end:
                job.silent(reader, 0.0, others_answer=True)
                break
            job.answered(reader)
        job.conclude()
        assert polls < 20
    assert left_out(job) == ["h5"]


def test_a_function_that_becomes_known_has_its_block_examined() -> None:
    job = job_for(range(10))
    poll(job, lambda _: 1, 0.0)
    assert len(left_out(job)) == 10
    poll(job, refusing(4), MINUTE)
    poll(job, refusing(4), MINUTE + 1)
    assert left_out(job) == ["h4"]


def test_results_of_a_plan_that_is_gone_change_nothing() -> None:
    job = job_for(range(10))
    (stale,) = job.readers
    poll(job, refusing(4), 0.0)
    assert job.refused(stale, 2, 1.0) == []
    job.silent(stale, 1.0, others_answer=True)
    job.answered(stale)
    assert conclude(job) == []
    assert left_out(job) == ["h4"]


def test_a_point_that_can_never_be_read_is_an_error_of_the_configuration() -> None:
    with pytest.raises(ConfigError, match=r"m/h7: .*avoid: holding 5-8"):
        job_for([1, 7], avoid=("holding 5-8",))


def test_spans_are_merged_by_table() -> None:
    spans = [Span(Table.HOLDING, 5, 2), Span(Table.COIL, 7, 1), Span(Table.HOLDING, 7, 1), Span(Table.HOLDING, 9, 1)]
    assert merged(spans) == [Span(Table.COIL, 7, 1), Span(Table.HOLDING, 5, 3), Span(Table.HOLDING, 9, 1)]
