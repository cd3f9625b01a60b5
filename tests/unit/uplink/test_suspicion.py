from __future__ import annotations

from edged.model import Sample
from edged.uplink.api import CLOSED, SILENT, Chunk
from edged.uplink.suspicion import STRIKES, Suspicion

ONE = Chunk(7, [Sample("d", 1, 0, ("u",), [1])], 1)
NEXT = Chunk(8, ONE.samples, 1)
TWO = Chunk(7, [*ONE.samples, *ONE.samples], 2)


def test_a_silent_or_busy_session_accuses_nobody() -> None:
    suspicion = Suspicion()
    for _ in range(10):
        suspicion.died(ONE, 100, SILENT, alone=True)
    assert not suspicion.aroused
    assert not suspicion.aside
    suspicion.died(ONE, 100, CLOSED, alone=False)
    assert suspicion.aroused
    assert not suspicion.aside


def test_a_message_of_several_samples_is_divided_first() -> None:
    suspicion = Suspicion()
    for _ in range(STRIKES):
        suspicion.died(TWO, 1000, CLOSED, alone=True)
    assert 500 < suspicion.limit < 1000
    assert not suspicion.aside


def test_a_single_sample_is_set_aside_and_convicted_by_the_next_ones_success() -> None:
    suspicion = Suspicion(limit=100)
    for _ in range(STRIKES):
        suspicion.died(ONE, 100, CLOSED, alone=True)
    assert suspicion.aside == 7
    suspicion.convicted()
    assert not suspicion.aside
    assert suspicion.limit > 10**9


def test_when_the_next_one_fares_no_better_nobody_is_accused() -> None:
    suspicion = Suspicion()
    for _ in range(STRIKES):
        suspicion.died(ONE, 100, CLOSED, alone=True)
    suspicion.died(NEXT, 100, CLOSED, alone=True)
    assert not suspicion.aside


def test_strikes_count_only_in_a_row() -> None:
    suspicion = Suspicion()
    for piece in (ONE, ONE, NEXT, ONE, ONE):
        suspicion.died(piece, 100, CLOSED, alone=True)
    assert not suspicion.aside
