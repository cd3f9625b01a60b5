"""The decoder for a device, and the one that an unknown advertisement is for."""

from __future__ import annotations

from edged.adapter import ConfigError

from .codecs import atc, beacons, bthome, ruuvi, services
from .codecs.advert import Advertisement, Decoder, uuid_of
from .codecs.layout import ByteMapDecoder, Field, Pattern
from .config import BleDevice
from .known import BYTES, KNOWN, RADIO_POINTS, Known, key_of, new_decoder

__all__ = ["KNOWN", "RADIO_POINTS", "Known", "decoder_for", "identify", "new_decoder"]


def decoder_for(device: BleDevice) -> Decoder | None:
    """A new decoder for the advertisements of a device; None if the configuration names none (GATT only).

    Its bind key must already be a text. Raises ConfigError for a bind key that is none, and when the extra is missing.
    """
    if not device.decoder:
        return None
    if device.decoder == BYTES:
        return _byte_map(device)
    if device.bind_key is None:
        return new_decoder(device.decoder)
    if device.bind_key.name and not device.bind_key.text:
        raise ConfigError(f"`bind_key`: the secret {device.bind_key.name!r} was not looked up")
    return new_decoder(device.decoder, key_of(device.bind_key.text, device.decoder))


def _byte_map(device: BleDevice) -> Decoder:
    data = device.data
    if data is None:
        raise ConfigError("`decoder: bytes` needs `data`, which says which bytes are meant")
    return ByteMapDecoder(
        {name: device.points[name].layout for name in device.advertised if name not in device.radio_points},
        company=data.company,
        service=None if data.service is None else uuid_of(data.service),
        lengths=data.lengths,
        patterns=[Pattern.parse(one.at, one.hex) for one in data.match],
        packet=None if data.packet is None else Field(data.packet.at, data.packet.type, data.packet.order),
    )


def identify(adv: Advertisement, *, libraries: bool = False) -> str | None:
    """The name of the decoder that this advertisement is for; asks the libraries of the extra too if told to."""
    for name in _likely(adv):
        found = new_decoder(name).decode(adv)
        if found is not None:
            return name
    if libraries and (adv.manufacturer_data or adv.service_data):
        return _identify_by_library(adv)
    return None


def _likely(adv: Advertisement) -> list[str]:
    names = [name for uuid, name in _BY_SERVICE.items() if uuid in adv.service_data]
    if ruuvi.COMPANY in adv.manufacturer_data:
        names += ["ruuvi", "ruuvi-air"]
    if beacons.APPLE in adv.manufacturer_data:
        names.append("ibeacon")
    if not services.CARRIED.keys().isdisjoint(adv.service_data):
        names.append("ess")
    return names


_BY_SERVICE = {bthome.SERVICE: "bthome", atc.SERVICE: "atc", beacons.EDDYSTONE: "eddystone"}


def _identify_by_library(adv: Advertisement) -> str | None:
    from .codecs.library import LibraryDecoder  # noqa: PLC0415  # only `edged scan ble` asks for it

    for name, known in KNOWN.items():
        if not known.package:
            continue
        try:
            if LibraryDecoder(name).supported(adv):
                return name
        except ConfigError:
            continue
    return None
