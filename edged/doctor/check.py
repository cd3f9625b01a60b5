"""What one check of the doctor says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warning", "problem", "n/a"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    state: State
    evidence: str
    """What was seen, one line."""
    remedy: str = ""
    """What to do; empty where nothing is to be done."""


def ok(name: str, evidence: str) -> Check:
    """Nothing to be done."""
    return Check(name, "ok", evidence)


def warning(name: str, evidence: str, remedy: str) -> Check:
    """It works, and should be looked after."""
    return Check(name, "warning", evidence, remedy)


def problem(name: str, evidence: str, remedy: str) -> Check:
    """It does not work."""
    return Check(name, "problem", evidence, remedy)


def skipped(name: str, why: str) -> Check:
    """There is nothing of the kind here."""
    return Check(name, "n/a", why)
