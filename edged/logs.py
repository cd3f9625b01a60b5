"""Where log lines go: to a person's terminal with the time, to journald with the priority it understands."""

from __future__ import annotations

import logging
import os
import sys
from urllib.parse import quote

_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


_SHORTEST = 4
"""Characters. What is shorter would also be found in words that are no secret."""
_hidden: set[str] = set()


def hide(secret: str) -> None:
    """Never write this text: not even where a library, a broker or a traceback repeats it."""
    if len(secret) >= _SHORTEST:
        _hidden.update((secret, repr(secret)[1:-1], quote(secret, safe="")))


class _Discreet(logging.Formatter):
    """Writes no secret."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        for secret in _hidden:
            if secret in text:
                text = text.replace(secret, "***")
        return text


class _Journal(_Discreet):
    """Prefixes each line with the syslog priority (man 3 sd-daemon)."""

    def format(self, record: logging.LogRecord) -> str:
        priority = _PRIORITIES.get(record.levelno, 6)
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).splitlines())


def set_up(level: str = "info") -> None:
    """Send edged's log to standard error. Libraries are heard from warnings up."""
    handler = logging.StreamHandler(sys.stderr)
    if "JOURNAL_STREAM" in os.environ and not sys.stderr.isatty():
        handler.setFormatter(_Journal("%(name)s: %(message)s"))
    else:
        handler.setFormatter(_Discreet("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("edged").setLevel(level.upper())
