"""Azure IoT Hub's and DPS's part, after Microsoft's pages on MQTT: who comes in, what may be said, what is answered."""

from __future__ import annotations

import base64
import hmac
import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote

from tests.support.cloud import Cloud, Secured
from tests.support.frontdoor import Admission, Connect, FrontDoor
from tests.support.mosquitto import Mosquitto
from tests.support.pki import Pki

HOST, SCOPE = "127.0.0.1", "0ne00000001"
KEY = base64.b64encode(b"the key of the device plant-7!!!").decode()
GROUP_KEY = base64.b64encode(b"the key of the enrolment group!!").decode()
_RID = re.compile(r"\$rid=([^&]+)")


def signature_of(key: str, text: str) -> str:
    return base64.b64encode(hmac.digest(base64.b64decode(key), text.encode(), "sha256")).decode()


class Azure(Cloud):
    """A hub with one device, and the provisioning service that may assign it."""

    topics = ("#", "$iothub/#", "$dps/#")

    def __init__(self, where: Secured, device: str = "plant-7", *, longest: float = 86_400) -> None:
        super().__init__(where)
        self.device = device
        self.registration = "plant-7"
        self.certificates = False
        self.longest = longest
        self.desired: dict[str, Any] = {"$version": 1}
        self.reported: dict[str, Any] = {"$version": 1}
        self.metadata = False
        """Whether the twin that a device gets has its metadata."""
        self.answers: dict[str, tuple[int, Any]] = {}
        self.registrations: list[dict[str, Any]] = []
        self.polls = 0
        self.throttled = 0
        """So many requests to the twin are answered with 429."""
        self.open = True
        """Whether the hub knows the device."""
        self.retry_after = 1

    # -- the front door --------------------------------------------------------------------------------------------

    def admit(self, connect: Connect) -> Admission:
        """What becomes of a CONNECT (code 4: bad user name or password, 5: not authorised)."""
        if connect.level != 4 or not 0 < connect.keepalive <= 1177:
            return Admission(1)
        if connect.username.startswith(SCOPE):
            return self._admit_to_dps(connect)
        if connect.username != f"{HOST}/{self.device}/?api-version=2021-04-12" or connect.client_id != self.device:
            return Admission(4)
        will = connect.will
        if will is not None and (not will[0].startswith(f"devices/{self.device}/messages/events/") or will[1] > 1):
            return Admission(4)
        if not self.open:
            return Admission(5)
        key = KEY if self.device == self.registration else signature_of(GROUP_KEY, self.registration)
        return self._admit_by(connect, f"{HOST}/devices/{self.device}", key, "")

    def _admit_to_dps(self, connect: Connect) -> Admission:
        if connect.username != f"{SCOPE}/registrations/{self.registration}/api-version=2019-03-31":
            return Admission(4)
        key = signature_of(GROUP_KEY, self.registration)
        return self._admit_by(connect, f"{SCOPE}/registrations/{self.registration}", key, "registration")

    def _admit_by(self, connect: Connect, resource: str, key: str, policy: str) -> Admission:
        if self.certificates:
            return Admission(0 if connect.certificate == self.registration and not connect.password else 5)
        known = {name: values[0] for name, values in parse_qs(connect.password.partition(" ")[2]).items()}
        good = connect.password.startswith("SharedAccessSignature ") and known.get("sr") == resource
        good = good and known.get("skn", "") == policy
        if not good or known.get("sig") != signature_of(key, f"{quote(resource, safe='')}\n{known.get('se')}"):
            return Admission(5)
        left = int(known["se"]) - time.time()
        return Admission(0, left) if 0 < left <= self.longest else Admission(5)

    def forbid(self, connect: Connect, topic: str, qos: int, retain: bool) -> str:
        if qos > 1 or retain:
            return f"QoS {qos}, RETAIN {retain}"
        if connect.username.startswith(SCOPE):
            return "" if topic.startswith(("$dps/registrations/PUT/", "$dps/registrations/GET/")) else topic
        allowed = (
            f"devices/{self.device}/messages/events/", "$iothub/twin/GET/?$rid=",
            "$iothub/twin/PATCH/properties/reported/?$rid=", "$iothub/methods/res/",
        )  # fmt: skip
        return "" if topic.startswith(allowed) else topic

    def forbid_filter(self, connect: Connect, topic: str, qos: int) -> str:
        if connect.username.startswith(SCOPE):
            return "" if topic == "$dps/registrations/res/#" else topic
        allowed = {
            f"devices/{self.device}/messages/devicebound/#", "$iothub/twin/res/#", "$iothub/methods/POST/#",
            "$iothub/twin/PATCH/properties/desired/#",
        }  # fmt: skip
        return "" if topic in allowed and qos <= 1 else topic

    def door(self) -> FrontDoor:
        return FrontDoor(self._where.broker.port, self._where.pki, self.admit, self.forbid, self.forbid_filter)

    # -- behind it -------------------------------------------------------------------------------------------------

    def rule(self, topic: str, payload: bytes, *, retained: bool) -> str:
        return "larger than 256 KB" if len(payload) + len(topic) > 256 * 1024 else ""

    def serve(self, topic: str, payload: bytes) -> None:
        number = found[1] if (found := _RID.search(topic)) else ""
        if topic.startswith("$iothub/twin/") and self.throttled:
            self.throttled -= 1
            self.say(f"$iothub/twin/res/429/?$rid={number}")
        elif topic.startswith("$iothub/twin/GET/"):
            self.say(f"$iothub/twin/res/200/?$rid={number}", {"desired": self._desired(), "reported": self.reported})
        elif topic.startswith("$iothub/twin/PATCH/"):
            self._patch(number, payload)
        elif topic.startswith("$iothub/methods/res/"):
            status = int(topic.split("/")[3])
            self.answers[unquote(number)] = status, json.loads(payload)
        elif topic.startswith("$dps/registrations/PUT/iotdps-register/"):
            self.registrations.append(json.loads(payload))
            after = f"$dps/registrations/res/202/?$rid={number}&retry-after={self.retry_after}"
            self.say(after, {"operationId": "4.op", "status": "assigning"})
        elif topic.startswith("$dps/registrations/GET/"):
            self._poll(number, topic)

    def _patch(self, number: str, payload: bytes) -> None:
        self.reported = _merged(self.reported, json.loads(payload))
        if len(json.dumps(self.reported)) > 32 * 1024 or "." in "".join(_keys(self.reported)).replace("$version", ""):
            self.violations.append("a reported property that the twin cannot hold")
            self.say(f"$iothub/twin/res/400/?$rid={number}")
            return
        self.reported["$version"] += 1
        self.say(f"$iothub/twin/res/204/?$rid={number}&$version={self.reported['$version']}")

    def _poll(self, number: str, topic: str) -> None:
        assert "operationId=4.op" in topic
        self.polls += 1
        if self.polls < 2:
            after = f"$dps/registrations/res/202/?$rid={number}&retry-after={self.retry_after}"
            self.say(after, {"operationId": "4.op", "status": "assigning"})
            return
        state = {
            "registrationId": self.registration,
            "assignedHub": HOST,
            "deviceId": self.device,
            "status": "assigned",
        }
        document = {"operationId": "4.op", "status": "assigned", "registrationState": state}
        self.say(f"$dps/registrations/res/200/?$rid={number}", document)

    def _desired(self) -> dict[str, Any]:
        return {key: value for key, value in self.desired.items() if self.metadata or key != "$metadata"}

    # -- the application -------------------------------------------------------------------------------------------

    def desire(self, document: dict[str, Any], *, silent: bool = False) -> None:
        """Change the desired properties; `silent`: while the device was away."""
        with self.lock:
            self.desired = _merged(self.desired, document)
            self.desired["$version"] += 1
            if not silent:
                version = self.desired["$version"]
                topic = f"$iothub/twin/PATCH/properties/desired/?$version={version}"
                self.say(topic, {**document, "$version": version})

    def invoke(self, number: str, name: str, payload: object) -> None:
        """A direct method."""
        self.say(f"$iothub/methods/POST/{name}/?$rid={number}", payload)

    def tell(self, payload: object, **properties: str) -> None:
        """A cloud-to-device message; `_` in a name stands for the hub's `$.`."""
        bag = "&".join(f"%24.{name.removeprefix('_')}={quote(text, safe='')}" for name, text in properties.items())
        self.say(f"devices/{self.device}/messages/devicebound/{bag}", payload)

    def events(self, kind: str) -> list[tuple[dict[str, str], bytes]]:
        """(properties, payload) of telemetry of one type."""
        prefix = f"devices/{self.device}/messages/events/"
        with self.lock:
            found = [
                ({name: values[0] for name, values in parse_qs(one.topic.removeprefix(prefix)).items()}, one.payload)
                for one in self.messages
                if one.topic.startswith(prefix)
            ]
        return [(known, payload) for known, payload in found if known.get("type") == kind]


@contextmanager
def azure(folder: Path, **settings: Any) -> Iterator[tuple[Mosquitto, Azure]]:
    """A hub; open its `door()` for the gateway."""
    pki = Pki(folder / "pki")
    with Mosquitto(folder / "broker", persistence=True) as broker:
        with Azure(Secured(broker, pki, tls=False), **settings) as hub:
            yield broker, hub


def _merged(old: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    result = dict(old)
    for key, value in change.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            result[key] = _merged(result[key] if isinstance(result.get(key), dict) else {}, value)
        else:
            result[key] = value
    return result


def _keys(document: dict[str, Any]) -> Iterator[str]:
    for key, value in document.items():
        yield key
        if isinstance(value, dict):
            yield from _keys(value)
