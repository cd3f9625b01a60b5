"""The decoders of the extra: their libraries' own vectors through our interface, their habits, our names and units."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged_ble import units
from edged_ble.codecs import bthome, ruuvi
from edged_ble.codecs.advert import Advertisement, uuid_of
from edged_ble.codecs.library import LIBRARIES, LibraryDecoder
from edged_ble.decoders import KNOWN, identify

needed = pytest.mark.skipif(
    any(find_spec(library.package) is None for library in LIBRARIES.values()),
    reason="needs the extra: pip install 'edged[ble-decoders]'",
)
ADDRESS = "A4:C1:38:8D:18:B2"
H5075 = Advertisement(ADDRESS, "GVH5075_2762", -60, {0xEC88: bytes.fromhex("000341c26400")})
XIAOMI = uuid_of("FE95")


def mibeacon(data: str, address: str) -> Advertisement:
    return Advertisement(address, "x", -60, {}, {XIAOMI: bytes.fromhex(data)})


def test_every_library_is_a_decoder_that_can_be_named() -> None:
    assert set(LIBRARIES) == {name for name, known in KNOWN.items() if known.package}


@needed
def test_a_thermometer_of_govee() -> None:
    found = LibraryDecoder("govee").decode(H5075)
    assert found is not None
    assert found.values == {"temperature": 21.3, "humidity": 44.2, "battery": 100}
    assert identify(H5075, libraries=True) == "govee"


@needed
def test_a_value_that_was_not_in_the_advertisement_is_not_told_again() -> None:
    decoder = LibraryDecoder("thermopro")
    whole = Advertisement(ADDRESS, "TP357 (2142)", -60, {0xF1C2: b"\x00\x18\x02\x2c"[1:] + b"\x02\x2c"})
    first = decoder.decode(whole)
    without = decoder.decode(Advertisement(ADDRESS, "TP357 (2142)", -60, {0xFFC2: b"\xff\xff\x02\x2c"}))
    assert first is not None
    assert without is not None
    assert "temperature" in first.values
    assert "temperature" not in without.values


@needed
def test_xiaomi_without_encryption_is_numbered() -> None:
    decoder = LibraryDecoder("xiaomi")
    found = decoder.decode(mibeacon("50305b05034c94b438c1a40d10041001ea01", "A4:C1:38:B4:94:4C"))
    assert found is not None
    assert (dict(found.values), found.packet_id) == ({"temperature": 27.2, "humidity": 49.0}, 3)


@needed
def test_xiaomi_that_is_encrypted_says_what_it_needs() -> None:
    adv = mibeacon("5859 5b05 64 aabbcc38c1a4 4c1e3ac1f60100 00112233", "A4:C1:38:CC:BB:AA")
    without, wrong = LibraryDecoder("xiaomi").decode(adv), LibraryDecoder("xiaomi", bytes(16)).decode(adv)
    assert without is not None
    assert wrong is not None
    assert (without.values, wrong.values) == ({}, {})
    assert "bind_key" in without.problem
    assert "does not fit" in wrong.problem


@needed
@pytest.mark.parametrize(
    "number",
    sorted(
        number for number, one in bthome.OBJECTS.items() if one.size and number not in {0x3A, 0x3C} and number < 0xF0
    ),
)
def test_the_library_and_our_own_decoder_of_bthome_say_the_same(number: int) -> None:
    size = bthome.OBJECTS[number].size
    payload = bytes((0x40, number)) + bytes((0x02, 0xCA, 0x09, 0x83)[-size:] if size > 1 else (1,))
    adv = Advertisement(ADDRESS, "x", -60, {}, {bthome.SERVICE: payload})
    ours, theirs = bthome.BTHome().decode(adv), LibraryDecoder("bthome-ble").decode(adv)
    assert ours is not None
    assert theirs is not None
    if not theirs.problem:  # a few that no sensor sends yet have no name in our table
        assert list(theirs.values.values()) == [
            pytest.approx(value, abs=0.05 if number == 0x58 else 1e-9) for value in ours.values.values()
        ]
        assert theirs.values.keys() == ours.values.keys()


NUMBERS = sorted(number for number, one in bthome.OBJECTS.items() if one.size and number < 0x3A)


@needed
@given(
    st.dictionaries(st.sampled_from(NUMBERS), st.binary(min_size=4, max_size=4), min_size=1, max_size=6), st.booleans()
)
def test_whole_bthome_packets_mean_the_same_to_the_library(objects: dict[int, bytes], addressed: bool) -> None:
    head = b"\x42" + bytes.fromhex(ADDRESS.replace(":", ""))[::-1] if addressed else b"\x40"
    body = b"".join(bytes((number,)) + objects[number][: bthome.OBJECTS[number].size] for number in sorted(objects))
    whole = Advertisement(ADDRESS, "x", -60, {}, {bthome.SERVICE: head + body})
    ours, theirs = bthome.BTHome().decode(whole), LibraryDecoder("bthome-ble").decode(whole)
    assert ours is not None
    assert theirs is not None
    known = {name: value for name, value in ours.values.items() if name in theirs.values}
    assert known == pytest.approx(dict(theirs.values), abs=1e-9)


@needed
def test_bthome_knows_every_object_of_the_library_with_the_same_size() -> None:
    theirs = import_module("bthome_ble.const").MEAS_TYPES
    assert set(theirs) - {0} == set(bthome.OBJECTS)
    for number, one in bthome.OBJECTS.items():
        if one.size:
            assert theirs[number].data_length == one.size or number in {0x3C, 0xF1, 0xF2}
            signed = theirs[number].data_format == "signed_integer"
            assert signed == one.signed


@needed
def test_the_library_and_our_own_decoder_of_ruuvi_say_the_same() -> None:
    data = bytes.fromhex("0512FC5394C37C0004FFFC040CAC364200CDCBB8334C884F")
    adv = Advertisement("CB:B8:33:4C:88:4F", "Ruuvi 884F", -60, {ruuvi.COMPANY: data})
    ours, theirs = ruuvi.RuuviTag().decode(adv), LibraryDecoder("ruuvitag-ble").decode(adv)
    assert ours is not None
    assert theirs is not None
    for name in ("temperature", "humidity", "pressure", "movement_counter"):
        assert theirs.values[name] == pytest.approx(ours.values[name], abs=0.01)
    assert theirs.values["voltage"] == pytest.approx(ours.values["battery_voltage"])


@needed
@pytest.mark.parametrize("name", sorted(LIBRARIES))
def test_every_measurement_that_a_library_knows_has_a_name_and_a_unit_here(name: str) -> None:
    sources = [
        inspect.getsource(import_module(f"{LIBRARIES[name].package}.{module}"))
        for module in ("parser", "const")
        if find_spec(f"{LIBRARIES[name].package}.{module}") is not None
    ]
    found = {one for source in sources for one in (*_from_the_common_list(source), *_by_themselves(source))}
    assert found, "it names them in another way now"
    for key, unit in found:
        assert units.translated("sensor", key, unit, 1.0) is not None, key


def _from_the_common_list(source: str) -> Iterator[tuple[str, str | None]]:
    """(Key, unit) of what a library takes from `SensorLibrary`."""
    library = import_module("sensor_state_data").SensorLibrary
    for word in set(re.findall(r"\bSensorLibrary\.(\w+)", source)):
        description = getattr(library, word, None)
        if description is not None and description.device_class.value not in {"timestamp", "packet_id"}:
            unit = description.native_unit_of_measurement
            yield description.device_class.value, unit and unit.value


def _by_themselves(source: str) -> Iterator[tuple[str, str | None]]:
    """The same of what it describes where it tells the value."""
    known = import_module("sensor_state_data")
    for call in ast.walk(ast.parse(source)):
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "self.update_sensor":
            given = {one.arg: one.value for one in call.keywords}
            key, unit = (_value(known, given.get(one)) for one in ("key", "native_unit_of_measurement"))
            if key is not None:
                yield key, unit


def _value(known: ModuleType, node: ast.expr | None) -> str | None:
    """A text, or a member of one of the enumerations; None for what only the run tells."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.Attribute(value=ast.Name(id="DeviceClass" | "Units" as enumeration), attr=member):
            return str(getattr(getattr(known, enumeration), member).value)
    return None


