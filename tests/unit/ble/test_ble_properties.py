"""Whatever the bytes are, no decoder fails, and what is cut or sent again yields nothing."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edged.adapter import Quality
from edged_ble.codecs import atc, beacons, bthome, ruuvi
from edged_ble.codecs.advert import Advertisement, Decoder, uuid_of
from edged_ble.codecs.aes import Ccm
from edged_ble.codecs.layout import INTEGERS, WIDTHS, ByteMapDecoder, Field, Order, Pattern
from edged_ble.decoders import KNOWN, identify, new_decoder

ADDRESS = "54:48:E6:8F:80:A5"
OURS = sorted(name for name, known in KNOWN.items() if not known.package)
UUIDS = [uuid_of(short) for short in ("FCD2", "181A", "FEAA", "2A6E", "2A6F", "2A6D", "180F", "FE95")]
KEY = bytes(range(16))

heads = st.sampled_from([b"", b"\x40", b"\x41", b"\x44", b"\x02\x15", b"\x05", b"\x03", b"\x06", b"\x20\x00", b"\x10"])
payloads = st.builds(bytes.__add__, heads, st.binary(max_size=40))
adverts = st.builds(
    Advertisement,
    address=st.sampled_from([ADDRESS, "CB:B8:33:4C:88:4F", "", "not an address"]),
    name=st.none() | st.text(max_size=8),
    manufacturer_data=st.dictionaries(st.sampled_from([0x0499, 0x004C, 0x0059, 0x1234]), payloads, max_size=2),
    service_data=st.dictionaries(st.sampled_from(UUIDS), payloads, max_size=3),
)


@given(adverts, st.sampled_from(OURS), st.booleans())
def test_no_bytes_make_a_decoder_fail(adv: Advertisement, name: str, keyed: bool) -> None:
    decoder = new_decoder(name, KEY if keyed and KNOWN[name].key_lengths else None)
    for _ in range(2):
        found = decoder.decode(adv)
        if found is None:
            continue
        assert not (found.values and found.problem)
        assert found.quality.keys() <= found.values.keys()
        for point, value in found.values.items():
            assert value is not None or found.quality[point].status == "bad"
            assert not isinstance(value, float) or math.isfinite(value)
            assert point in decoder.points or point.rpartition("_")[0] in decoder.points


@given(adverts)
def test_unknown_advertisements_can_be_anything(adv: Advertisement) -> None:
    name = identify(adv)
    assert name is None or new_decoder(name).decode(adv) is not None


def advertisement(source: int | str, data: bytes, address: str = ADDRESS) -> Advertisement:
    if isinstance(source, int):
        return Advertisement(address, manufacturer_data={source: data})
    return Advertisement(address, service_data={source: data})


WHOLE: list[tuple[Decoder, int | str, str, str]] = [
    (ruuvi.RuuviTag(), 0x0499, "CB:B8:33:4C:88:4F", "0512FC5394C37C0004FFFC040CAC364200CDCBB8334C884F"),
    (ruuvi.RuuviTag(), 0x0499, "CB:B8:33:4C:88:4F", "03291A1ECE1EFC18F94202CA0B53"),
    (ruuvi.RuuviAir(), 0x0499, "CB:B8:33:4C:88:4F", "06170C5668C79E007000C90501D9FFCD004C884F"),
    (beacons.IBeacon(), 0x004C, ADDRESS, "0215fac1ba2f61a24d839a8c60087c23256900010102bd"),
    (beacons.Eddystone(), uuid_of("FEAA"), ADDRESS, "20000bb8154000000064000003e8"),
    (atc.Atc(), uuid_of("181A"), "A4:C1:38:02:83:F4", "f4830238c1a4a9066911b60b58f70d"),
    (atc.Atc(), uuid_of("181A"), "A4:C1:38:02:83:F4", "a4c1380283f400a22f5f0bf819"),
]


@pytest.mark.parametrize(("decoder", "source", "address", "text"), WHOLE)
def test_what_is_cut_or_longer_yields_nothing(decoder: Decoder, source: int | str, address: str, text: str) -> None:
    data = bytes.fromhex(text)
    found = decoder.decode(advertisement(source, data, address))
    assert found is not None
    assert found.values
    for other in [data[:length] for length in range(len(data))] + [data + b"\0", data + b"\0\0\0"]:
        again = decoder.decode(advertisement(source, other, address))
        assert again is None or not again.values


objects = st.sampled_from(sorted(number for number, one in bthome.OBJECTS.items() if one.size))


@given(st.lists(objects, min_size=1, max_size=6), st.data())
def test_a_bthome_packet_cut_inside_an_object_yields_nothing(numbers: list[int], data: st.DataObject) -> None:
    last = bthome.OBJECTS[numbers[-1]]
    payload = b"".join(
        bytes((number,))
        + data.draw(st.binary(min_size=bthome.OBJECTS[number].size, max_size=bthome.OBJECTS[number].size))
        for number in numbers
    )
    whole = bthome.parse(payload)
    assert not whole.problem
    cut = bthome.parse(payload[: -data.draw(st.integers(1, last.size))])
    assert not cut.values
    assert cut.problem


@given(
    st.binary(min_size=16, max_size=16), st.binary(min_size=7, max_size=13), st.binary(max_size=64),
    st.binary(max_size=40), st.sampled_from([4, 8, 16]),
)  # fmt: skip
def test_what_is_encrypted_can_be_decrypted_and_nothing_else(
    key: bytes, nonce: bytes, plain: bytes, associated: bytes, tag: int
) -> None:
    cipher = Ccm(key)
    secret = cipher.encrypt(nonce, plain, tag, associated)
    assert cipher.decrypt(nonce, secret[:-tag], secret[-tag:], associated) == plain
    wrong = bytes((secret[-1] ^ 1,))
    assert cipher.decrypt(nonce, secret[:-tag], secret[-tag:-1] + wrong, associated) is None


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=12))
def test_only_growing_counters_are_taken(counters: list[int]) -> None:
    decoder = bthome.BTHome(KEY)
    highest = -1
    mac = bytes.fromhex(ADDRESS.replace(":", ""))
    for counter in counters:
        count = counter.to_bytes(4, "little")
        secret = Ccm(KEY).encrypt(mac + b"\xd2\xfc\x41" + count, b"\x01\x61", 4)
        found = decoder.decode(advertisement(bthome.SERVICE, b"\x41" + secret[:-4] + count + secret[-4:]))
        assert found is not None
        assert bool(found.values) == (counter >= highest)
        highest = max(highest, counter)


# -- the byte map ------------------------------------------------------------------------------------------------------

integers = st.sampled_from(sorted(INTEGERS))
orders: st.SearchStrategy[Order] = st.sampled_from(["little", "big"])


@given(integers, orders, st.integers(0, 12), st.integers(0, 12), st.data())
def test_a_number_that_was_put_into_bytes_is_found_there(
    type_: str, order: Order, before: int, after: int, data: st.DataObject
) -> None:
    width, signed = WIDTHS[type_], type_.startswith("int")
    low, high = (-(1 << 8 * width - 1), (1 << 8 * width - 1) - 1) if signed else (0, (1 << 8 * width) - 1)
    number = data.draw(st.integers(low, high))
    raw = bytes(before) + number.to_bytes(width, order, signed=signed) + bytes(after)
    assert Field(before, type_, order).read(raw) == number  # type: ignore[arg-type]  # one of the types
    assert Field(-after - width, type_, order).read(raw) == number  # type: ignore[arg-type]  # the same
    assert Field(before, type_, order).read(raw[: before + width - 1]) is None  # type: ignore[arg-type]  # the same
    assert isinstance(Field(before, type_, order, invalid=(number,)).read(raw), Quality)  # type: ignore[arg-type]  # the same


@given(st.integers(0, 2**16 - 1), st.integers(0, 15), st.integers(0, 15))
def test_bits_of_a_number(number: int, one: int, other: int) -> None:
    low, high = sorted((one, other))
    raw = number.to_bytes(2, "little")
    assert Field(0, "uint16", bits=(low, high)).read(raw) == number >> low & (2 << high - low) - 1
    assert Field(0, "uint16", bit=low).read(raw) is bool(number >> low & 1)


@given(st.binary(max_size=24), st.integers(-30, 30), st.sampled_from([*sorted(WIDTHS), "text", "hex"]), orders)
@example(b"\x00\x00\x80\x7f", 0, "float32", "little")
@example(b"\xff", 0, "bcd8", "little")
def test_a_byte_map_takes_any_bytes(data: bytes, at: int, type_: str, order: Order) -> None:
    value = Field(at, type_, order).read(data)  # type: ignore[arg-type]  # one of the types
    assert not isinstance(value, float) or math.isfinite(value)
    start = at if at >= 0 else len(data) + at
    if start < 0 or start + WIDTHS.get(type_, 0) > len(data):
        assert value is None


@given(st.binary(min_size=1, max_size=20), st.integers(0, 19), st.data())
def test_a_pattern_fits_what_it_was_made_of_and_nothing_that_differs(data: bytes, at: int, draw: st.DataObject) -> None:
    at %= len(data)
    part = data[at:].hex()
    masked = "".join("." if draw.draw(st.booleans()) else digit for digit in part)
    assert Pattern.parse(at, masked).fits(data)
    assert Pattern.parse(at - len(data), masked).fits(data)
    assert not Pattern.parse(at, part).fits(data[:-1])
    assert not Pattern.parse(0, bytes((data[0] ^ 1,)).hex()).fits(data)


def decoder(**kwargs: object) -> ByteMapDecoder:
    fields = {"temperature": Field(1, "int16", "big", invalid=(-32768,)), "low": Field(0, bit=7)}
    return ByteMapDecoder(fields, **kwargs)  # type: ignore[arg-type]  # as the test says


def test_a_byte_map_of_manufacturer_data_with_length_pattern_and_number() -> None:
    ear = decoder(company=0x1234, lengths=range(4, 5), patterns=[Pattern.parse(0, "8.")], packet=Field(3))
    found = ear.decode(advertisement(0x1234, b"\x80\xff\x9c\x07"))
    assert found is not None
    assert (dict(found.values), found.packet_id) == ({"temperature": -100, "low": True}, 7)
    assert ear.decode(advertisement(0x1234, b"\x70\xff\x9c\x07")) is None
    assert ear.decode(advertisement(0x1234, b"\x80\xff\x9c\x07\x00")) is None
    assert ear.decode(advertisement(0x1235, b"\x80\xff\x9c\x07")) is None
    absent = ear.decode(advertisement(0x1234, b"\x80\x80\x00\x07"))
    assert absent is not None
    assert absent.values["temperature"] is None
    assert str(absent.quality["temperature"]) == "bad(decode)"


def test_a_byte_map_that_reaches_beyond_the_bytes_says_so() -> None:
    found = decoder(service=uuid_of("FCD2")).decode(advertisement(uuid_of("FCD2"), b"\x80\xff"))
    assert found is not None
    assert not found.values
    assert "temperature" in found.problem


@pytest.mark.parametrize(
    ("field", "data", "value"),
    [
        (Field(0, "text", length=4), b"ab\0d", "ab"),
        (Field(0, "text"), b"\xff", None),
        (Field(1, "hex"), b"\x01\xab\xcd", "abcd"),
        (Field(0, "bcd16", "big"), b"\x12\x34", 1234),
        (Field(0, "bcd16"), b"\x34\x12", 1234),
        (Field(0, "bcd8"), b"\x1a", None),
        (Field(0, "float"), b"\x6e\x01\x00\xff", 36.6),
        (Field(0, "sfloat"), b"\x72\xf0", 11.4),
        (Field(0, "float32"), b"\x00\x00\xc0\x3f", 1.5),
        (Field(0, "float32"), b"\x00\x00\xc0\x7f", None),
        (Field(0, "float64", "big"), b"\x3f\xf8" + bytes(6), 1.5),
        (Field(0, enum={0: "off", 1: "on"}), b"\x01", "on"),
        (Field(0, enum={0: "off", 1: "on"}), b"\x02", None),
        (Field(0, flags={0: "low", 3: "open"}), b"\x09", "low,open"),
        (Field(0, flags={0: "low", 3: "open"}), b"\x00", ""),
        (Field(0, bits=(4, 5), enum={2: "closed"}), b"\x20", "closed"),
    ],
)
def test_types_of_a_byte_map(field: Field, data: bytes, value: object) -> None:
    found = field.read(data)
    assert (None if isinstance(found, Quality) else found) == value
    kinds = {"boolean": bool, "text": str, "integer": int, "number": float}
    assert value is None or isinstance(value, kinds[field.kind.type])
