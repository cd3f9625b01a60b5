"""Run by an interpreter that has Home Assistant: holds discovery messages against Home Assistant's own schemas.

Standard input: one JSON array [topic, configuration] a line. Standard output: how many were accepted.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from importlib import import_module


async def main() -> None:
    """Fails with Home Assistant's complaint at the first configuration that it does not accept."""
    hass = import_module("homeassistant.core").HomeAssistant(tempfile.gettempdir())
    import_module("homeassistant.helpers.frame").async_setup(hass)
    accepted = 0
    for line in sys.stdin:
        topic, config = json.loads(line)
        component = import_module(f"homeassistant.components.mqtt.{topic.split('/')[1]}")
        component.DISCOVERY_SCHEMA(config)
        accepted += 1
    sys.stdout.write(f"{accepted}\n")


if __name__ == "__main__":
    asyncio.run(main())
