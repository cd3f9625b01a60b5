"""A cloud's stand-in: a client of a real mosquitto with TLS and client certificates, which plays the service's part.

It answers by the service's published rules, and keeps a list of what the service would not have taken.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import orjson
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from tests.support.mosquitto import Mosquitto
from tests.support.pki import Pki
from tests.support.subscriber import Got


@dataclass(frozen=True, slots=True)
class Secured:
    """A mosquitto that wants TLS, and who may be its client."""

    broker: Mosquitto
    pki: Pki
    tls: bool = True
    """Whether the cloud itself is a client by TLS, or speaks to the broker behind a `FrontDoor`."""

    @property
    def url(self) -> str:
        return f"mqtts://127.0.0.1:{self.broker.port}"

    @property
    def ca(self) -> str:
        return str(self.pki.certificate)

    def client(self, name: str) -> dict[str, Any]:
        """The settings of a client with a certificate of its own."""
        certificate, key = self.pki.issue(name)
        return {"url": self.url, "ca": self.ca, "certificate": str(certificate), "key": str(key)}


@contextmanager
def secured(folder: Path, *, certificates: bool = True, **settings: Any) -> Iterator[Secured]:
    """With `certificates`, mosquitto lets nobody in who has none."""
    pki = Pki(folder / "pki")
    certificate, key = pki.issue("server", "IP:127.0.0.1")
    listener = [f"cafile {pki.certificate}", f"certfile {certificate}", f"keyfile {key}"]
    if certificates:
        listener += ["require_certificate true", "use_identity_as_username true"]
    with Mosquitto(folder / "broker", listener=listener, persistence=True, **settings) as broker:
        yield Secured(broker, pki)


class Cloud:
    """What all the stand-ins do."""

    topics: Sequence[str] = ("#",)

    def __init__(self, where: Secured) -> None:
        self.messages: list[Got] = []
        """What the gateway has sent."""
        self.violations: list[str] = []
        """What the service would not have taken."""
        self._where = where
        self._own: list[tuple[str, bytes]] = []
        self._subscribed = threading.Event()
        self.lock = threading.RLock()
        self._client = self._made("the-cloud")
        self._client.reconnect_delay_set(0.1, 0.5)  # type: ignore[arg-type]  # fractions work
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._on_message

    def _made(self, client_id: str) -> paho.Client:
        client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=client_id, clean_session=False, protocol=paho.MQTTv311
        )
        if self._where.tls:
            certificate, key = self._where.pki.issue(client_id)
            client.tls_set(ca_certs=self._where.ca, certfile=str(certificate), keyfile=str(key))
        return client

    def _on_connect(self, client: paho.Client, *_: object) -> None:
        client.subscribe([(topic, 1) for topic in self.topics])

    def _on_message(self, _client: paho.Client, _userdata: object, message: paho.MQTTMessage) -> None:
        topic, payload = message.topic, bytes(message.payload)
        with self.lock:
            if (topic, payload) in self._own:
                self._own.remove((topic, payload))
                return
            self.messages.append(Got(topic, payload, message.retain, time.time_ns() // 1000))
            broken = self.rule(topic, payload, retained=message.retain)
            if broken:
                self.violations.append(f"{topic}: {broken}")
            else:
                self.serve(topic, payload)

    def rule(self, topic: str, payload: bytes, *, retained: bool) -> str:
        """Which of the service's rules a message breaks; empty if none."""
        raise NotImplementedError

    def serve(self, topic: str, payload: bytes) -> None:
        """What the service does with a message that it takes."""

    def say(self, topic: str, document: object = None) -> None:
        """Publish something as the service."""
        payload = b"" if document is None else document if isinstance(document, bytes) else orjson.dumps(document)
        with self.lock:
            self._own.append((topic, payload))
            self._client.publish(topic, payload, qos=1)

    def documents(self, prefix: str) -> list[dict[str, Any]]:
        """The JSON that came on topics which begin so."""
        with self.lock:
            return [orjson.loads(one.payload) for one in self.messages if one.topic.startswith(prefix)]

    def __enter__(self) -> Self:
        self._client.connect("127.0.0.1", self._where.broker.port, keepalive=20)
        self._client.loop_start()
        assert self._subscribed.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()
