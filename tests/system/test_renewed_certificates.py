"""A client certificate that is renewed on the disk while the connection lasts."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from edged.buffer.log import Buffer
from edged.clock import boot_id
from edged.config.model import BufferConfig
from edged.config.types import Duration, FileName
from edged.uplink.brokers import broker as broker_of
from edged.uplink.connectors.mqtt import CONNECTOR, Announcements, MqttConnection
from edged.uplink.forwarder import Forwarder
from edged.uplink.links.mqtt import MqttLink
from edged.uplink.upstream import pacing
from tests.support.forwarding import Gateway, context_of
from tests.support.mosquitto import Mosquitto
from tests.support.pki import Pki
from tests.support.waiting import until

pytestmark = pytest.mark.mosquitto


async def test_a_renewed_certificate_is_used_at_once_and_a_torn_one_not_at_all(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    authority = Pki(tmp_path / "ca")
    server, server_key = authority.issue("localhost", "DNS:localhost")
    old, new = authority.issue("old"), authority.issue("new")
    certificate, key = tmp_path / "client.pem", tmp_path / "client.key"
    shutil.copy(old[0], certificate)
    shutil.copy(old[1], key)
    listener = [
        f"cafile {authority.certificate}", f"certfile {server}", f"keyfile {server_key}", "require_certificate true",
        "use_identity_as_username true",
    ]  # fmt: skip
    with Mosquitto(tmp_path / "broker", listener=listener) as broker:
        config = MqttConnection(
            connector="mqtt", url=f"mqtts://localhost:{broker.port}", ca=FileName(authority.certificate),
            certificate=FileName(certificate), key=FileName(key), retry_max=Duration(0.2),
        )  # fmt: skip
        context = context_of()
        link = MqttLink(
            "cloud", replace(broker_of(config, context), renewal=0.05), Announcements(config, context), pacing(config)
        )
        buffer = Buffer(tmp_path / "b.db", BufferConfig(flush=Duration(0.1)), ["cloud"], boot=boot_id())
        await buffer.start()
        one = Gateway(buffer, Forwarder("cloud", CONNECTOR.encoder(config, context), link, buffer))
        running = asyncio.create_task(one.forwarder.run())
        try:
            await until(lambda: one.forwarder.state().connected)
            one.poll(1)
            await one.drained()
            shutil.copy(new[0], certificate)  # for a moment it does not belong to the key
            await until(lambda: any("cannot be used yet" in line for line in caplog.messages))
            assert one.forwarder.state().connected
            shutil.copy(new[1], key)
            await until(lambda: "u'new'" in broker.log)
            one.poll(1)
            await one.drained()
            assert (await one.saved()) == {"delivered": 1000, "pending": 0, "dead": 0}
        finally:
            running.cancel()
            await asyncio.wait([running])
            await buffer.stop()
    assert len([line for line in caplog.messages if "cannot be used yet" in line]) == 1
    assert len([line for line in caplog.messages if "has been renewed" in line]) == 1
