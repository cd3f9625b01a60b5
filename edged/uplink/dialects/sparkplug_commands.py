"""DCMD: a host writes metrics of a device. Pure.

Sparkplug has no answer to a command: hosts see by the next DDATA that a value has changed. Nothing waits for us at the
broker either, since each session begins anew; so a command is as fresh as the moment it comes.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

from edged.downlink.api import Command, CommandResult, Incoming, Refused
from edged.downlink.rules import LONGEST_ID
from edged.uplink.api import Message
from edged.uplink.dialects import sparkplug_payload as payload
from edged.uplink.dialects.sparkplug import Node


class SparkplugCommands:
    """Implements `edged.downlink.api.Dialect`."""

    def __init__(self, node: Node, valid_for: float, requester: str) -> None:
        """`valid_for`: seconds that a command may wait for its device."""
        self._node = node
        self._valid_for = valid_for
        self._requester = requester

    def topics(self) -> Sequence[tuple[str, int]]:
        """See the protocol."""
        return [(self._node.topic("DCMD", "") + "/+", 1)]

    def decode(self, message: Incoming) -> Sequence[Command]:
        """See the protocol. One command for each metric."""
        prefix = self._node.topic("DCMD") + "/"
        if not message.topic.startswith(prefix):
            return []
        device = self._node.device_of(message.topic.removeprefix(prefix))
        if not device:
            raise Refused("unknown-point", f"there is no device for {message.topic}")
        if message.retained:
            raise Refused("retained", "a DCMD must not be retained")
        try:
            parsed = payload.parse(message.payload)
        except ValueError as exc:
            raise Refused("malformed", f"no payload of Sparkplug B: {exc}") from exc
        return [self._command(device, metric, parsed.time) for metric in parsed.metrics]

    def _command(self, device: str, metric: payload.Metric, sent: int | None) -> Command:
        point = self._node.point_of(metric, device)
        if not point:
            raise Refused("unknown-point", f"{device} has no metric {metric.name or metric.alias!r}")
        value = metric.signed() if self._node.is_signed(device, point) else metric.value
        if value is None:
            raise Refused("malformed", f"null for {device}/{point} is no value")
        if sent is None and metric.time is None:  # two writes of the same value could not be told apart
            raise Refused("malformed", f"the command for {device}/{point} has no timestamp")
        ident = f"{sent}-{metric.time}-{device}/{point}={value!r}"
        if len(ident) > LONGEST_ID:
            ident = f"{sent}-{metric.time}-{blake2b(ident.encode(), digest_size=16).hexdigest()}"
        return Command(
            id=ident,
            device=device,
            point=point,
            value=value,
            valid_for=self._valid_for,
            requester=self._requester,
        )

    def encode(self, result: CommandResult) -> Sequence[Message]:  # noqa: ARG002  # whatever it is, nobody is told
        """See the protocol: Sparkplug has no answers."""
        return []
