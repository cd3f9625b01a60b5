"""Finds the message over which a receiver ends the session, if it is one message. Pure.

MQTT 3.1.1 has no other way to refuse a message than to hang up, and some brokers do it with MQTT 5 too (a size limit
that was not announced). Sent again and again, such a message would block everything behind it and cost data for
nothing; but a receiver that hangs up may as well be in trouble itself. So: after a session that was ended with messages
in flight, each lane sends its first message alone. One over which three sessions ended that way is first divided, since
size is the usual cause; a single sample is set aside. If the receiver then takes the next message, the sample is
guilty; if not, the receiver is in trouble and nothing is held against the message.
"""

from __future__ import annotations

from dataclasses import dataclass

from edged.uplink.api import CLOSED, Chunk

STRIKES = 3
_NO_LIMIT = 2**31


@dataclass(slots=True)
class Suspicion:
    """What is held against messages of one connection."""

    aroused: bool = False
    """The receiver ended the last session with messages in flight."""
    limit: int = _NO_LIMIT
    """Payloads of more bytes are to be divided."""
    aside: int = 0
    """The seq of a single sample that is set aside; 0 if none is."""
    _seq: int = 0
    _strikes: int = 0

    def died(self, piece: Chunk, size: int, reason: str, *, alone: bool) -> None:
        """The session ended with this message in flight. `size`: bytes of its payload."""
        if reason != CLOSED:
            return
        self.aroused = True
        if not alone:
            return
        if self.aside:  # the next one fared no better
            self.aside = self._seq = self._strikes = 0
            return
        if self._seq != piece.last:
            self._seq, self._strikes = piece.last, 0
        self._strikes += 1
        if self._strikes < STRIKES:
            return
        self._strikes = 0
        if len(piece.samples) > 1:
            self.learn_limit(size)
        else:
            self.aside = piece.last

    def learn_limit(self, size: int) -> None:
        """A payload of so many bytes is too large; one of half of them may not be."""
        self.limit = min(self.limit, size * 7 // 8)

    def convicted(self) -> None:
        """The sample that was set aside is guilty; it was not a matter of size."""
        self.limit = _NO_LIMIT
        self.aside = self._seq = self._strikes = 0
