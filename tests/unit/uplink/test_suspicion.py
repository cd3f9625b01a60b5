from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from edged.model import Sample
from edged.uplink.api import CLOSED, SILENT, Chunk
from edged.uplink.suspicion import PATIENCE, SURE, Suspicion

ONE = Chunk(7, [Sample("d", 1, 0, ("u",), [1])], 1)
NEXT = Chunk(8, ONE.samples, 1)
THIRD = Chunk(9, ONE.samples, 1)
TWO = Chunk(7, [*ONE.samples, *ONE.samples], 2)
TRIALS = 5
QUICK = 0.005


def ends(suspicion: Suspicion, piece: Chunk, sessions: int, *, took: float = QUICK, size: int = 100) -> list[bool]:
    """So many sessions in a row end over a message."""
    found = []
    for _ in range(sessions):
        suspicion.pause(piece)
        found.append(suspicion.died(piece, size, CLOSED, alone=True, took=took))
    return found


def test_a_silent_or_busy_session_accuses_nobody() -> None:
    suspicion = Suspicion()
    for _ in range(30):
        assert not suspicion.died(ONE, 100, SILENT, alone=True, took=QUICK)
    assert not suspicion.aroused
    for _ in range(30):
        assert not suspicion.died(ONE, 100, CLOSED, alone=False, took=QUICK)
    assert suspicion.aroused
    assert not suspicion.pause(ONE)
    assert not suspicion.skips(ONE)


def test_only_an_accused_message_has_to_wait() -> None:
    suspicion = Suspicion(draw=lambda _, longest: longest)
    ends(suspicion, ONE, PATIENCE - 1, took=0.1)
    assert suspicion.pause(ONE) == 0
    ends(suspicion, ONE, 1, took=0.1)
    assert suspicion.pause(ONE) == 16 * 2 * 0.1
    assert suspicion.pause(NEXT) == 0


def test_a_message_of_several_samples_is_divided_first() -> None:
    suspicion = Suspicion()
    assert not any(ends(suspicion, TWO, PATIENCE + TRIALS - 1, size=1000))
    assert suspicion.limit > 1000
    assert not any(ends(suspicion, TWO, 1, size=1000))
    assert 200 < suspicion.limit < 500
    assert not suspicion.skips(ONE)


def test_a_single_sample_is_guilty_when_it_ends_a_session_after_the_next_one_was_taken() -> None:
    suspicion = Suspicion(limit=100)
    assert not any(ends(suspicion, ONE, PATIENCE + TRIALS))
    assert suspicion.skips(ONE)
    suspicion.taken(NEXT)
    suspicion.vouched = True
    assert not suspicion.skips(ONE)
    assert ends(suspicion, ONE, 1) == [True]
    assert not suspicion.skips(ONE)
    assert suspicion.limit > 10**9


def test_a_single_sample_that_is_taken_after_all_is_innocent() -> None:
    suspicion = Suspicion()
    ends(suspicion, ONE, PATIENCE + TRIALS)
    suspicion.taken(NEXT)
    suspicion.vouched = True
    suspicion.taken(ONE)
    assert not suspicion.vouched
    assert ends(suspicion, ONE, 1) == [False]
    assert not suspicion.skips(ONE)


def test_whoever_is_set_aside_later_needs_a_voucher_of_its_own() -> None:
    suspicion = Suspicion()
    ends(suspicion, ONE, PATIENCE + TRIALS)
    suspicion.vouched = True  # and ONE is never seen again: too old, evicted
    ends(suspicion, THIRD, PATIENCE + TRIALS)
    assert suspicion.skips(THIRD)
    assert ends(suspicion, THIRD, 1) == [False]


def test_two_guilty_ones_in_a_row_are_found() -> None:
    suspicion = Suspicion()
    ends(suspicion, ONE, PATIENCE + TRIALS)
    ends(suspicion, NEXT, PATIENCE + TRIALS)
    assert suspicion.skips(ONE)
    assert suspicion.skips(NEXT)
    suspicion.taken(THIRD)
    suspicion.vouched = True
    assert ends(suspicion, ONE, 1) == ends(suspicion, NEXT, 1) == [True]


