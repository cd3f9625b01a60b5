"""Talking to a running daemon over its control socket."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from edged import paths
from edged.cli import NoDaemonError
from edged.errors import ConfigError, EdgedError

_PART = 65_536


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, timeout: float | None) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def config_path(given: str | None, socket: str | None) -> Path:
    """The configuration of a gateway that is looked at.

    As given, else `$EDGED_CONFIG`, else the file of the gateway that runs, else /etc/edged/edged.yaml. Raises
    ConfigError if there is none of these.
    """
    if not given and not os.environ.get("EDGED_CONFIG"):
        with contextlib.suppress(EdgedError):
            running = call(paths.socket_path(socket), "/v1/status", timeout=5).get("config") or {}
            if running.get("file"):
                return Path(running["file"])
    return paths.config_path(given)


def call(path: Path, target: str, *, method: str = "GET", timeout: float = 60) -> Any:
    """The parsed answer to one request. Raises NoDaemonError; ConfigError, EdgedError with the daemon's words."""
    with closing(_open(path, method, target, timeout)) as connection:
        try:
            response = _answer(connection, path)
            body = response.read()
            record = json.loads(body)
        except TimeoutError as exc:
            raise EdgedError(f"the gateway did not answer within {timeout:g} s") from exc
        except (OSError, http.client.HTTPException, ValueError) as exc:
            raise EdgedError("the gateway ended before it had answered") from exc
    if response.status != http.client.OK:
        raise _refusal(body, response.status)
    return record


def _refusal(body: bytes, status: int) -> EdgedError:
    """The daemon's words; a ConfigError where what was named is not there, as without a daemon."""
    try:
        told = str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        told = f"the daemon answered {status}"
    return ConfigError(told) if status == http.client.NOT_FOUND else EdgedError(told)


def lines(path: Path, target: str, *, method: str = "GET") -> Iterator[bytes]:
    """The lines of an endless answer. Raises NoDaemonError; ConfigError, EdgedError with the daemon's words."""
    with closing(_open(path, method, target, None)) as connection:
        try:
            response = _answer(connection, path)
            if response.status != http.client.OK:
                raise _refusal(response.read(), response.status)
            yield from _whole_lines(response)
        except (OSError, http.client.HTTPException) as exc:
            raise EdgedError("the gateway has ended before this was complete") from exc


def _answer(connection: http.client.HTTPConnection, path: Path) -> http.client.HTTPResponse:
    """Raises EdgedError if somebody else answers, who may say anything."""
    response = connection.getresponse()
    if response.getheader("server") != "edged":
        raise EdgedError(f"what answers on {path} is not edged; another socket can be named with --socket")
    return response


def _whole_lines(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """Iterating over a response takes one that is cut off for one that ends: `read1` raises IncompleteRead."""
    rest = b""
    while part := response.read1(_PART):
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            yield line + b"\n"
    if rest:
        yield rest


def _open(path: Path, method: str, target: str, timeout: float | None) -> http.client.HTTPConnection:
    connection = _UnixConnection(path, timeout)
    try:
        connection.request(method, target)
    except PermissionError as exc:
        connection.close()
        raise NoDaemonError(
            f"you may not open {path}: become a member of the group `edged` (sudo usermod -aG edged $USER), or use sudo"
        ) from exc
    except OSError as exc:
        connection.close()
        raise NoDaemonError(
            f"no edged answers on {path} ({exc.strerror or exc}); is the service running? (systemctl status edged) "
            "Another socket can be named with --socket"
        ) from exc
    return connection
