"""What an adapter may know of devices that nobody has described, for `edged probe`, `find`, `scan` and `check`.

The core knows no protocol. An adapter may have the method `explorer`; what that returns knows what registers can mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable


class Explorer(Protocol):
    """What an adapter knows of devices that nobody has described. Pure."""

    tables: tuple[str, ...]
    """The kinds of data there are."""
    ranges: tuple[str, ...]
    """What to read of an unknown device first."""
    everything: tuple[str, ...]
    baudrates: tuple[int, ...]
    """What to try on a line, the likeliest first."""
    parities: tuple[str, ...]
    scales: tuple[float, ...]
    """By which integers are commonly multiplied."""
    present: str
    """What any unit answers in some way; even a refusal is an answer."""

    def span(self, text: str) -> Any:
        """A range of addresses, from text such as `holding 40-49`. Raises ValueError."""
        ...

    def sweep(self, ranges: Sequence[str], device: Any = None) -> Sweep:
        """The reads of these ranges. Raises ValueError."""
        ...

    def pieces(self, table: str, address: int, count: int) -> Sequence[Any]:
        """What `edged probe` reads, what was asked for first. Raises ValueError."""
        ...

    def guesses(self, words: Mapping[int, int], address: int) -> Sequence[Any]:
        """Every reading of a value that begins at an address, the plausible ones first."""
        ...

    def text(self, words: Sequence[int]) -> str:
        """The registers as text."""
        ...

    def shown(self, value: str, tolerance: float, words: Mapping[str, Mapping[int, int]]) -> Any:
        """One look at the display. Raises ValueError."""
        ...

    def search(self, shown: Sequence[Any]) -> Sequence[Any]:
        """What shows that, the likeliest first."""
        ...

    def around(self, matches: Sequence[Any]) -> Sequence[str]:
        """The ranges to read again for these matches."""
        ...

    def point(self, table: str, address: int, kind: Any, scale: float = 1.0, device: Any = None) -> dict[str, Any]:
        """The point as the configuration of the `device` has it."""
        ...

    def fingerprint(self, profile: Mapping[str, Any]) -> Any:
        """How a profile's devices are known, or None. Raises ValueError."""
        ...


class Sweep(Protocol):
    """What to read next of a device, until nothing is left."""

    words: Mapping[Any, Mapping[int, int]]
    refusals: Sequence[Any]
    gave_up: Sequence[Any]
    total: int

    @property
    def left(self) -> int:
        """How many addresses were not settled yet."""
        ...

    def next(self) -> Any:
        """What to read next; None at the end."""
        ...

    def got(self, span: Any, words: Sequence[int]) -> None:
        """This is what is there."""
        ...

    def refused(self, span: Any, code: int) -> None:
        """It was refused."""
        ...

    def silent(self, span: Any) -> None:
        """It was not answered."""
        ...


@runtime_checkable
class Explores(Protocol):
    """An adapter that can help to understand unknown devices. Optional."""

    def explorer(self) -> Explorer:
        """What it knows."""
        ...
