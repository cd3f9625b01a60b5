"""Modbus/TCP Security against pymodbus' TLS server, with certificates made for the test."""

from __future__ import annotations

import shutil
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from edged.adapter import ConfigError, TransientError
from tests.support.modbus import device, holding, opened, pymodbus_server, values
from tests.support.pki import Pki

POINTS = holding(3, 4)
RIGHT = {"h3": 3, "h4": 4}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("stranger"))


def server_context(authority: Pki, *, client_too: bool = False) -> ssl.SSLContext:
    certificate, key = authority.issue("server", "DNS:plc.test", "IP:127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    if client_too:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(authority.certificate)
    return context


@pytest.fixture(scope="module")
def port(authority: Pki) -> Iterator[int]:
    with pymodbus_server("tls", 1, sslctx=server_context(authority)) as port:
        yield port


@pytest.fixture(scope="module")
def strict_port(authority: Pki) -> Iterator[int]:
    with pymodbus_server("tls", 1, sslctx=server_context(authority, client_too=True)) as port:
        yield port


async def test_a_trusted_server_is_read(authority: Pki, port: int) -> None:
    async with opened("tls", port, device(POINTS, timeout=2), ca=str(authority.certificate)) as bus:
        job = bus.prepare("m", list(POINTS))
        assert [values(await bus.poll(job)) for _ in range(3)] == [RIGHT] * 3


async def test_the_server_may_have_another_name(authority: Pki, port: int) -> None:
    settings = {"ca": str(authority.certificate), "server_name": "plc.test"}
    async with opened("tls", port, device(POINTS, timeout=2), **settings) as bus:
        assert values(await bus.poll(bus.prepare("m", list(POINTS)))) == RIGHT


async def test_a_server_with_the_wrong_name_is_not_talked_to(authority: Pki, port: int) -> None:
    settings = {"ca": str(authority.certificate), "server_name": "other.test"}
    async with opened("tls", port, device(POINTS, timeout=2), **settings) as bus:
        with pytest.raises(TransientError, match=r"not trusted \(.*other.test.*`server_name`") as caught:
            await bus.poll(bus.prepare("m", list(POINTS)))
    assert caught.value.reason == "unreachable"


async def test_a_server_of_another_authority_is_not_talked_to(stranger: Pki, port: int) -> None:
    async with opened("tls", port, device(POINTS, timeout=2), ca=str(stranger.certificate)) as bus:
        with pytest.raises(TransientError, match=r"not trusted .*check `ca`"):
            await bus.poll(bus.prepare("m", list(POINTS)))


async def test_without_a_ca_the_system_decides(port: int) -> None:
    async with opened("tls", port, device(POINTS, timeout=2)) as bus:
        with pytest.raises(TransientError, match="not trusted"):
            await bus.poll(bus.prepare("m", list(POINTS)))


async def test_verification_can_be_switched_off(port: int) -> None:
    async with opened("tls", port, device(POINTS, timeout=2), verify=False) as bus:
        assert values(await bus.poll(bus.prepare("m", list(POINTS)))) == RIGHT


async def test_our_own_certificate_is_shown(authority: Pki, strict_port: int) -> None:
    certificate, key = authority.issue("gateway", "DNS:gateway.test")
    settings = {"ca": str(authority.certificate), "certificate": str(certificate), "key": str(key)}
    async with opened("tls", strict_port, device(POINTS, timeout=2), **settings) as bus:
        assert values(await bus.poll(bus.prepare("m", list(POINTS)))) == RIGHT


async def test_a_server_that_wants_our_certificate_and_gets_none(authority: Pki, strict_port: int) -> None:
    async with opened("tls", strict_port, device(POINTS, timeout=2), ca=str(authority.certificate)) as bus:
        with pytest.raises(TransientError, match="want a certificate of ours"):
            await bus.poll(bus.prepare("m", list(POINTS)))


async def test_a_server_that_speaks_no_tls() -> None:
    with pymodbus_server("tcp", 1) as port:
        async with opened("tls", port, device(POINTS), timeout=0.5) as bus:
            with pytest.raises(TransientError) as caught:
                await bus.poll(bus.prepare("m", list(POINTS)))
    assert caught.value.reason == "unreachable"


@pytest.mark.parametrize("key", ["ca", "certificate"])
async def test_a_file_that_is_not_there_is_named(key: str, tmp_path: Path) -> None:
    missing = tmp_path / "nothing.pem"
    with pytest.raises(ConfigError, match=rf"cannot read {missing}"):
        async with opened("tls", 1, device(POINTS), **{key: str(missing)}):
            pass


@pytest.mark.parametrize("key", ["ca", "certificate"])
async def test_a_file_that_is_no_certificate_is_named(key: str, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("not a certificate\n")
    with pytest.raises(ConfigError, match=rf"`{key}: {wrong}`"):
        async with opened("tls", 1, device(POINTS), **{key: str(wrong)}):
            pass


async def test_a_renewed_ca_is_used_without_a_restart(authority: Pki, stranger: Pki, port: int, tmp_path: Path) -> None:
    trusted = tmp_path / "ca.pem"
    shutil.copy(stranger.certificate, trusted)
    async with opened("tls", port, device(POINTS, timeout=2), ca=str(trusted)) as bus:
        job = bus.prepare("m", list(POINTS))
        with pytest.raises(TransientError, match="not trusted"):
            await bus.poll(job)
        trusted.unlink()
        with pytest.raises(TransientError, match=f"cannot read {trusted}"):
            await bus.poll(job)
        shutil.copy(authority.certificate, trusted)
        assert values(await bus.poll(job)) == RIGHT
