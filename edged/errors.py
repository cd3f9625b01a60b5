"""What went wrong, by what the caller should do about it.

    EdgedError
    ├── ConfigError      a person must change something; retrying cannot help
    ├── TransientError   the weather: retry later, say so once
    └── PermanentError   this item will never succeed; set it aside, go on with the next

Foreign exceptions are translated into one of these where they enter our code.
"""

from __future__ import annotations


class EdgedError(Exception):
    """Base of every error that edged raises on purpose."""


class ConfigError(EdgedError):
    """The configuration, or the machine it runs on, must be changed by a person."""


class TransientError(EdgedError):
    """It may well succeed later: no answer, no connection, a busy device.

    `reason` is one of the short words of `edged.model.Reason`; it becomes the quality of the points concerned.
    """

    def __init__(self, message: str, *, reason: str = "timeout") -> None:
        super().__init__(message)
        self.reason = reason


class PermanentError(EdgedError):
    """This one item can never succeed (refused, too large, cannot be encoded).

    `reason` is a short word for counters and dead letters.
    """

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason
