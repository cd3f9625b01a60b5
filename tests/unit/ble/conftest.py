from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from pydantic import TypeAdapter

from edged_ble.config import BleDevice

Make = Callable[[Mapping[str, Any]], BleDevice]


@pytest.fixture(scope="session")
def device_of() -> Make:
    """The configuration of one device, checked as `edged check` checks it."""
    adapter = TypeAdapter(BleDevice)

    def make(settings: Mapping[str, Any]) -> BleDevice:
        return adapter.validate_python({"bus": "radio", **settings})

    return make
