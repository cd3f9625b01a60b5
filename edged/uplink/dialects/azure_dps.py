"""Azure's Device Provisioning Service: how a gateway is assigned to a hub. Pure.

Source: Microsoft's "Communicate with DPS using the MQTT protocol".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import orjson

from edged.errors import EdgedError, PermanentError, TransientError
from edged.uplink.api import Message
from edged.uplink.dialects.azure import Answer, Identity, object_of

_API = "2019-03-31"
DPS_ANSWERS = "$dps/registrations/res/"
_DEFAULT_RETRY = 3.0


@dataclass(frozen=True, slots=True)
class Enrolment:
    """As what a gateway registers."""

    scope: str
    registration: str

    @property
    def username(self) -> str:
        """The user name of DPS."""
        return f"{self.scope}/registrations/{self.registration}/api-version={_API}"

    @property
    def resource(self) -> str:
        """What a token is for; its policy is `registration`."""
        return f"{self.scope}/registrations/{self.registration}"

    def register(self, number: str) -> Message:
        """Asks to be assigned to a hub."""
        topic = f"$dps/registrations/PUT/iotdps-register/?$rid={number}"
        return Message(topic, orjson.dumps({"registrationId": self.registration}))

    @staticmethod
    def poll(number: str, operation: str) -> Message:
        """Asks how far that has come."""
        known = f"$rid={number}&operationId={quote(operation, safe='')}"
        return Message(f"$dps/registrations/GET/iotdps-get-operationstatus/?{known}", b"")


@dataclass(frozen=True, slots=True)
class Assigning:
    """It is not decided yet: ask again."""

    operation: str
    after: float
    """Seconds."""


def assignment(answer: Answer) -> Identity | Assigning:
    """What DPS says. Raises EdgedError where it refuses."""
    document = object_of(answer.body)
    if not answer.good:
        raise _dps_error(answer, document)
    state = document.get("registrationState")
    known = state if isinstance(state, dict) else {}
    status = str(document.get("status") or known.get("status"))
    host, device = known.get("assignedHub"), known.get("deviceId")
    if status == "assigned" and isinstance(host, str) and isinstance(device, str) and host and device:
        return Identity(host, device)
    operation = document.get("operationId")
    if status in {"assigning", "unassigned"} and isinstance(operation, str) and operation:
        return Assigning(operation, answer.retry_after if answer.retry_after is not None else _DEFAULT_RETRY)
    raise _dps_error(answer, {**document, **known})


def _dps_error(answer: Answer, document: Mapping[str, Any]) -> EdgedError:
    text = str(document.get("errorMessage") or document.get("message") or document.get("status") or "no reason given")
    line = f"the provisioning service did not assign a hub: {answer.status} {text[:200]}"
    return TransientError(line, reason="busy") if answer.passing else PermanentError(line, reason="provisioning")
