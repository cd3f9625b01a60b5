"""What edged makes of the reason codes of MQTT 5 (PUBACK 3.4.2.1, CONNACK 3.2.2.2, DISCONNECT 3.14.2.1). Pure.

The table of the reference page is held against this one by a test.
"""

from __future__ import annotations

from edged.discretion import discreet
from edged.errors import EdgedError, PermanentError, TransientError
from edged.uplink.api import NO_SUBSCRIBER, TOO_LARGE, Outcome, Verdict

PUBACK: dict[int, tuple[Verdict, str, str]] = {
    0x00: (Verdict.DELIVERED, "", "success"),
    0x10: (Verdict.DELIVERED, NO_SUBSCRIBER, "accepted, but nobody subscribes to the topic"),
    0x80: (Verdict.RETRY, "unspecified", "unspecified error"),
    0x83: (Verdict.RETRY, "implementation", "error of the broker's own kind"),
    0x87: (Verdict.REJECTED, "not_authorized", "not authorised to publish to the topic"),
    0x90: (Verdict.REJECTED, "topic", "topic not accepted"),
    0x91: (Verdict.RETRY, "packet_id", "packet identifier in use"),
    0x95: (Verdict.REJECTED, TOO_LARGE, "message too large"),
    0x97: (Verdict.RETRY, "quota", "quota exceeded"),
    0x99: (Verdict.REJECTED, "payload", "payload format not accepted"),
}
"""Code → verdict, short word, meaning. 0x95 is no code of a PUBACK in the standard, but mosquitto sends it."""


def clean(text: str) -> str:
    """What a broker or server wrote, fit for one line of a log, without the secrets that it may repeat."""
    return "".join(char if char.isprintable() else " " for char in discreet(text)[:200])


def puback(code: int, text: str = "") -> Outcome:
    """The outcome that a PUBACK means; `text` is the broker's own reason string. An unknown refusal is tried again."""
    fallback = (Verdict.RETRY, f"code_0x{code:02x}", f"reason code 0x{code:02x}") if code >= 0x80 else PUBACK[0x00]  # noqa: PLR2004  # MQTT: from 0x80 on it is an error
    verdict, reason, meaning = PUBACK.get(code, fallback)
    return Outcome(verdict, reason, f"{meaning} ({clean(text)})" if text else meaning)


UNSUPPORTED_VERSION = 0x84
RETAIN_NOT_SUPPORTED = 0x9A
SESSION_TAKEN_OVER = 0x8E

_ACT: dict[int, str] = {
    0x81: "found our first packet malformed",
    0x82: "found a protocol error in our first packet",
    0x84: "does not speak this version of MQTT: set `protocol: 3.1.1`, or leave it to `auto`",
    0x85: "does not accept the `client_id` {client_id!r}",
    0x86: "refused user name or password: check `username` and `password`",
    0x87: "says not authorised: check `username`, `password` and what the account may do",
    0x8A: "has banned this client",
    0x8C: "wants another way of authentication",
    0x90: "does not accept the `status_topic`",
    0x95: "found our first packet too large",
    0x9A: "does not support retained messages",
    0x9B: "does not support QoS 1, without which delivery is not certain",
    0x9D: "has moved for good{reference}: change `url`",
}
"""CONNACK codes that a person must do something about."""
_WAIT: dict[int, str] = {
    0x80: "refused the session without a reason",
    0x83: "refused the session for a reason of its own",
    0x88: "is not available at the moment",
    0x89: "is busy",
    0x97: "says that a quota is exceeded",
    0x99: "does not accept the payload of the status message",
    0x9C: "wants us to use another server{reference}",
    0x9F: "gets too many connections at the moment",
}
"""CONNACK codes that may go away by themselves."""


def connack(code: int, where: str, *, client_id: str = "", reference: str = "", text: str = "") -> EdgedError:
    """A refused CONNECT as one of our errors."""
    act = _ACT.get(code)
    meaning = act or _WAIT.get(code, f"refused the session with reason code 0x{code:02x}")
    meaning = meaning.format(client_id=client_id, reference=f" ({clean(reference)})" if reference else "")
    line = f"{where} {meaning}" + (f" ({clean(text)})" if text else "")
    return PermanentError(line, reason="refused") if act else TransientError(line, reason="busy")


def disconnect(code: int, name: str, *, client_id: str, text: str = "") -> str:
    """Why the broker ended the session, for people."""
    if code == SESSION_TAKEN_OVER:
        return f"another client uses the same `client_id` {client_id!r}"
    return f"the broker ended the session: {name or hex(code)}" + (f" ({clean(text)})" if text else "")
