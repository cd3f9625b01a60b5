"""The commands' side of the control socket: what it believes, and what it does not."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edged.cli import client
from edged.errors import EdgedError

HEAD = b"HTTP/1.1 200 \r\nserver: edged\r\nTransfer-Encoding: chunked\r\n\r\n"
LINE = b'8\r\n{"a":1}\n\r\n'
END = b"0\r\n\r\n"


@contextlib.contextmanager
def saying(path: Path, reply: bytes) -> Iterator[Path]:
    """A server that answers one request with this, and hangs up."""

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65_536)
            connection.sendall(reply)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        yield path
        thread.join()


@pytest.mark.parametrize("parts", [(HEAD, LINE, LINE, END), (HEAD, b'10\r\n{"a":1}\n{"a":1}\n\r\n', END)])
def test_an_answer_that_is_whole(tmp_path: Path, parts: tuple[bytes, ...]) -> None:
    with saying(tmp_path / "s", b"".join(parts)) as path:
        assert list(client.lines(path, "/x")) == [b'{"a":1}\n'] * 2


@pytest.mark.parametrize("cut", [b"", b"2", b'20\r\n{"half":'])
def test_an_answer_that_is_cut_off_is_not_taken_for_a_whole_one(tmp_path: Path, cut: bytes) -> None:
    """Where one piece of it ends, too: half an export looks like a whole one."""
    with saying(tmp_path / "s", HEAD + LINE + cut) as path:
        lines = client.lines(path, "/x")
        assert next(lines) == b'{"a":1}\n'
        with pytest.raises(EdgedError, match="has ended before this was complete"):
            next(lines)


@pytest.mark.parametrize("status", [b"200 OK", b"404 Not Found"])
def test_who_is_not_edged_is_not_believed(tmp_path: Path, status: bytes) -> None:
    reply = b"HTTP/1.1 " + status + b'\r\nServer: nginx\r\nContent-Length: 13\r\n\r\n{"ok": "yes"}'
    with (
        saying(tmp_path / "s", reply) as path,
        pytest.raises(EdgedError, match=r"what answers on .* is not edged; another socket can be named with --socket"),
    ):
        client.call(path, "/v1/status")
    with saying(tmp_path / "t", reply) as path, pytest.raises(EdgedError, match="is not edged"):
        list(client.lines(path, "/v1/tail"))
