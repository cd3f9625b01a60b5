"""Where log lines go: to a person's terminal with the time, to journald with fields to search by."""

from __future__ import annotations

import logging
import os
import socket
import sys

from edged.discretion import discreet

_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
JOURNAL = "/run/systemd/journal/socket"
_LONGEST = 32_768
"""Characters of a message: what is longer does not fit into a datagram."""


class _Discreet(logging.Formatter):
    """Writes no secret."""

    def format(self, record: logging.LogRecord) -> str:
        return discreet(super().format(record))


class JournalHandler(logging.Handler):
    """Hands records to journald with fields of their own, such as `EDGED_SUBJECT=line-a`.

    `journalctl -u edged EDGED_SUBJECT=line-a` then shows one bus, device, connection or flow. What journald does not
    take goes to standard error, with the priority in front (man 3 sd-daemon). systemd's native journal protocol.
    """

    def __init__(self, path: str = JOURNAL) -> None:
        super().__init__()
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)  # noqa: FBT003  # the library's signature
        self.setFormatter(_Discreet("%(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Never waits and never raises: a log that is full must not hold up a poll."""
        text = self.format(record)
        try:
            self._socket.sendto(_datagram(record, text[:_LONGEST]), self._path)
        except OSError:
            priority = _PRIORITIES.get(record.levelno, 6)
            print("\n".join(f"<{priority}>{line}" for line in text.splitlines()), file=sys.stderr)  # noqa: T201  # a log

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
        super().close()


def _datagram(record: logging.LogRecord, text: str) -> bytes:
    fields = {
        "MESSAGE": text,
        "PRIORITY": str(_PRIORITIES.get(record.levelno, 6)),
        "SYSLOG_IDENTIFIER": "edged",
        "EDGED_LOGGER": record.name,
        "CODE_FILE": record.pathname,
        "CODE_LINE": str(record.lineno),
        "CODE_FUNC": record.funcName or "",
    }
    if isinstance(record.args, tuple) and record.args and record.msg.startswith("%s: "):
        fields["EDGED_SUBJECT"] = str(record.args[0])
    return b"".join(_field(name, value.encode("utf-8", "replace")) for name, value in fields.items())


def _field(name: str, value: bytes) -> bytes:
    if b"\n" in value:
        return name.encode() + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"
    return name.encode() + b"=" + value + b"\n"


def _is_journal(descriptor: int) -> bool:
    """Whether what is written there goes to journald (man 5 systemd.exec, JOURNAL_STREAM)."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def set_up(level: str = "info") -> None:
    """Send edged's log to standard error. Libraries are heard from warnings up."""
    handler: logging.Handler
    if _is_journal(2):
        handler = JournalHandler()
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_Discreet("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("edged").setLevel(level.upper())
