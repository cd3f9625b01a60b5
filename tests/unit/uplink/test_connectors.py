from __future__ import annotations

import pytest

from edged.errors import ConfigError
from edged.uplink.api import Connector
from edged.uplink.connectors import connector_names, load_connector
from edged.uplink.connectors.mqtt import MqttConnection


def test_our_connectors_are_found_by_name() -> None:
    assert "mqtt" in connector_names()
    connector = load_connector("mqtt")
    assert isinstance(connector, Connector)
    assert connector.connection_config is MqttConnection


@pytest.mark.parametrize("name", ["mqt", "MQTT", "mqtt5"])
def test_a_typo_gets_a_suggestion(name: str) -> None:
    with pytest.raises(ConfigError, match="did you mean 'mqtt'"):
        load_connector(name)


@pytest.mark.parametrize("name", ["", "../mqtt", "os", "zzz"])
def test_a_name_never_reaches_beyond_the_connectors(name: str) -> None:
    with pytest.raises(ConfigError, match="there is no connector"):
        load_connector(name)
