"""The way to a broker, against a real mosquitto: name, port, certificate, login."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edged.config.load import load
from edged.doctor.check import Check
from edged.doctor.network import check_connections
from tests.support.httpserver import HttpServer, context_for
from tests.support.mosquitto import Mosquitto, free_port, password_file
from tests.support.pki import Pki

pytestmark = pytest.mark.mosquitto


def checks(folder: Path, connector: str = "mqtt", **connection: Any) -> dict[str, Check]:
    """What is said of one connection."""
    settings = "".join(f", {key}: {value}" for key, value in connection.items())
    config = folder / "edged.yaml"
    config.write_text(f"gateway: {{id: g}}\nconnections:\n  c: {{connector: {connector}{settings}}}\n")
    loaded = load(config)
    assert loaded.config is not None, loaded.problems
    return {check.name.removesuffix(" c"): check for check in check_connections(loaded.config, folder)}


def test_a_login_is_tried_and_its_answer_told_in_words(tmp_path: Path) -> None:
    users = password_file(tmp_path / "users", plant="right")
    with Mosquitto(tmp_path / "m", anonymous=False, options=[f"password_file {users}"]) as broker:
        url = f"'mqtt://127.0.0.1:{broker.port}'"
        good = checks(tmp_path, url=url, username="plant", password="right")
        assert {name: check.state for name, check in good.items()} == {"dns": "ok", "port": "ok", "login": "ok"}
        for protocol in ("auto", "3.1.1"):
            wrong = checks(tmp_path, url=url, username="plant", password="wrong", protocol=f"'{protocol}'")["login"]
            assert wrong.state == "problem"
            assert "check `username`" in wrong.evidence
            assert "wrong" not in wrong.evidence.replace("wrong_", "")


def test_what_is_in_the_way_is_named(tmp_path: Path) -> None:
    assert checks(tmp_path, url="'mqtt://nowhere.invalid'")["dns"].state == "problem"
    assert "refused" in checks(tmp_path, url=f"'mqtt://127.0.0.1:{free_port()}'")["port"].evidence
    with Mosquitto(tmp_path / "m") as broker:
        assert checks(tmp_path, url=f"'mqtts://127.0.0.1:{broker.port}'")["tls"].state == "problem"  # speaks no TLS


def test_a_missing_secret_is_the_first_thing_said(tmp_path: Path) -> None:
    (found,) = checks(tmp_path, url="'mqtt://127.0.0.1:1'", username="u", password="!secret nothere").values()
    assert (found.state, "there is no secret `nothere`" in found.evidence) == ("problem", True)


@pytest.mark.parametrize(("days", "state"), [(300, "ok"), (10, "warning")])
def test_a_certificate_that_ends_soon_is_a_warning(tmp_path: Path, days: int, state: str) -> None:
    authority = Pki(tmp_path / "ca")
    certificate, key = authority.issue("broker", "IP:127.0.0.1", days=days)
    listener = [f"certfile {certificate}", f"keyfile {key}", f"cafile {authority.certificate}"]
    with Mosquitto(tmp_path / "m", listener=listener) as broker:
        url = f"'mqtts://127.0.0.1:{broker.port}'"
        trusted = checks(tmp_path, url=url, ca=str(authority.certificate))
        assert (trusted["tls"].state, trusted["login"].state) == (state, "ok")
        assert checks(tmp_path, url=url)["tls"].state == "problem"  # the system does not know this authority
        hub = checks(tmp_path, "azure-iot-hub", url=url, ca=str(authority.certificate), shared_access_key="Zm9v")
        assert (hub["tls"].state, hub["login"].state) == (state, "n/a")  # its token is for the gateway alone


def test_a_server_is_looked_for_and_its_certificate_checked(tmp_path: Path) -> None:
    authority = Pki(tmp_path / "ca")
    with HttpServer(tls=context_for(authority)) as server:
        found = checks(tmp_path, "http", url=f"'{server.url}/in'", ca=str(authority.certificate))
        assert {name: check.state for name, check in found.items()} == {
            "dns": "ok", "port": "ok", "tls": "warning", "login": "n/a",
        }  # fmt: skip
    (named,) = checks(tmp_path, "http", url="'https://{tenant}.example.com'").values()
    assert (named.state, "made of names" in named.evidence) == ("n/a", True)
