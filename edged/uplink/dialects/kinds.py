"""What the configuration of a point promises of its values. Pure."""

from __future__ import annotations

from enum import StrEnum

from edged.config.base import PointConfig


class Kind(StrEnum):
    """What a value is."""

    TRUTH = "truth"
    WHOLE = "whole"
    LARGE = "large"
    """A whole number that may need 64 bits without a sign."""
    NUMBER = "number"
    """One that may have a fraction."""
    TEXT = "text"


def promised(config: PointConfig | None) -> Kind | None:
    """What kind of value a point has; None where the configuration does not say."""
    if config is None:
        return None
    if words(config):
        return Kind.TEXT
    word = str(getattr(config, "type", None) or "").lower()
    bits = (getattr(config, key, None) for key in ("coil", "discrete", "bit"))
    if word in {"bit", "bool", "boolean"} or any(bit is not None for bit in bits):
        return Kind.TRUTH
    if word.startswith(("string", "text", "ascii")):
        return Kind.TEXT
    scaled = config.scale != 1 or config.offset or config.map is not None or config.decimals is not None
    if scaled or word.startswith(("float", "double")):
        return Kind.NUMBER
    if word.startswith(("int", "uint")):
        return Kind.LARGE if word == "uint64" else Kind.WHOLE
    return None


def words(config: PointConfig) -> list[str]:
    """The words that are its only values, if it has such."""
    enum = getattr(config, "enum", None)
    return [str(word) for word in enum.values()] if isinstance(enum, dict) else []
