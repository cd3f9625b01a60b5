"""Feeds targets with hostile input. What is not allowed to come out is a finding."""

from __future__ import annotations

import random
import signal
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from tests.fuzz.mutate import mutated
from tests.fuzz.targets import Target

PATIENCE = 10
"""Times what an input may take; after that it is interrupted."""


@dataclass(frozen=True, slots=True)
class Finding:
    """An input that did what none may."""

    target: str
    data: bytes
    what: str
    where: str

    def __str__(self) -> str:
        return f"{self.target}: {self.what} at {self.where}\n  input {self.data!r}"


class _TooLongError(BaseException):
    """Not to be caught by what is tested."""


@contextmanager
def _bounded(seconds: float) -> Iterator[None]:
    def ring(_number: int, _frame: FrameType | None) -> None:
        raise _TooLongError

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def attempt(target: Target, data: bytes) -> Finding | None:
    """One input."""
    try:
        with _bounded(PATIENCE * target.seconds), warnings.catch_warnings():
            warnings.simplefilter("error")
            began = time.process_time()
            target.run(data)
            spent = time.process_time() - began
    except target.allowed:
        return None
    except _TooLongError as exc:
        return Finding(target.name, data, f"takes longer than {PATIENCE * target.seconds:g} s", _place(exc))
    except Exception as exc:  # noqa: BLE001  # whatever it is, it is the finding
        return Finding(target.name, data, f"{type(exc).__name__}: {exc}", _place(exc))
    if spent > target.seconds:
        return Finding(target.name, data, f"takes {spent:.1f} s of CPU", "")
    return None


def _place(exc: BaseException) -> str:
    frames = traceback.extract_tb(exc.__traceback__)
    own = [frame for frame in frames if "/edged" in frame.filename and "/tests/" not in frame.filename] or list(frames)
    return f"{own[-1].filename}:{own[-1].lineno} {own[-1].name}" if own else ""


def inputs(target: Target, seed: int) -> Iterator[bytes]:
    """The seeds as they are, then ever new ones made of them; the same ones for the same number."""
    source = random.Random(f"{target.name} {seed}")
    yield from target.seeds
    while True:
        yield mutated(source, source.choice(target.seeds), target.seeds)


def fuzz(target: Target, seed: int, *, seconds: float = 0, count: int = 0) -> tuple[int, dict[str, Finding]]:
    """Run for so long, or so many inputs; returns how many, and one finding for each place."""
    until = time.monotonic() + seconds
    found: dict[str, Finding] = {}
    done = 0
    for data in inputs(target, seed):
        if (count and done >= count) or (seconds and time.monotonic() > until):
            break
        done += 1
        if (finding := attempt(target, data)) is not None:
            known = f"{finding.what[:40]} {finding.where}"
            if known not in found or len(finding.data) < len(found[known].data):
                found[known] = finding
    return done, found
