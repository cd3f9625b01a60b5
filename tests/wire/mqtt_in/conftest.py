"""A broker, and somebody who publishes there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.mosquitto import Mosquitto
from tests.support.mqttdevices import Publisher, publisher


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path / "broker") as made:
        yield made


@pytest.fixture
def devices(broker: Mosquitto) -> Iterator[Publisher]:
    with publisher(broker.port) as made:
        yield made
