"""Where in a message a value is. Pure.

    temperature             a key of the values
    em.total_act_power      a key in a key
    channels.0.value        an element of a list
    /a.b/0/c                a JSON pointer (RFC 6901), for keys with a dot in them
    $.rxInfo.0.rssi         from the beginning of the whole message, whatever the preset takes for the values
    @rssi                   what the preset knows besides

A key may have dots itself: the longest one that is there is taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal


class _Absent:
    """The type of ABSENT."""

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = _Absent()
"""What is not there; unlike None, which is JSON's null."""
_DEEPEST = 32


@dataclass(frozen=True, slots=True)
class Place:
    """A parsed path."""

    origin: Literal["values", "message", "extra"]
    steps: tuple[str, ...]
    pointer: bool = False

    @classmethod
    def parse(cls, text: str) -> Place:
        """Of its text. Raises ValueError."""
        if text.startswith("@"):
            return cls("extra", (text[1:],))
        if text.startswith("/"):
            if text.count("~") != text.count("~0") + text.count("~1"):
                raise ValueError(f"`field: {text}`: in a JSON pointer `~` is written `~0`, and `/` in a key `~1`")
            parts = text[1:].split("/")
            return cls("values", tuple(one.replace("~1", "/").replace("~0", "~") for one in parts), pointer=True)
        origin: Literal["values", "message"] = "message" if text.startswith("$.") else "values"
        steps = tuple(text.removeprefix("$.").split(".")) if text else ()
        if "" in steps or len(steps) > _DEEPEST:
            raise ValueError(f"`field: {text}` is no path: write keys with dots between them, such as em.power")
        return cls(origin, steps)

    def find(self, root: Any) -> Any:
        """What is there, or ABSENT."""
        return _follow(root, self.steps, pointer=self.pointer)


def _follow(node: Any, steps: Sequence[str], *, pointer: bool) -> Any:
    if not steps:
        return node
    if isinstance(node, list):
        if not (steps[0].isascii() and steps[0].isdecimal()) or int(steps[0]) >= len(node):
            return ABSENT
        return _follow(node[int(steps[0])], steps[1:], pointer=pointer)
    if not isinstance(node, Mapping):
        return ABSENT
    for count in range(1 if pointer else len(steps), 0, -1):
        key = ".".join(steps[:count]) if count > 1 else steps[0]
        if key in node and (found := _follow(node[key], steps[count:], pointer=pointer)) is not ABSENT:
            return found
    return ABSENT


def nested(steps: Sequence[str], value: Any) -> dict[str, Any]:
    """The smallest object that has a value there, for what is sent."""
    for step in reversed(steps[1:]):
        value = {step: value}
    return {steps[0]: value}
