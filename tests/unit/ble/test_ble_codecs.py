"""The native decoders, against the published vectors of their formats and against each other's mistakes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edged.adapter import ConfigError
from edged_ble.codecs import atc, beacons, bthome, ruuvi, services
from edged_ble.codecs.advert import Advertisement, Decoded, Decoder, uuid_of
from edged_ble.codecs.aes import Ccm
from edged_ble.decoders import KNOWN, identify, new_decoder
from edged_ble.known import key_of

SHELLY = "54:48:E6:8F:80:A5"
KEY = bytes.fromhex("231d39c1d7cc1ab1aee224cd096db932")


def service(data: str | bytes, uuid: str = "FCD2", address: str = SHELLY) -> Advertisement:
    return Advertisement(address, service_data={uuid_of(uuid): bytes.fromhex(data) if isinstance(data, str) else data})


def company(data: str, number: int, address: str = SHELLY) -> Advertisement:
    return Advertisement(address, manufacturer_data={number: bytes.fromhex(data)})


def sealed(plain: str, counter: int, key: bytes = KEY, address: str = SHELLY, head: bytes = b"\x41") -> Advertisement:
    """As bthome.io/encryption says it is made."""
    count = counter.to_bytes(4, "little")
    nonce = bytes.fromhex(address.replace(":", "")) + b"\xd2\xfc" + head[:1] + count
    secret = Ccm(key).encrypt(nonce, bytes.fromhex(plain), 4)
    return service(head + secret[:-4] + count + secret[-4:], address=address)


# -- AES ---------------------------------------------------------------------------------------------------------------


def test_aes_encrypts_the_block_of_fips_197() -> None:
    key = bytes(range(16))
    plain = bytes.fromhex("00112233445566778899aabbccddeeff")
    assert Ccm(key).encrypt_block(plain).hex() == "69c4e0d86a7b0430d8cdb78070b4c55a"


@pytest.mark.parametrize(
    ("nonce", "associated", "plain", "tag", "secret"),
    [  # RFC 3610, packet vectors 1, 2 and 7
        (
            "00000003020100a0a1a2a3a4a5", "0001020304050607", bytes(range(8, 31)).hex(), 8,
            "588c979a61c663d2f066d0c2c0f989806d5f6b61dac38417e8d12cfdf926e0",
        ),
        (
            "00000004030201a0a1a2a3a4a5", "0001020304050607", bytes(range(8, 32)).hex(), 8,
            "72c91a36e135f8cf291ca894085c87e3cc15c439c9e43a3ba091d56e10400916",
        ),
        (
            "00000009080706a0a1a2a3a4a5", "0001020304050607", bytes(range(8, 31)).hex(), 10,
            "0135d1b2c95f41d5d1d4fec185d166b8094e999dfed96c048c56602c97acbb7490",
        ),
    ],
)  # fmt: skip
def test_ccm_does_what_rfc_3610_says(nonce: str, associated: str, plain: str, tag: int, secret: str) -> None:
    cipher = Ccm(bytes(range(0xC0, 0xD0)))
    n, a, p, s = (bytes.fromhex(text) for text in (nonce, associated, plain, secret))
    assert cipher.encrypt(n, p, tag, a) == s
    assert cipher.decrypt(n, s[:-tag], s[-tag:], a) == p
    assert cipher.decrypt(n, s[:-tag], s[-tag:], a + b"!") is None


def test_a_key_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        Ccm(bytes(12))


# -- BTHome ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "values"),
    [  # the examples of bthome.io/format
        ("0161", {"battery": 97}),
        ("02ca09", {"temperature": 25.06}),
        ("03bf13", {"humidity": 50.55}),
        ("04138a01", {"pressure": 1008.83}),
        ("05138a14", {"illuminance": 13460.67}),
        ("065e1f", {"mass": 80.3}),
        ("073e1d", {"mass_lb": 74.86}),
        ("08ca06", {"dew_point": 17.38}),
        ("0960", {"count": 96}),
        ("0a138a14", {"energy": 1346.067}),
        ("0b021b00", {"power": 69.14}),
        ("0c020c", {"voltage": 3.074}),
        ("0d120c", {"pm2_5": 3090}),
        ("0e021c", {"pm10": 7170}),
        ("12e204", {"co2": 1250}),
        ("133301", {"tvoc": 307}),
        ("14020c", {"moisture": 30.74}),
        ("2e23", {"humidity": 35}),
        ("2f23", {"moisture": 35}),
        ("3d0960", {"count": 24585}),
        ("3e2a2c0960", {"count": 1611213866}),
        ("3f020c", {"rotation": 307.4}),
        ("400c00", {"distance": 0.012}),
        ("414e00", {"distance": 7.8}),
        ("424e3400", {"duration": 13.39}),
        ("434e34", {"current": 13.39}),
        ("444e34", {"speed": 133.9}),
        ("451101", {"temperature": 27.3}),
        ("4632", {"uv_index": 5.0}),
        ("478756", {"volume": 2215.1}),
        ("48dc87", {"volume": 34.78}),
        ("49dc87", {"volume_flow_rate": 34.78}),
        ("4a020c", {"voltage": 307.4}),
        ("4b138a14", {"gas": 1346.067}),
        ("4c41018a01", {"gas": 25821.505}),
        ("4d12138a14", {"energy": 344593.170}),
        ("4e87562a01", {"volume": 19551.879}),
        ("4f87562a01", {"water": 19551.879}),
        ("505d396164", {"timestamp": 1684093277}),
        ("518756", {"acceleration": 22.151}),
        ("528756", {"gyroscope": 22.151}),
        ("530c48656c6c6f20576f726c6421", {"text": "Hello World!"}),
        ("540c48656c6c6f20576f726c6421", {"raw": "48656c6c6f20576f726c6421"}),
        ("5587562a01", {"volume_storage": 19551.879}),
        ("56e803", {"conductivity": 1000}),
        ("57ea", {"temperature": -22}),
        ("58ea", {"temperature": -7.7}),
        ("59ea", {"count": -22}),
        ("5aeaea", {"count": -5398}),
        ("5beaeaeaea", {"count": -353703190}),
        ("5c02fbffff", {"power": -12.78}),
        ("5deaea", {"current": -5.398}),
        ("5e9f8c", {"direction": 359.99}),
        ("5f8360", {"precipitation": 2470.7}),
        ("6001", {"channel": 1}),
        ("61ac0d", {"rotational_speed": 3500}),
        ("1501", {"battery_low": True}),
        ("1a00", {"door": False}),
        ("2d01", {"window": True}),
        ("3a01", {"button": "press"}),
        ("3a80", {"button": "hold_press"}),
        ("3c0103", {"dimmer": "rotate_left 3"}),
        ("f00100", {"device_type": 1}),
        ("f100010204", {"firmware": "4.2.1.0"}),
        ("f2000106", {"firmware": "6.1.0"}),
    ],
)  # fmt: skip
def test_bthome_objects(payload: str, values: dict[str, object]) -> None:
    found = bthome.BTHome().decode(service("40" + payload))
    assert found is not None
    assert found.values == values
    assert not found.problem
    assert all(name in bthome.POINTS for name in found.values)


def test_all_bthome_objects_of_the_specification_are_known() -> None:
    assert len(bthome.OBJECTS) == 94  # and the packet's number, 0x00, which is no value


def test_the_second_of_the_same_is_numbered_and_a_button_that_is_not_pressed_keeps_its_number() -> None:
    found = bthome.BTHome().decode(service("40 00 09 02ca09 02ca08 3a00 3a01"))
    assert found is not None
    assert found.values == {"temperature": 25.06, "temperature_2": 22.5, "button_2": "press"}
    assert found.packet_id == 9


def test_what_follows_an_unknown_object_is_left_out_and_the_rest_is_taken() -> None:
    found = bthome.BTHome().decode(service("40 02ca09 ef01 03bf13"))
    assert found is not None
    assert found.values == {"temperature": 25.06}


def test_bytes_that_are_no_text_are_bad_and_not_an_error() -> None:
    found = bthome.BTHome().decode(service("40 5302ffff"))
    assert found is not None
    assert found.values == {"text": None}
    assert str(found.quality["text"]) == "bad(decode)"


@pytest.mark.parametrize("payload", ["", "60 02ca09", "20 02ca09"])
def test_other_versions_of_bthome_are_named_and_not_decoded(payload: str) -> None:
    found = bthome.BTHome().decode(service(payload))
    assert found is not None
    assert not found.values
    assert found.problem


REVERSED = bytes.fromhex(SHELLY.replace(":", ""))[::-1]


def test_an_address_in_a_bthome_packet_is_no_value_and_has_to_be_the_senders() -> None:
    decoder = bthome.BTHome()
    found = decoder.decode(service(b"\x42" + REVERSED + bytes.fromhex("02ca09")))
    assert found is not None
    assert found.values == {"temperature": 25.06}
    for other in (b"\x42" + REVERSED[:-1], b"\x42" + REVERSED[:-1] + b"\x02" + bytes.fromhex("02ca09")):
        found = decoder.decode(service(other))
        assert found is not None
        assert not found.values
        assert found.problem


def test_an_encrypted_bthome_packet_can_have_its_address_too() -> None:
    found = bthome.BTHome(KEY).decode(sealed("02ca09", 7, head=b"\x43" + REVERSED))
    assert found is not None
    assert (found.values, found.packet_id) == ({"temperature": 25.06}, 7)
    for length in range(15):
        cut = bthome.BTHome(KEY).decode(service((b"\x43" + REVERSED + bytes(8))[:length]))
        assert cut is not None
        assert cut.problem


def test_the_encrypted_example_of_bthome() -> None:
    decoder = bthome.BTHome(KEY)
    found = decoder.decode(service("41a47266c95f730011223378237214"))
    assert found is not None
    assert found.values == {"temperature": 25.06, "humidity": 50.55}
    assert found.packet_id == 0x33221100


def test_an_old_packet_that_is_sent_again_is_refused() -> None:
    decoder = bthome.BTHome(KEY)
    old, new = sealed("02ca09", 7), sealed("02ca08", 8)
    assert decoder.decode(old).values == {"temperature": 25.06}  # type: ignore[union-attr]  # it is BTHome
    assert decoder.decode(new).values == {"temperature": 22.5}  # type: ignore[union-attr]  # it is BTHome
    again = decoder.decode(old)
    assert again is not None
    assert not again.values
    assert "sent again" in again.problem


def test_a_repetition_of_the_last_packet_says_the_same_again() -> None:
    decoder = bthome.BTHome(KEY)
    first, second = decoder.decode(sealed("02ca09", 7)), decoder.decode(sealed("02ca09", 7))
    assert first is second
    assert first is not None
    assert first.packet_id == 7


def test_the_counter_of_the_last_packet_with_other_contents_is_refused() -> None:
    decoder = bthome.BTHome(KEY)
    decoder.decode(sealed("02ca09", 7))
    found = decoder.decode(sealed("02ca08", 7))
    assert found is not None
    assert not found.values


def test_after_a_reset_a_sensor_that_began_to_count_anew_is_heard() -> None:
    decoder = bthome.BTHome(KEY)
    decoder.decode(sealed("02ca09", 1000))
    assert not decoder.decode(sealed("02ca09", 1)).values  # type: ignore[union-attr]  # it is BTHome
    decoder.reset()
    assert decoder.decode(sealed("02ca09", 2)).values  # type: ignore[union-attr]  # it is BTHome


def test_a_forged_packet_does_not_move_the_counter() -> None:
    decoder = bthome.BTHome(KEY)
    decoder.decode(sealed("02ca09", 7))
    assert "does not fit" in decoder.decode(sealed("02ca09", 4_000_000, bytes(16))).problem  # type: ignore[union-attr]  # the same
    assert decoder.decode(sealed("02ca09", 8)).values  # type: ignore[union-attr]  # it is BTHome


@pytest.mark.parametrize(
    ("decoder", "adv", "problem"),
    [
        (bthome.BTHome(), sealed("02ca09", 7), "bind_key"),
        (bthome.BTHome(KEY), service("4002ca09"), "not encrypted"),
        (bthome.BTHome(KEY), service("41" + "00" * 7), "too short"),
        (bthome.BTHome(KEY), sealed("02ca09", 7, address="00:00:00:00:00:01"), ""),
        (
            bthome.BTHome(KEY),
            Advertisement("a uuid of a Mac", service_data=sealed("02ca09", 7).service_data),
            "address",
        ),
        (bthome.BTHome(KEY), Advertisement("AB:CD", service_data=sealed("02ca09", 7).service_data), "does not fit"),
    ],
)
def test_why_there_is_nothing(decoder: Decoder, adv: Advertisement, problem: str) -> None:
    found = decoder.decode(adv)
    assert found is not None
    assert bool(found.values) == (not problem)
    assert problem in found.problem


# -- beacons -----------------------------------------------------------------------------------------------------------


def test_an_ibeacon() -> None:
    found = beacons.IBeacon().decode(company("0215 fac1ba2f61a24d839a8c60087c232569 0001 0102 bd", 0x004C))
    assert found is not None
    assert found.values == {
        "uuid": "fac1ba2f-61a2-4d83-9a8c-60087c232569", "major": 1, "minor": 258, "measured_power": -67,
    }  # fmt: skip
    assert beacons.IBeacon().decode(company("1005031c", 0x004C)) is None


def test_eddystone_telemetry() -> None:
    found = beacons.Eddystone().decode(service("2000 0bb8 1540 00000064 000003e8", "FEAA"))
    assert found is not None
    assert found.values == {"battery_voltage": 3.0, "temperature": 21.25, "advertisements": 100, "uptime": 100.0}


def test_eddystone_telemetry_of_a_beacon_without_thermometer_and_battery() -> None:
    found = beacons.Eddystone().decode(service("2000 0000 8000 00000064 000003e8", "FEAA"))
    assert found is not None
    assert found.values["battery_voltage"] is None
    assert found.values["temperature"] is None
    assert set(found.quality) == {"battery_voltage", "temperature"}


@pytest.mark.parametrize(
    ("data", "values"),
    [
        ("10 f8 03 676f6f676c65 07", {"url": "https://google.com", "measured_power": -8}),
        ("10 00 00 6578616d706c65 00 61", {"url": "http://www.example.com/a", "measured_power": 0}),
        (
            "00 e7 00010203040506070809 aabbccddeeff 0000",
            {"namespace": "00010203040506070809", "instance": "aabbccddeeff", "measured_power": -25},
        ),
    ],
)
def test_eddystone_identities(data: str, values: dict[str, object]) -> None:
    found = beacons.Eddystone().decode(service(data, "FEAA"))
    assert found is not None
    assert found.values == values


@pytest.mark.parametrize("data", ["10 00", "10 00 09 61", "10 00 00 20", "2001" + "00" * 12, "2000 0bb8", "00 e7 00"])
def test_eddystone_that_cannot_be_read_says_why(data: str) -> None:
    found = beacons.Eddystone().decode(service(data, "FEAA"))
    assert found is not None
    assert not found.values
    assert found.problem


# -- others ------------------------------------------------------------------------------------------------------------


def test_the_vector_of_maximum_values_of_data_format_6_is_uncertain_while_it_calibrates() -> None:
    found = ruuvi.RuuviAir().decode(company("067FFF9C40FFFE27109C40FAFAFEFFFF074C8F4F", 0x0499, "CB:B8:33:4C:8F:4F"))
    assert found is not None
    assert found.values == {
        "temperature": 163.835, "humidity": 100, "pressure": 1155.34, "pm2_5": 1000, "co2": 40000, "voc_index": 500,
        "nox_index": 500, "illuminance": 65535, "calibrating": True,
    }  # fmt: skip
    assert str(found.quality["co2"]) == "uncertain(calibrating)"
    assert "temperature" not in found.quality
    assert found.packet_id == 255


# The documentation's example 244.06 belongs to 0x7E by its own formula, and not to 0x80.
@pytest.mark.parametrize(("code", "lux"), [(0, 0), (1, 0.04), (0x10, 1.01), (0x7E, 244.06), (0xFE, 65535)])
def test_luminosity_of_data_format_6(code: int, lux: float) -> None:
    data = f"06170C5668C79E007000C90501{code:02x}FFCD004C884F"
    found = ruuvi.RuuviAir().decode(company(data, 0x0499, "CB:B8:33:4C:88:4F"))
    assert found is not None
    assert found.values["illuminance"] == lux


E1_VALID = "E1170C5668C79E0065007004BD11CA00C90A0213E0ACFFFFFFDECDEE10FFFFFFFFFFCBB8334C884F"
E1_HIGHEST = "E17FFF9C40FFFE27102710271027109C40FAFADC28F0FFFFFFFFFFFE3FFFFFFFFFFFCBB8334C884F"
E1_NOTHING = "E18000FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEFFFFFFFFFFFFFFFFFFFFFF"


def air(data: str, decoder: ruuvi.RuuviAir | None = None) -> Decoded:
    found = (decoder or ruuvi.RuuviAir()).decode(company(data, 0x0499, "CB:B8:33:4C:88:4F"))
    assert found is not None
    return found


def test_ruuvi_air_in_data_format_e1() -> None:
    found = air(E1_VALID)
    assert found.values == {
        "temperature": 29.5, "humidity": 55.3, "pressure": 1011.02, "pm1": 10.1, "pm2_5": 11.2, "pm4": 121.3,
        "pm10": 455.4, "co2": 201, "voc_index": 20, "nox_index": 4, "illuminance": 13027.0, "calibrating": False,
    }  # fmt: skip
    assert found.packet_id == 0xDECDEE
    highest = air(E1_HIGHEST)
    assert (highest.values["illuminance"], highest.values["voc_index"], highest.packet_id) == (144284, 500, 0xFFFFFE)
    assert str(highest.quality["pm10"]) == "uncertain(calibrating)"


def test_what_ruuvi_air_does_not_have_is_bad_in_data_format_e1() -> None:
    found = air(E1_NOTHING)
    assert {name for name, value in found.values.items() if value is not None} == {"calibrating"}
    assert set(found.quality) == set(found.values) - {"calibrating"}
    assert found.packet_id is None


@pytest.mark.parametrize("data", [E1_VALID[:-2], E1_VALID + "00", E1_VALID[:-2] + "50"])
def test_a_cut_or_foreign_data_format_e1_is_refused(data: str) -> None:
    found = air(data)
    assert not found.values
    assert found.problem


def test_data_format_6_is_not_heard_beside_e1() -> None:
    six, decoder = "06170C5668C79E007000C90501D9FFCD004C884F", ruuvi.RuuviAir()
    assert air(six, decoder).values
    assert air(E1_VALID[:-2], decoder).problem
    assert air(six, decoder).values, "E1 that cannot be read is not heard"
    assert air(E1_VALID, decoder).values
    assert not air(six, decoder).values
    assert not air(six, decoder).problem
    decoder.reset()
    assert air(six, decoder).values


def test_both_atc_formats_number_their_measurements() -> None:
    decoder = atc.Atc()
    found = decoder.decode(service("f4830238c1a4a9066911b60b58f70d", "181A", "A4:C1:38:02:83:F4"))
    assert found is not None
    assert found.packet_id == 0xF7
    assert (found.values["reed_switch"], found.values["temperature_alarm"]) == (True, True)


def test_standard_characteristics_in_one_advertisement() -> None:
    adv = Advertisement(SHELLY, service_data={uuid_of("2A6E"): b"\x2b\x09", uuid_of("180F"): b"\x61"})
    found = services.Environment().decode(adv)
    assert found is not None
    assert found.values == {"temperature": 23.47, "battery": 97}


@pytest.mark.parametrize(
    ("adv", "name"),
    [
        (service("4002ca09"), "bthome"),
        (sealed("02ca09", 7), "bthome"),
        (company("0512FC5394C37C0004FFFC040CAC364200CDCBB8334C884F", 0x0499), "ruuvi"),
        (company("06170C5668C79E007000C90501D9FFCD004C884F", 0x0499), "ruuvi-air"),
        (company("0215 fac1ba2f61a24d839a8c60087c232569 0001 0102 bd", 0x004C), "ibeacon"),
        (service("2000 0bb8 1540 00000064 000003e8", "FEAA"), "eddystone"),
        (service("f4830238c1a4a9066911b60b58f70d", "181A"), "atc"),
        (service("2b09", "2A6E"), "ess"),
        (service("00", "181A"), None),
        (company("1005031c", 0x004C), None),
        (Advertisement(SHELLY), None),
    ],
)
def test_unknown_senders_are_recognised(adv: Advertisement, name: str | None) -> None:
    assert identify(adv) == name


@pytest.mark.parametrize(
    ("text", "problem"),
    [("231d39c1", "8 hexadecimal digits, and bthome needs 32"), ("not a key", "hexadecimal"), ("", "0 hexadecimal")],
)
def test_bind_keys_that_are_none(text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        key_of(text, "bthome")
    assert not text or text not in str(caught.value)


def test_a_bind_key_can_be_written_with_spaces_or_colons() -> None:
    assert key_of("23:1d:39:c1:d7:cc:1a:b1:ae:e2:24:cd:09:6d:b9:32", "bthome") == KEY
    assert key_of("231d39c1 d7cc1ab1 aee224cd 096db932", "bthome") == KEY


@pytest.mark.parametrize("name", [name for name, known in KNOWN.items() if not known.package])
def test_native_decoders_say_what_they_yield(name: str) -> None:
    decoder = new_decoder(name)
    assert decoder.points == KNOWN[name].points
    assert set(KNOWN[name].common) <= set(decoder.points)


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("FCD2", "0000fcd2-0000-1000-8000-00805f9b34fb"),
        ("0x181a", "0000181a-0000-1000-8000-00805f9b34fb"),
        (0x2A6E, "00002a6e-0000-1000-8000-00805f9b34fb"),
        ("B42E2A68-ADE7-11E4-89D3-123B93F75CBA", "b42e2a68-ade7-11e4-89d3-123b93f75cba"),
    ],
)
def test_uuids(text: str | int, full: str) -> None:
    assert uuid_of(text) == full


@pytest.mark.parametrize("text", ["", "18", "xyzw", "b42e2a68-ade7-11e4-89d3", "181A1"])
def test_what_is_no_uuid(text: str) -> None:
    with pytest.raises(ValueError, match="UUID"):
        uuid_of(text)


PURE: list[Callable[[], Decoder]] = [bthome.BTHome, ruuvi.RuuviTag, ruuvi.RuuviAir, atc.Atc, services.Environment]


@pytest.mark.parametrize("make", PURE)
def test_an_advertisement_of_something_else_is_none_of_theirs(make: Callable[[], Decoder]) -> None:
    assert make().decode(Advertisement(SHELLY, "name", -60, {0xFFFF: b"\x01"}, {uuid_of("FFFF"): b"\x01"})) is None
    assert make().decode(Advertisement(SHELLY)) is None