@needed
@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(sorted(LIBRARIES)),
    st.sampled_from(["GVH5075_2762", "Govee_H5179", "sps", "iBBQ", "HTP.xw", "s", "TP357 (2142)", "TP972", "x", None]),
    st.dictionaries(st.sampled_from([0x0499, 0xEC88, 1, 0x10, 0x11, 0x8801]), st.binary(max_size=27), max_size=2),
    st.dictionaries(
        st.sampled_from([XIAOMI, bthome.SERVICE, uuid_of("181C"), uuid_of("181D")]), st.binary(max_size=27)
    ),
)
def test_no_bytes_make_a_library_fail_through_us(
    name: str, called: str | None, company: dict[int, bytes], service: dict[str, bytes]
) -> None:
    adv = Advertisement(ADDRESS, called, -60, company, service, (uuid_of("FFF0"),))
    decoder = LibraryDecoder(name, bytes(16) if LIBRARIES[name].keyed else None)
    for _ in range(2):
        found = decoder.decode(adv)
        for point in found.values if found else ():
            assert KNOWN[name].kind(point) is not None
    decoder.supported(adv)


@needed
def test_no_copyleft_code_is_loaded_with_the_libraries() -> None:
    # habluetooth depends on bluetooth-auto-recovery, and that on PyRIC (GPL), which it imports only to restart a radio.
    program = (
        "import sys\n"
        "from edged_ble.codecs.library import LIBRARIES, LibraryDecoder\n"
        "from edged_ble.codecs.advert import Advertisement\n"
        "for name in LIBRARIES:\n"
        "    LibraryDecoder(name).decode(Advertisement('A4:C1:38:8D:18:B2', 'x', -60, {1: b'1'}))\n"
        "print([name for name in sys.modules if name.split('.')[0] == 'pyric'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_missing_library_is_named_with_the_extra_that_brings_it() -> None:
    program = (
        "import sys; sys.modules['govee_ble'] = None\n"
        "from edged_ble.decoders import new_decoder\n"
        "try:\n    new_decoder('govee')\nexcept Exception as exc:\n    print(type(exc).__name__, exc)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("ConfigError")
    assert "govee_ble" in done.stdout
    assert "pip install 'edged[ble-decoders]'" in done.stdout


@pytest.mark.parametrize(
    ("role", "key", "unit", "value", "ours"),
    [
        ("sensor", "temperature", "°C", 21.5, ("temperature", 21.5)),
        ("sensor", "temperature_probe_2", "°F", 212, ("temperature_probe_2", 100.0)),
        ("sensor", "pressure", "mbar", 1013, ("pressure", 1013)),
        ("sensor", "pressure", "Pa", 101325, ("pressure", 1013.25)),
        ("sensor", "voltage", "mV", 2977, ("voltage", 2.977)),
        ("sensor", "carbon_dioxide", "ppm", 400, ("co2", 400)),
        ("sensor", "pm25", "µg/m³", 1, ("pm2_5", 1)),
        ("sensor", "mass_1", "lb", 2, ("mass_lb_1", 2)),
        ("sensor", "humidity", "%", None, ("humidity", None)),
        ("sensor", "signal_strength", "dBm", -60, None),
        ("binary", "battery", None, True, ("battery_low", True)),
        ("binary", "battery_charging", None, True, ("battery_charging", True)),
        ("binary", "moisture_2", None, False, ("moisture_detected_2", False)),
        ("event", "button_left", None, "press", ("button_left", "press")),
        ("event", "lock", None, "locked", ("lock_event", "locked")),
    ],
)
def test_names_and_units(
    role: units.Role, key: str, unit: str | None, value: object, ours: tuple[str, object] | None
) -> None:
    assert units.translated(role, key, unit, value) == ours


@pytest.mark.parametrize(
    ("key", "unit", "value"),
    [
        ("temperature", "K", 300),
        ("pressure", "psi", 1),
        ("luck", "%", 7),
        ("temperature", "°C", "warm"),
        ("mass", "oz", 1),
    ],
)
def test_a_unit_or_a_name_that_is_not_known_is_never_passed_on(key: str, unit: str, value: object) -> None:
    with pytest.raises(ValueError, match="the library"):
        units.translated("sensor", key, unit, value)
