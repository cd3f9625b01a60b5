"""The HTTP link over TLS: certificates that are right, renewed, or wrong."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edged.buffer.log import Buffer
from edged.clock import boot_id
from edged.config.model import BufferConfig
from edged.config.types import Duration, FileName
from edged.uplink.connectors.http import CONNECTOR, HttpConnection
from edged.uplink.forwarder import Forwarder
from edged.uplink.links.http import HttpLink
from edged.uplink.state import State
from tests.support.forwarding import Gateway, context_of
from tests.support.httpsending import sending
from tests.support.httpserver import (
    HttpServer,
    context_for,
)
from tests.support.pki import Pki
from tests.support.waiting import until


async def test_tls_with_a_client_certificate_that_is_renewed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    authority = Pki(tmp_path / "ca")
    old, new = authority.issue("old"), authority.issue("new")
    certificate, key = tmp_path / "client.pem", tmp_path / "client.key"
    shutil.copy(old[0], certificate)
    shutil.copy(old[1], key)
    files: dict[str, Any] = {
        "ca": FileName(authority.certificate),
        "certificate": FileName(certificate),
        "key": FileName(key),
    }
    with HttpServer(tls=context_for(authority, clients=True)) as server:
        config = HttpConnection(connector="http", url=server.url, **files)
        made = CONNECTOR.link(config, context_of())
        assert isinstance(made, HttpLink)
        link = HttpLink("cloud", replace(made.server, renewal=0.0), made.pacing)
        buffer = Buffer(tmp_path / "b.db", BufferConfig(flush=Duration(0.1)), ["cloud"], boot=boot_id())
        await buffer.start()
        one = Gateway(buffer, Forwarder("cloud", CONNECTOR.encoder(config, context_of()), link, buffer))
        running = asyncio.create_task(one.forwarder.run())
        try:
            one.poll(1)
            await one.drained()
            assert one.forwarder.state().detail.startswith("HTTP/1.1, TLSv1.")
            shutil.copy(new[0], certificate)  # for a moment it does not belong to the key
            one.poll(1)
            await one.drained()
            shutil.copy(new[1], key)
            one.poll(1)
            await one.drained()
            assert (await one.saved()) == {"delivered": 1500, "pending": 0, "dead": 0}
        finally:
            running.cancel()
            await asyncio.wait([running])
            await buffer.stop()
    assert [taken.peer for taken in server.taken] == ["old", "old", "new"]
    assert len([line for line in caplog.messages if "cannot be used yet" in line]) == 1
    assert len([line for line in caplog.messages if "has been renewed" in line]) == 1


@pytest.mark.parametrize(
    ("names", "settings", "says"),
    [
        ("DNS:localhost", {}, "issued by an authority that is not trusted"),
        ("DNS:elsewhere", {"ca": True}, "is for another name"),
        ("DNS:localhost", {"ca": True, "clients": True}, "client `certificate`"),
        ("DNS:elsewhere", {"ca": True, "server_name": "elsewhere"}, ""),
        ("DNS:elsewhere", {"insecure": True}, ""),
    ],
)
async def test_tls_that_does_not_fit_is_told(tmp_path: Path, names: str, settings: dict[str, Any], says: str) -> None:
    authority = Pki(tmp_path / "ca")
    clients = settings.pop("clients", False)
    if settings.pop("ca", False):
        settings["ca"] = FileName(authority.certificate)
    with HttpServer(tls=context_for(authority, names, clients=clients)) as server:
        async with sending(tmp_path, server.url, **settings) as one:
            one.poll(1)
            if says:
                await until(lambda: one.forwarder.state().state is State.AUTHENTICATION_FAILED)
                assert says in one.forwarder.state().last_error
            else:
                await one.drained()
            assert (await one.saved())["dead"] == 0


async def test_plain_http_where_tls_is_spoken_and_the_other_way_round(tmp_path: Path) -> None:
    authority = Pki(tmp_path / "ca")
    with HttpServer(tls=context_for(authority)) as secure, HttpServer() as plain:
        async with sending(tmp_path, f"https://localhost:{plain.port}", ca=FileName(authority.certificate)) as one:
            await until(lambda: "does not speak TLS on this port" in one.forwarder.state().last_error)
        async with sending(tmp_path, f"http://localhost:{secure.port}") as one:
            one.poll(1)
            await until(lambda: one.forwarder.state().last_error)
            assert (await one.saved())["delivered"] == 0
