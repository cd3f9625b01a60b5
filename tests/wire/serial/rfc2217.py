"""An RFC 2217 server as pyserial's own example has it: one port, one connection, threads."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import serial
import serial.rfc2217


class _Pty(serial.Serial):  # type: ignore[misc]  # pyserial is not typed
    """A pseudo terminal has no modem lines, and the server asks for them."""

    cts = dsr = ri = cd = False

    def _update_rts_state(self) -> None: ...

    def _update_dtr_state(self) -> None: ...


class _Connection:
    def __init__(self, sock: socket.socket) -> None:
        self._sock, self._lock = sock, threading.Lock()

    def write(self, data: bytes) -> None:
        with self._lock:
            self._sock.sendall(data)


@contextlib.contextmanager
def rfc2217_server(port: str) -> Iterator[tuple[int, serial.Serial]]:
    """Serve a port (a device file); yields the TCP port and the open serial port."""
    device = _Pty(port, timeout=0.05)
    listener = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()
    thread = threading.Thread(target=_serve, args=(device, listener, ended), daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1], device
    finally:
        ended.set()
        listener.close()
        thread.join(5)
        assert not thread.is_alive()
        device.close()


def _serve(device: serial.Serial, listener: socket.socket, ended: threading.Event) -> None:
    with contextlib.suppress(OSError):
        sock, _ = listener.accept()
        sock.settimeout(0.05)
        with sock:
            connection = _Connection(sock)
            manager = serial.rfc2217.PortManager(device, connection)
            reader = threading.Thread(target=_from_device, args=(device, manager, connection, ended), daemon=True)
            reader.start()
            while not ended.is_set():
                with contextlib.suppress(TimeoutError):
                    data = sock.recv(1024)
                    if not data:
                        break
                    device.write(b"".join(manager.filter(data)))
            ended.set()
            reader.join(5)


def _from_device(
    device: serial.Serial, manager: serial.rfc2217.PortManager, connection: _Connection, ended: threading.Event
) -> None:
    with contextlib.suppress(OSError):
        while not ended.is_set():
            data = device.read(device.in_waiting or 1)
            if data:
                connection.write(b"".join(manager.escape(data)))
