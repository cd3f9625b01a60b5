"""Raw reads through the local API: one transaction each, on the bus that the gateway owns."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from edged.adapter import RawAnswer, RawRequest
from edged.errors import PermanentError, TransientError

MOST_SECONDS = 10.0
"""The longest that one request may wait for its answer; the polls wait meanwhile."""

Probe = Callable[[str, RawRequest], Awaitable[RawAnswer]]
"""Raises KeyError for a bus that is not open, and what `edged.adapter.Prober.read_raw` does."""


def request_from(options: Mapping[str, Sequence[str]]) -> RawRequest:
    """What the options `unit`, `what`, `address`, `count` and `timeout` ask for. Raises ValueError."""
    given = {key: options[key][0] for key in ("unit", "what", "address", "count", "timeout") if options.get(key)}
    if "unit" not in given or "what" not in given:
        raise ValueError("`unit` and `what` are needed")
    timeout = float(given.get("timeout", "1"))
    if not 0 < timeout <= MOST_SECONDS:
        raise ValueError(f"`timeout` is at most {MOST_SECONDS:g} seconds")
    return RawRequest(
        int(given["unit"]), given["what"], int(given.get("address", "0")), int(given.get("count", "1")), timeout
    )


async def answer(probe: Probe, bus: str, request: RawRequest) -> dict[str, Any]:
    """The answer, or what came instead. Raises KeyError, ConfigError."""
    try:
        got = await probe(bus, request)
    except PermanentError as exc:
        return {"error": str(exc), "reason": exc.reason, "refused": True, "code": getattr(exc, "code", 0)}
    except TransientError as exc:
        return {"error": str(exc), "reason": str(exc.reason), "refused": False, "code": getattr(exc, "code", 0)}
    return {"words": list(got.words), "texts": dict(got.texts)}