def test_when_none_fares_better_nobody_is_accused_and_the_next_charge_takes_longer() -> None:
    suspicion = Suspicion()
    for piece in (ONE, NEXT, THIRD):
        assert not any(ends(suspicion, piece, PATIENCE + TRIALS))
    assert not any(suspicion.skips(piece) for piece in (ONE, NEXT, THIRD))
    ends(suspicion, ONE, PATIENCE + TRIALS)
    assert not suspicion.skips(ONE)
    ends(suspicion, ONE, PATIENCE)
    assert suspicion.skips(ONE)


def test_ends_count_only_in_a_row() -> None:
    suspicion = Suspicion()
    for piece in (ONE, NEXT) * 20:
        ends(suspicion, piece, 1)
    assert suspicion.pause(ONE) == 0


def test_a_message_of_another_lane_that_is_taken_acquits_nobody() -> None:
    suspicion = Suspicion(draw=lambda _, longest: longest)
    ends(suspicion, ONE, PATIENCE)
    suspicion.taken(NEXT)
    assert suspicion.pause(ONE) > 0
    suspicion.taken(ONE)
    assert suspicion.pause(ONE) == 0


def test_patience_is_as_before_once_a_message_was_taken() -> None:
    suspicion = Suspicion(draw=lambda _, longest: longest)
    for piece in (ONE, NEXT, THIRD):
        ends(suspicion, piece, PATIENCE + TRIALS)
    ends(suspicion, ONE, PATIENCE)
    assert suspicion.pause(ONE) == 0  # none fared better: more is needed now
    suspicion.taken(NEXT)
    ends(suspicion, THIRD, PATIENCE)
    assert suspicion.pause(THIRD) > 0


def test_an_end_during_the_wait_acquits() -> None:
    suspicion = Suspicion()
    ends(suspicion, ONE, PATIENCE + TRIALS - 1)
    suspicion.interrupted()
    assert suspicion.pause(ONE) == 0
    ends(suspicion, ONE, PATIENCE + TRIALS - 1)
    assert not suspicion.skips(ONE)


def test_an_end_that_comes_late_begins_the_trial_anew_with_more_time() -> None:
    suspicion = Suspicion(draw=lambda _, longest: longest)
    ends(suspicion, ONE, PATIENCE + TRIALS - 1)
    before = suspicion.pause(ONE)
    ends(suspicion, ONE, 1, took=1.0)
    assert suspicion.pause(ONE) > before
    ends(suspicion, ONE, TRIALS - 1, took=1.0)
    assert not suspicion.skips(ONE)
    ends(suspicion, ONE, 1, took=1.0)
    assert suspicion.skips(ONE)


def test_on_a_very_slow_link_more_sessions_make_up_for_shorter_waits() -> None:
    suspicion = Suspicion(draw=lambda _, longest: longest)
    ends(suspicion, ONE, PATIENCE, took=40.0)
    assert suspicion.pause(ONE) == 160
    ends(suspicion, ONE, int(SURE) - 1, took=40.0)
    assert not suspicion.skips(ONE)
    ends(suspicion, ONE, 1, took=40.0)
    assert suspicion.skips(ONE)


@given(cut=st.floats(0, 300), took=st.floats(0.001, 30), late=st.floats(0.1, 1.9), seed=st.integers(0, 2**32))
@settings(max_examples=300)
def test_an_end_that_knows_nothing_of_the_wait_rarely_counts(cut: float, took: float, late: float, seed: int) -> None:
    """Wherever it lies: the share of all waits for which it follows the message soon enough is at most 1 in 16."""
    suspicion = Suspicion(draw=lambda _, longest: longest)
    ends(suspicion, ONE, PATIENCE, took=took)
    longest, span = suspicion.pause(ONE), max(2 * took, 0.02)
    waits = random.Random(seed)
    n = 4000
    hits = sum(wait < cut <= wait + late * took for wait in (waits.uniform(0, longest) for _ in range(n)))
    share = min(1 / 2, max(1 / 16, span / 60))
    assert hits / n <= share + 5 * (share / n) ** 0.5


