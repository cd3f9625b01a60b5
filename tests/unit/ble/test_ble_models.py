"""The page of the sensors says what the code and the libraries can do."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version

import pytest

from edged_ble.decoders import KNOWN
from tests.support import ble_models

ROWS = re.findall(
    r"^\| ([^|]+) \| ([^|]+) \| ([^|]*) \| (`[^|]+?`\*?|GATT) \| (`[^|]*`)? ?\|$",
    ble_models.PAGE.read_text("utf-8"),
    re.MULTILINE,
)


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def test_it_lists_over_a_hundred_models_and_each_can_be_decoded() -> None:
    assert len({(maker, model) for maker, model, *_ in ROWS}) > 130
    assert {decoder.strip("`*") for *_, decoder, _ in ROWS} <= {*KNOWN, "bytes", "GATT"}
    profiles = {path.stem for path in ble_models.PROFILES.glob("*.yaml")}
    assert {profile.strip("`") for *_, profile in ROWS if profile} <= profiles


def test_it_is_up_to_date() -> None:
    missing = [package for package in ble_models.PACKAGES if installed(package) is None]
    if missing:
        pytest.skip(f"{missing[0]} is not installed: pip install 'edged[ble-decoders]'")
    written = ble_models.PAGE.read_text("utf-8")
    with_others = [package for package in ble_models.PACKAGES if f"{package} {installed(package)}" not in written]
    if with_others:
        pytest.skip(f"the page was made with another version of {with_others[0]}")
    assert written == ble_models.page(), "run `python -m tests.support.ble_models` and commit the page"
