"""What all tests share: reproducible hypothesis, Debian's daemons on the path, a plain word about what is skipped."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

import hypothesis
import pytest

from tests.support.virtualtime import VirtualTimeLoop

# The same examples on every run and machine, and no timed assertions. HYPOTHESIS_PROFILE=explore looks for new ones.
hypothesis.settings.register_profile("steady", derandomize=True, deadline=None)
hypothesis.settings.register_profile("explore", max_examples=2000, deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or "steady")

# Output is kept back as at a user's, whatever the developer's environment says.
os.environ.pop("PYTHONUNBUFFERED", None)
# An ordinary user's path on Debian lacks the folders where mosquitto is.
os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


# A shell that starts the tests in the background has them, and so whatever they start, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

_TIMING = (Path("wire", "serial"), Path("wire", "serial_adapter"))
"""Tests against real time, as of a paced line: what they judge is blurred where other tests run beside them."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """What `.ci/test` asks for: the two kinds one after the other, and what failed once more."""
    parser.addoption("--timing", choices=("all", "none", "only"), default="all", help="tests against a paced line")
    parser.addoption("--again", action="store_true", help="what failed is tried again: refuse if a failure is final")


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Time is virtual where a test says so."""
    return {"loop": VirtualTimeLoop if item.get_closest_marker("virtual_time") else asyncio.new_event_loop}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Choose by --timing, and skip what needs a broker that is not here."""
    if config.getoption("--again") and any(item.get_closest_marker("final") for item in items):
        raise pytest.UsageError("a failure of what is marked `final` is not to be tried away")
    chosen = config.getoption("--timing")
    if chosen != "all":
        places = [Path(__file__).parent / place for place in _TIMING]
        timed = [item for item in items if any(item.path.is_relative_to(place) for place in places)]
        left = timed if chosen == "none" else [item for item in items if item not in set(timed)]
        items[:] = [item for item in items if item not in set(left)]
        config.hook.pytest_deselected(items=left)
    if shutil.which("mosquitto"):
        return
    missing = pytest.mark.skip(reason="there is no mosquitto: sudo apt install mosquitto")
    for item in items:
        if item.get_closest_marker("mosquitto"):
            item.add_marker(missing)
