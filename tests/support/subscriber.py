"""A subscriber that is not ours: paho-mqtt with its own thread and a persistent session, keeping all it gets."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion


@dataclass(frozen=True, slots=True)
class Got:
    """One message as it came."""

    topic: str
    payload: bytes
    retained: bool
    at: int
    """Microseconds since the epoch."""


class Subscriber:
    """Subscribed while its context lasts; reconnects by itself and keeps its session over that."""

    def __init__(
        self, port: int, *topics: str, host: str = "127.0.0.1", client_id: str = "subscriber",
        login: tuple[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.messages: list[Got] = []
        self._topics = topics
        self._subscribed = threading.Event()
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=client_id, clean_session=False, protocol=paho.MQTTv311
        )
        if login:
            self._client.username_pw_set(*login)
        self._client.reconnect_delay_set(0.1, 0.5)  # type: ignore[arg-type]  # fractions work
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._on_message
        self._address = (host, port)

    def _on_connect(self, client: paho.Client, *_: object) -> None:
        client.subscribe([(topic, 1) for topic in self._topics])

    def _on_message(self, _client: paho.Client, _userdata: object, message: paho.MQTTMessage) -> None:
        self.messages.append(Got(message.topic, bytes(message.payload), message.retain, time.time_ns() // 1000))

    def start(self) -> None:
        """Connect and wait until subscribed."""
        self._client.connect(*self._address, keepalive=20)
        self._client.loop_start()
        assert self._subscribed.wait(10)

    def stop(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()


@contextmanager
def subscribed(
    port: int, *topics: str, client_id: str = "subscriber", login: tuple[str, str] | None = None
) -> Iterator[Subscriber]:
    """A subscriber at work."""
    subscriber = Subscriber(port, *topics, client_id=client_id, login=login)
    subscriber.start()
    try:
        yield subscriber
    finally:
        subscriber.stop()
