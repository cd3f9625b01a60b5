"""What a device refuses is found by halving, named once, left out, and asked for again; the rest keeps flowing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.adapter import PollResult, TransientError
from edged_modbus.bus import ModbusBus
from edged_modbus.job import ModbusJob
from edged_modbus.point import ModbusPoint
from tests.support import rogue
from tests.support.modbus import device, faults, holding, names, opened, values
from tests.support.rogue import Action, Behaviour, Request, Rogue


def without(*dead: int, code: int = 2) -> Behaviour:
    return rogue.refuse_where(lambda r: any(r.start <= d < r.start + r.count for d in dead), code)


def prepared(bus: ModbusBus, points: Sequence[str]) -> ModbusJob:
    """The job of the device `m`, whose registers are listed."""
    job = bus.prepare("m", points)
    assert isinstance(job, ModbusJob)
    return job


async def poll_until_settled(bus: ModbusBus, job: ModbusJob, most: int = 30) -> tuple[list[PollResult], list[str]]:
    """Poll until a poll is without news; returns all results and notes."""
    results: list[PollResult] = []
    notes: list[str] = []
    for _ in range(most):
        result = await bus.poll(job)
        results.append(result)
        notes += result.notes
        if not job.learning and len(results) > 1 and result.transactions == results[-2].transactions:
            break
    return results, notes


async def test_a_dead_register_is_found_named_once_and_left_out() -> None:
    points = holding(*range(400, 450))
    async with Rogue([without(412)]) as server, opened("tcp", server.port, device(points)) as bus:
        job = prepared(bus, list(points))
        first = await bus.poll(job)
        assert values(first) == {f"h{n}": n for n in range(400, 450) if n != 412}, (
            "good ones must flow in the same poll"
        )
        assert first.notes == ["m: holding 412 does not exist (exception 2); leaving out h412"]
        for _ in range(3):
            result = await bus.poll(job)
            assert values(result) == {f"h{n}": n for n in range(400, 450) if n != 412}
            assert faults(result) == {"h412": "bad(exception)"}
            assert (result.transactions, result.notes) == (2, [])
        assert [request.what for request in bus.plan(job).requests] == ["holding 400-411", "holding 413-449"]
        assert server.connections == 1


async def test_a_gap_that_cannot_be_read_across_costs_no_value() -> None:
    points = holding(10, 11, 20, 21)
    async with Rogue([without(15)]) as server, opened("tcp", server.port, device(points)) as bus:
        job = prepared(bus, list(points))
        assert len(bus.plan(job).requests) == 1
        results, notes = await poll_until_settled(bus, job)
    assert all(values(result) == {f"h{n}": n for n in (10, 11, 20, 21)} for result in results)
    assert notes == []
    assert results[-1].transactions == 2


async def test_a_limit_nobody_knew_of_is_found() -> None:
    points = holding(*range(100))
    async with (
        Rogue([rogue.refuse_where(lambda r: r.count > 60, code=3)]) as server,
        opened("tcp", server.port, device(points)) as bus,
    ):
        job = prepared(bus, list(points))
        results, notes = await poll_until_settled(bus, job)
    assert all(values(result) == {f"h{n}": n for n in range(100)} for result in results)
    assert results[-1].transactions == 2
    (note,) = notes
    assert "holding 0-99 is refused in one request, and granted in parts" in note


async def test_a_value_of_two_registers_dies_with_either_of_them_and_its_neighbour_lives() -> None:
    points = {"long": ModbusPoint(holding=7, type="uint32"), **holding(5, 6, 7, 9)}
    async with Rogue([without(8)]) as server, opened("tcp", server.port, device(points)) as bus:
        job = prepared(bus, list(points))
        results, notes = await poll_until_settled(bus, job)
    assert values(results[-1]) == {"h5": 5, "h6": 6, "h7": 7, "h9": 9}
    assert faults(results[-1]) == {"long": "bad(exception)"}
    assert notes == ["m: holding 7-8 does not exist (exception 2); leaving out long"]


async def test_a_function_the_device_does_not_know_is_not_bisected() -> None:
    points = holding(1, 2) | {f"i{n}": ModbusPoint(input=n) for n in range(50)}
    async with (
        Rogue([rogue.refuse_where(lambda r: r.function == 4, code=1)]) as server,
        opened("tcp", server.port, device(points)) as bus,
    ):
        job = prepared(bus, list(points))
        result = await bus.poll(job)
        assert len(server.requests) == 2
        assert values(result) == {"h1": 1, "h2": 2}
        assert len(faults(result)) == 50
        (note,) = result.notes
        assert note == (
            "m: input 0-49 cannot be read: the device does not know this function (exception 1); "
            "leaving out i0, i1, i2, i3, i4, i5 and 44 more"
        )


async def test_an_exception_for_every_register_ends_and_is_told_in_one_line() -> None:
    points = holding(*range(60))
    async with Rogue([rogue.refuse(2)]) as server, opened("tcp", server.port, device(points)) as bus:
        job = prepared(bus, list(points))
        polls, error = 0, None
        while error is None:
            asked = len(server.requests)
            polls += 1
            try:
                result = await bus.poll(job)
            except TransientError as exc:
                error = exc
                continue
            assert set(faults(result).values()) == {"bad(exception)"}
            assert names(result) == sorted(points)
            assert len(server.requests) - asked <= 40, "one poll must not spend the bus on learning"
        assert error.reason == "exception"
        assert "holding 0-59 does not exist (exception 2)" in str(error)
        assert "\n" not in str(error)
        assert polls < 20
        assert len(server.requests) < 400
        asked = len(server.requests)
        for _ in range(5):
            with pytest.raises(TransientError):
                await bus.poll(job)
            with pytest.raises(TransientError):
                await bus.poll(job, probe=True)
        assert len(server.requests) - asked == 5, "only the probes may go on asking"


async def test_a_device_that_refused_everything_while_it_started_comes_back_by_a_probe() -> None:
    points = holding(*range(4))
    alive = False
    async with (
        Rogue([lambda r: rogue.good(r) if alive else rogue.refuse(2)(r)]) as server,
        opened("tcp", server.port, device(points)) as bus,
    ):
        job = prepared(bus, list(points))
        for _ in range(3):
            try:
                await bus.poll(job)
            except TransientError:
                break
        with pytest.raises(TransientError):
            await bus.poll(job, probe=True)
        alive = True
        probed = await bus.poll(job, probe=True)
        assert any("answers now" in note for note in probed.notes)
        result = await bus.poll(job)
    assert values(result) == {f"h{n}": n for n in range(4)}
    assert result.transactions == 1


async def test_a_register_that_appears_brings_its_value_at_once_and_is_reported_once() -> None:
    points = holding(*range(10))
    dead = {4, 7}
    behaviour = rogue.refuse_where(lambda r: any(r.start <= d < r.start + r.count for d in dead))
    async with Rogue([behaviour]) as server, opened("tcp", server.port, device(points)) as bus:
        job = prepared(bus, list(points))
        await poll_until_settled(bus, job)
        dead.discard(4)
        for one in job._dead.values():  # nobody wants to wait for a minute
            one.again = 0.0
        result = await bus.poll(job)
        assert names(result) == sorted(points)
        assert values(result)["h4"] == 4
        assert faults(result) == {"h7": "bad(exception)"}
        assert result.notes == ["m: holding 4 answers now; reading h4 again"]
        results, notes = await poll_until_settled(bus, job)
        assert notes == []
        assert all(names(result) == sorted(points) for result in results)
        assert faults(results[-1]) == {"h7": "bad(exception)"}


async def test_one_job_that_is_refused_does_not_take_its_device_down() -> None:
    points = holding(1, 500)
    async with Rogue([without(500)]) as server, opened("tcp", server.port, device(points)) as bus:
        good, bad = prepared(bus, ["h1"]), prepared(bus, ["h500"])
        assert values(await bus.poll(good)) == {"h1": 1}
        for _ in range(3):
            assert faults(await bus.poll(bad)) == {"h500": "bad(exception)"}


async def test_one_job_that_is_never_answered_does_not_take_its_device_down() -> None:
    points = holding(1, 500)

    def behave(request: Request) -> object:
        return rogue.silent(request) if request.start == 500 else rogue.good(request)

    async with (
        Rogue([behave]) as server,  # type: ignore[list-item]  # what behaviours return
        opened("tcp", server.port, device(points, timeout=0.05)) as bus,
    ):
        good, bad = prepared(bus, ["h1"]), prepared(bus, ["h500"])
        assert values(await bus.poll(good)) == {"h1": 1}
        for _ in range(3):
            assert faults(await bus.poll(bad)) == {"h500": "bad(timeout)"}


async def test_a_probe_is_one_small_request_without_retries() -> None:
    points = holding(*range(100)) | {"coil": ModbusPoint(coil=4)}
    async with (
        Rogue([rogue.good, rogue.refuse(2), rogue.silent]) as server,
        opened("tcp", server.port, device(points, retries=3)) as bus,
    ):
        job = prepared(bus, list(points))
        assert (await bus.poll(job, probe=True)).samples == ()
        await bus.poll(job, probe=True)  # an exception is a sign of life
        with pytest.raises(TransientError, match="no answer"):
            await bus.poll(job, probe=True)
    assert [request.count for request in server.requests] == [1, 1, 1]


@settings(max_examples=25, deadline=None)
@given(
    st.sets(st.integers(0, 299), min_size=1, max_size=60),
    st.sets(st.integers(0, 299), max_size=40),
    st.sampled_from([2, 3]),
)
async def test_whatever_does_not_exist_all_that_does_is_read(there: set[int], dead: set[int], code: int) -> None:
    points = holding(*sorted(there))
    expected = {f"h{n}": n for n in there - dead}
    async with Rogue([without(*dead, code=code)]) as server, opened("tcp", server.port, device(points)) as bus:
        job = prepared(bus, list(points))
        for _ in range(60):
            try:
                result = await bus.poll(job)
            except TransientError:
                assert not expected
                break
            assert names(result) == sorted(points), "each point must be reported once"
            assert values(result).items() <= expected.items()
            if not job.learning and values(result) == expected:
                break
        else:
            pytest.fail("learning did not end")


@settings(max_examples=6, deadline=None)
@given(st.randoms(use_true_random=False), st.sampled_from(["tcp", "rtu-over-tcp"]))
async def test_however_a_device_behaves_each_point_is_reported_once_and_never_wrong(chance: Random, kind: str) -> None:
    points = holding(*chance.sample(range(0, 1000, 7), 12), *range(2000, 2020))
    behaviours = [
        rogue.good, rogue.good, rogue.good, rogue.refuse(2), rogue.refuse(3), rogue.refuse(6), rogue.refuse(11),
        rogue.silent, rogue.wrong_unit, rogue.registers(1), rogue.cut(5), rogue.truncated, rogue.twice,
    ]  # fmt: skip

    def behave(request: Request) -> Iterable[Action]:
        return chance.choice(behaviours)(request)

    server = Rogue([behave], framing="tcp" if kind == "tcp" else "rtu")
    async with server, opened(kind, server.port, device(points, timeout=0.01)) as bus:
        jobs = [prepared(bus, list(points)), prepared(bus, list(points)[:3])]
        for n in range(6):
            job = jobs[n % 2]
            for one in job._dead.values():  # nobody wants to wait for a minute
                one.again = 0.0
            with contextlib.suppress(TransientError):
                result = await bus.poll(job)
                assert names(result) == sorted(job.points)
                assert values(result).items() <= {f"h{at}": at for at in range(2020)}.items()
            with contextlib.suppress(TransientError):
                await bus.poll(job, probe=True)
