"""What all tests share: reproducible hypothesis, Debian's daemons on the path, a plain word about what is skipped."""

from __future__ import annotations

import os
import shutil

import hypothesis
import pytest

# The same examples on every run and machine, and no timed assertions. HYPOTHESIS_PROFILE=explore looks for new ones.
hypothesis.settings.register_profile("steady", derandomize=True, deadline=None)
hypothesis.settings.register_profile("explore", max_examples=2000, deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or "steady")

# An ordinary user's path on Debian lacks the folders where mosquitto is.
os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a broker that is not here."""
    if shutil.which("mosquitto"):
        return
    missing = pytest.mark.skip(reason="there is no mosquitto: sudo apt install mosquitto")
    for item in items:
        if item.get_closest_marker("mosquitto"):
            item.add_marker(missing)
