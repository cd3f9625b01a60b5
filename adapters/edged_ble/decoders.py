"""Which decoders there are, the one for a device, and which one an unknown advertisement is for."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from edged.adapter import ConfigError

from .codecs.advert import Advertisement, Decoder, Kind
from .config import BleDevice


@dataclass(frozen=True, slots=True)
class Known:
    """A decoder that a device can name."""

    name: str
    title: str
    points: Mapping[str, Kind]
    complete: bool
    """Every sensor of the format has all of `points`."""
    make: Callable[[bytes | None], Decoder]
    """A new one with this bind key. Raises ConfigError when it needs a package that is not installed."""
    key_length: int = 0
    """Bytes of the bind key; 0 where there is none."""
    package: str = ""
    """The library it needs, from the extra `ble-decoders`; empty for our own."""


KNOWN: Mapping[str, Known] = {}


def decoder_for(device: BleDevice) -> Decoder | None:
    """A new decoder for the advertisements of a device; None if the configuration names none (GATT only).

    Its bind key must already be a text. Raises ConfigError for a bind key that is none and for an extra that is missing.
    """
    raise NotImplementedError


def identify(adv: Advertisement, *, libraries: bool = False) -> str | None:
    """The name of the decoder that this advertisement is for; asks the libraries of the extra too if told to."""
    raise NotImplementedError
