"""What bytes of a line mean, in words that all protocols share. An adapter writes notes, others show and count them.

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .ring import Frame

NoteKind = Literal[
    "request", "answer", "refusal", "late", "again", "echo", "foreign", "damaged", "noise", "silence", "data"
]
"""`request` ours; `answer`, `refusal` (an exception) what belongs to it; `late` what belongs to one that was given up;
`again` an answer that came before already; `echo` our own bytes; `foreign` what another master sent or got; `damaged`
an answer that cannot be used; `noise` bytes without a meaning; `silence` a request without any answer; `data` the rest.
"""
Defect = Literal["", "before", "after", "garbled", "inserted", "cut", "short", "long", "foreign", "unknown"]
"""Where noise lies, and how an answer is damaged: as long as it should be, a byte too many, the last ones missing, some
missing elsewhere, far too long, not what was asked for; or not to be told."""


@dataclass(frozen=True, slots=True)
class Part:
    """One field of a frame."""

    name: str
    data: bytes
    text: str
    wrong: bool = False


@dataclass(frozen=True, slots=True)
class FrameNote:
    """A frame, or what was to be one, and what it says."""

    frame: Frame
    kind: NoteKind
    text: str
    """For people, one line."""
    device: str = ""
    """Whom it is to or from, in the protocol's words, such as `unit 12`."""
    parts: tuple[Part, ...] = ()
    error: str = ""
    """What is wrong with it; empty if nothing is."""
    defect: Defect = ""
    after: float = 0.0
    """Seconds from the last bit of the request to the first piece of this."""
    gap: float = 0.0
    """The longest pause inside it, seconds."""
    expected: bytes = b""
    """How the right answer would begin, where that is known."""
