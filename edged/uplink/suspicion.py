"""Finds the message over which a receiver ends the session, if it is one message. Pure.

MQTT 3.1.1 has no other way to refuse a message than to hang up, and some brokers do it with MQTT 5 too (a size limit
that was not announced). Sent again and again, such a message would block everything behind it. But sessions end for
many reasons, and a link that breaks every few seconds must not cost a single message. So:

1. After a session that ended with messages in flight, each lane sends its first message alone. One over which two
   sessions ended is accused.
2. From then on each session waits for a random time before that message is sent. Only an end that follows within a
   sixteenth of the longest wait counts against it. An end that has nothing to do with the message, be it random, at
   regular times, or always so long after connecting, does not know what was drawn: it is taken for one with a
   probability of 1/16 at most. Five in a row: one in a million. An end during the wait acquits.
3. A message of several samples is then divided, since size is the usual cause. A single sample is set aside. When the
   receiver takes what comes after it, it is sent once more, and is guilty if that ends the session again. While it
   takes nothing, the receiver is in trouble, and nothing is held against anybody.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from math import log2

from edged.uplink.api import CLOSED, Chunk

PATIENCE = 2
"""Sessions that must end over a message before it is accused."""
SURE = 20.0
"""Bits of evidence: the probability that an innocent message is found guilty is below 2 to the minus 20."""
_ODDS = 16
_LONGEST = 60.0
"""Seconds that a session waits at most, unless an answer takes half of that. Then more sessions are needed."""
_SHORTEST = 0.02
"""Seconds within which no two ends can be told apart."""
_MOST = 2
"""So many single samples in a row may be set aside: more, and it is the receiver that is in trouble."""
_MOST_PATIENCE = 64
_NO_LIMIT = 2**31


@dataclass(slots=True)
class Suspicion:
    """What is held against messages of one connection."""

    aroused: bool = False
    """The receiver ended the last session with messages in flight."""
    limit: int = _NO_LIMIT
    """Payloads of more bytes are to be divided."""
    vouched: bool = False
    """The receiver took what comes after those that are set aside: they are to be sent once more."""
    draw: Callable[[float, float], float] = random.uniform
    _aside: list[int] = field(default_factory=list)
    """The seqs of single samples that are set aside."""
    _patience: int = PATIENCE
    _seq: int = 0
    _ends: int = 0
    _span: float = 0.0
    """Seconds after the message within which an end counts against it."""
    _evidence: float = 0.0

    def skips(self, piece: Chunk) -> bool:
        """Whether a message is set aside until another one is taken."""
        return not self.vouched and len(piece.samples) == 1 and piece.last in self._aside

    def pause(self, piece: Chunk) -> float:
        """Seconds to wait before a message is sent alone."""
        return self.draw(0, self._wait) if self._is_accused(piece) else 0.0

    def interrupted(self) -> None:
        """The session ended during that wait: sessions end without the message too."""
        self._drop_charge()

    def died(self, piece: Chunk, size: int, reason: str, *, alone: bool, took: float) -> bool:
        """The session ended with this message in flight, so many seconds after it was sent. Whether it is guilty.

        `size`: bytes of its payload.
        """
        if reason != CLOSED:
            return False
        self.aroused = True
        if not alone:
            return False
        if self.vouched and piece.last in self._aside and len(piece.samples) == 1:
            self._release(piece)
            self.limit = _NO_LIMIT  # it was not a matter of size
            return True
        if self._is_accused(piece):
            self._weigh(piece, size, took)
        else:
            self._accuse(piece, took)
        return False

    def taken(self, piece: Chunk) -> None:
        """The receiver took a message."""
        self._patience = PATIENCE
        if self._seq == piece.last:
            self._drop_charge()
        if self._aside:
            self._release(piece)

    def learn_limit(self, size: int) -> None:
        """A payload of so many bytes is too large; one of half of them may not be."""
        self.limit = min(self.limit, size * 7 // 8)

    @property
    def _wait(self) -> float:
        """The longest time to wait, seconds; at least twice the span."""
        return min(_ODDS * self._span, max(_LONGEST, 2 * self._span))

    def _is_accused(self, piece: Chunk) -> bool:
        return self._seq == piece.last and self._ends >= (PATIENCE if self._aside else self._patience)

    def _accuse(self, piece: Chunk, took: float) -> None:
        if self._seq != piece.last:
            self._drop_charge()
            self._seq = piece.last
        self._ends += 1
        self._span = max(self._span, 2 * took, _SHORTEST)

    def _weigh(self, piece: Chunk, size: int, took: float) -> None:
        if took > self._span:  # it takes longer than thought: begin again with that
            self._span, self._evidence = 2 * took, 0.0
            return
        self._evidence += log2(self._wait / self._span)
        if self._evidence < SURE:
            return
        self._drop_charge()
        if len(piece.samples) > 1:
            self.limit = min(self.limit, size // 4)  # to find it out costs many sessions
        elif len(self._aside) < _MOST:
            self._aside.append(piece.last)
            self.vouched = False
        else:
            self._aside.clear()
            self._patience = min(2 * self._patience, _MOST_PATIENCE)

    def _drop_charge(self) -> None:
        self._seq = self._ends = 0
        self._span = self._evidence = 0.0

    def _release(self, piece: Chunk) -> None:
        """It is no longer set aside, guilty or not."""
        if piece.last in self._aside:
            self._aside.remove(piece.last)
        if not self._aside:
            self.vouched = False