@dataclass
class World:
    """Sessions of a lane whose first message is sent alone, as the forwarder does it, with a clock of its own."""

    cut: Callable[[random.Random], float]
    """Seconds after which a session is cut, whatever is sent."""
    poison: frozenset[int] = frozenset()
    rtt: float = 0.01
    rng: random.Random = field(default_factory=lambda: random.Random(3))
    sessions: int = 0
    dead: list[int] = field(default_factory=list)
    delivered: list[int] = field(default_factory=list)

    def run(self, messages: int, sessions: int) -> None:
        """Until so many messages are settled, or so many sessions are over."""
        suspicion = Suspicion(draw=self.rng.uniform)
        todo, last = list[int](), 0
        while self.sessions < sessions and (todo or last < messages):
            last, begun = min(messages, last + 20 - len(todo)), last + 1
            todo += range(begun, last + 1)
            self.sessions += 1
            self._session(suspicion, todo)

    def _session(self, suspicion: Suspicion, todo: list[int]) -> None:
        end, now, again, skipped = self.cut(self.rng), 0.0, list[int](), list[int]()
        while queue := again or [n for n in todo if n not in skipped]:
            n = queue[0]
            piece = Chunk(n, ONE.samples, 1)
            if suspicion.skips(piece):
                skipped.append(n)
                continue
            now += suspicion.pause(piece)
            if end <= now:
                suspicion.interrupted()
                return
            dies = now + self.rtt if n in self.poison else end
            if dies <= now + self.rtt:
                if suspicion.died(piece, 100, CLOSED, alone=True, took=min(dies, end) - now):
                    self.dead.append(n)
                    todo.remove(n)
                return
            now += self.rtt
            self.delivered.append(n)
            todo.remove(n)
            suspicion.taken(piece)
            again = []
            if skipped and skipped[0] < n:
                suspicion.vouched = True
                again = [skipped.pop(0)]


CUTS: dict[str, Callable[[random.Random], float]] = {
    "soon": lambda rng: rng.expovariate(1 / 0.005),
    "a round trip": lambda rng: rng.expovariate(1 / 0.01),
    "some round trips": lambda rng: rng.expovariate(1 / 0.1),
    "at a fixed time within the first message": lambda _: 0.009,
    "at either of two times": lambda rng: rng.choice([0.009, 0.1]),
    "half within the first message": lambda rng: rng.choice([0.009, 1.0]),
    "evenly": lambda rng: rng.uniform(0, 0.3),
}


def test_sessions_cut_thousands_of_times_cost_no_message() -> None:
    """20,000 sessions each. "Guilty is over which three end, if the next is taken" cost up to 1,315 here."""
    for name, cut in CUTS.items():
        world = World(cut)
        world.run(10**9, 20_000)
        assert (world.dead, world.sessions) == ([], 20_000), name
        assert world.delivered == sorted(world.delivered), name


NOISE: dict[str, Callable[[random.Random], float]] = {
    "none": lambda _: 1e9,
    "once in ten seconds": lambda rng: rng.expovariate(1 / 10),
    "each second": lambda rng: rng.expovariate(1),
    "every second session at once": lambda rng: rng.choice([0.009, 10]),
}


def test_a_guilty_message_is_found_among_cuts() -> None:
    for name, cut in NOISE.items():
        world = World(cut, poison=frozenset({5, 11, 12}))
        world.run(40, 5_000)
        assert world.dead == [5, 11, 12], name
        assert sorted(world.delivered) == sorted(set(range(1, 41)) - world.poison), name
