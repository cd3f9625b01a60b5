"""AWS IoT Core's part, after its developer guide: shadows, fleet provisioning, and the message broker's limits."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from tests.support.cloud import Cloud

_SHADOW = re.compile(r"(\$aws/things/([\w:-]+)/shadow(?:/name/[\w:-]+)?)/(update|get|delete)")
_TEMPLATE = re.compile(r"\$aws/provisioning-templates/([\w-]+)/provision/json")
_CREATE = "$aws/certificates/create/json"
_SIZE = 8 * 1024


class Aws(Cloud):
    """A region of AWS, as one gateway sees it."""

    topics = ("#", "$aws/#")

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.shadows: dict[str, dict[str, Any]] = {}
        self.created: list[str] = []
        self.registered: list[dict[str, Any]] = []
        self.tokens: dict[str, str] = {}
        self.rejected: list[dict[str, Any]] = []
        self.deny: dict[str, Any] | None = None
        """What to answer to a registration instead."""
        self.mute = ""
        """A topic to which there is no answer."""

    # -- the message broker ----------------------------------------------------------------------------------------

    def rule(self, topic: str, payload: bytes, *, retained: bool) -> str:
        if len(payload) > 128 * 1024:
            return "larger than 128 KB"
        if retained:
            return "retained, without iot:RetainPublish"
        if topic.startswith("$"):
            known = _SHADOW.fullmatch(topic) or _TEMPLATE.fullmatch(topic) or topic == _CREATE
            return "" if known else "a reserved topic"
        return (
            "longer than 256 bytes"
            if len(topic.encode()) > 256
            else "more than 7 slashes"
            if topic.count("/") > 7
            else ""
        )

    def serve(self, topic: str, payload: bytes) -> None:
        if topic == self.mute:
            return
        if shadow := _SHADOW.fullmatch(topic):
            getattr(self, f"_{shadow[3]}")(shadow[1], payload)
        elif topic == _CREATE:
            self._create()
        elif template := _TEMPLATE.fullmatch(topic):
            self._register(topic, template[1], payload)

    # -- shadows ---------------------------------------------------------------------------------------------------

    def _update(self, prefix: str, payload: bytes) -> None:
        try:
            request = orjson.loads(payload)
        except orjson.JSONDecodeError:
            self._reject(f"{prefix}/update", 400, "Invalid JSON", {})
            return
        shadow = self.shadows.get(prefix, _nothing())
        changed = {side: _merged(shadow[side], request["state"].get(side) or {}) for side in ("desired", "reported")}
        if "version" in request and request["version"] != shadow["version"]:
            self._reject(f"{prefix}/update", 409, "Version conflict", request)
        elif len(str(request.get("clientToken", "")).encode()) > 64:
            self._reject(f"{prefix}/update", 400, "Invalid clientToken", {})
        elif len(orjson.dumps(changed)) > _SIZE:
            self._reject(f"{prefix}/update", 413, "The payload exceeds the maximum size allowed", request)
        else:
            self.change(prefix, request["state"], token=request.get("clientToken"))

    def change(
        self, prefix: str, state: Mapping[str, Any], *, token: str | None = None, age: float = 0, silent: bool = False
    ) -> None:
        """Change a shadow, as its gateway or as an application; `silent`: nobody is told, as if it was long ago."""
        now = int(time.time() - age)
        with self.lock:
            shadow = self.shadows.setdefault(prefix, _nothing())
            for side, change in state.items():
                shadow[side] = _merged(shadow[side], change or {})
                shadow["metadata"][side] = _merged(shadow["metadata"][side], _stamped(change or {}, now))
            shadow["version"] += 1
            told = {"state": state, "metadata": {side: _stamped(state[side] or {}, now) for side in state}}
            told |= {"version": shadow["version"], "timestamp": now} | ({"clientToken": token} if token else {})
            delta = _delta(shadow["desired"], shadow["reported"])
            if silent:
                return
            self.say(f"{prefix}/update/accepted", told)
            if delta:
                stamps = _under(shadow["metadata"]["desired"], delta)
                more = {"clientToken": token} if token else {}
                version = {"version": shadow["version"], "timestamp": now}
                self.say(f"{prefix}/update/delta", {"state": delta, "metadata": stamps, **version, **more})

    def _get(self, prefix: str, payload: bytes) -> None:
        request = orjson.loads(payload) if payload else {}
        shadow = self.shadows.get(prefix)
        if shadow is None:
            self._reject(f"{prefix}/get", 404, f"No shadow exists with name: '{prefix}'", request)
            return
        delta = _delta(shadow["desired"], shadow["reported"])
        state = {side: shadow[side] for side in ("desired", "reported") if shadow[side]}
        document = {
            "state": state | ({"delta": delta} if delta else {}), "metadata": shadow["metadata"],
            "version": shadow["version"], "timestamp": int(time.time()),
        }  # fmt: skip
        self.say(f"{prefix}/get/accepted", document | _token(request))

    def _reject(self, topic: str, code: int, text: str, request: Mapping[str, Any]) -> None:
        answer = {"code": code, "message": text, "timestamp": int(time.time())} | _token(request)
        self.rejected.append(answer)
        self.say(f"{topic}/rejected", answer)

    # -- fleet provisioning ----------------------------------------------------------------------------------------

    def _create(self) -> None:
        name = f"device-{len(self.created)}"
        certificate, key = self._where.pki.issue(name)
        token = f"token-{len(self.created)}"
        self.created.append(name)
        self.tokens[token] = name
        answer = {
            "certificateId": name, "certificatePem": Path(certificate).read_text(),
            "privateKey": Path(key).read_text(), "certificateOwnershipToken": token,
        }  # fmt: skip
        self.say(f"{_CREATE}/accepted", answer)

    def _register(self, topic: str, template: str, payload: bytes) -> None:
        request = orjson.loads(payload)
        if self.deny is not None:
            self.say(f"{topic}/rejected", self.deny)
            return
        if request.get("certificateOwnershipToken") not in self.tokens:
            word = {"statusCode": 400, "errorCode": "InvalidCertificateOwnershipToken", "errorMessage": "Invalid token"}
            self.say(f"{topic}/rejected", word)
            return
        self.registered.append({"template": template, **request})
        thing = f"thing-{request['parameters']['SerialNumber']}"
        self.say(f"{topic}/accepted", {"deviceConfiguration": {}, "thingName": thing})


def _nothing() -> dict[str, Any]:
    return {"desired": {}, "reported": {}, "metadata": {"desired": {}, "reported": {}}, "version": 0}


def _token(request: Mapping[str, Any]) -> dict[str, Any]:
    return {"clientToken": request["clientToken"]} if "clientToken" in request else {}


def _merged(old: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(old)
    for key, value in change.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and "timestamp" not in value:
            result[key] = _merged(result[key] if isinstance(result.get(key), dict) else {}, value)
        else:
            result[key] = value
    return {key: value for key, value in result.items() if value != {}}


def _stamped(change: Mapping[str, Any], now: int) -> dict[str, Any]:
    return {
        key: _stamped(value, now) if isinstance(value, dict) else None if value is None else {"timestamp": now}
        for key, value in change.items()
    }


def _delta(desired: Mapping[str, Any], reported: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in desired.items():
        other = reported.get(key)
        if isinstance(value, dict) and isinstance(other, dict):
            if inner := _delta(value, other):
                found[key] = inner
        elif other != value:
            found[key] = value
    return found


def _under(metadata: Mapping[str, Any], delta: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _under(metadata[key], value) if isinstance(value, dict) else metadata[key] for key, value in delta.items()
    }
