from __future__ import annotations

import math
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edged_serial.codecs import decode as d
from edged_serial.codecs.mbus import MbusDecoder, long_frame
from edged_serial.codecs.nmea import NmeaDecoder, sentence
from edged_serial.codecs.obis import ObisDecoder
from edged_serial.codecs.sml import SmlDecoder, file_of
from edged_serial.codecs.talk import Template
from edged_serial.codecs.values import Conversion, Measured, PointType, Raw, factor_between, integer, number

NAMES = st.text("abcdefgh", min_size=1, max_size=4)
PLAIN = st.text("0123456789.-xyz", max_size=6)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12.5", 12.5),
        (" -  3.0 ", -3.0),
        ("+.5", 0.5),
        ("7.", 7.0),
        ("1E+03", 1000.0),
        ("0012", 12.0),
        ("-9.9E37", -9.9e37),
    ],
)
def test_numbers(text: str, value: float) -> None:
    assert number(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "OL",
        "-OL",
        "----",
        "1_000",
        "nan",
        "inf",
        "Infinity",
        "1,5",
        "1.2.3",
        "0x10",
        "12 34",
        "1e999",
        "١٢",
        "9" * 99,
        "*****",
        "///",
    ],
)
def test_what_is_no_number_has_no_value(text: str) -> None:
    assert number(text) is None
    assert Conversion()(text) is None


def test_decimal_comma() -> None:
    assert number("3,25", ",") == 3.25
    assert number("1.234,5", ",") is None
    assert Conversion(decimal=",")("-0,5") == -0.5


@given(st.floats(allow_nan=False), st.sampled_from(["Wh", "kWh", "GWh"]), st.sampled_from(["Wh", "MWh"]))
@example(9e307, "GWh", "Wh")
def test_a_value_in_another_unit_is_finite_or_none(value: float, given_in: str, wanted: str) -> None:
    found = Conversion(unit=wanted)(Measured(value, given_in))
    assert found is None or math.isfinite(float(found))
    if found is not None:
        exponents = {"Wh": 0, "kWh": 3, "MWh": 6, "GWh": 9}
        assert found == pytest.approx(value * 10.0 ** (exponents[given_in] - exponents[wanted]), rel=1e-14)


@given(st.text(max_size=12))
def test_a_number_is_what_python_reads_too(text: str) -> None:
    value = number(text)
    if value is not None:
        assert value == float(text.replace(" ", "").replace("\t", ""))


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_survives(value: float) -> None:
    assert number(repr(value)) == value


@given(
    st.sampled_from(["number", "integer", "hex", "text", "boolean"]),
    st.one_of(
        st.integers(-(10**400), 10**400), st.integers(-(2**65), 2**65), st.floats(), st.booleans(), st.none(),
        st.text(max_size=8), st.integers(-(2**65), 2**65).map(str),
    ),
    st.sampled_from([None, (0, 3)]),
)  # fmt: skip
@example("number", 10**400, None)
@example("integer", 2**64, None)
def test_any_raw_value_gives_what_can_be_stored_or_nothing(
    kind: PointType, raw: Raw, bits: tuple[int, int] | None
) -> None:
    value = Conversion(kind, bits=bits)(raw)
    assert not isinstance(value, float) or math.isfinite(value)
    if isinstance(value, int):
        assert -(2**63) <= value < 2**64
    if kind == "integer" and bits is None and value is not None:
        assert isinstance(raw, int | float | str)
        assert value == (int(raw) if isinstance(raw, str) else raw), "never another number"


def test_integers_hex_text_and_booleans() -> None:
    assert integer("0042") == 42
    assert integer("4.0") is None
    assert Conversion("hex")("0x1F") == 31
    assert Conversion("hex")("1G") is None
    assert Conversion("integer")(3.5) is None
    assert Conversion("text")("  on ") == "on"
    assert [Conversion("boolean")(raw) for raw in ("on", 0, "1", "maybe")] == [True, False, True, None]


def test_words_flags_and_bits() -> None:
    assert Conversion(enum={"0": "off", "1": "on"})(1) == "on"
    assert Conversion(enum={"0": "off"})("2") is None
    flags = Conversion("integer", flags={0: "hot", 3: "door"})
    assert flags(0b1001) == "hot,door"
    assert flags(0) == ""
    assert Conversion("integer", bits=(4, 7))(0xA5) == 0xA
    assert Conversion("integer", bits=(2, 2))(0b100) is True
    assert flags(-1) is None


def test_what_a_device_says_for_nothing() -> None:
    conversion = Conversion(invalid=frozenset({"-9999"}), invalid_numbers=frozenset({-9999.0}))
    assert conversion(-9999) is conversion("-9999.0") is conversion("-9999") is None
    assert Conversion()(float("nan")) is None
    assert Conversion()(True) is None


@pytest.mark.parametrize(
    ("given_", "wanted", "factor"),
    [("Wh", "kWh", 1e-3), ("kWh", "Wh", 1e3), ("m3", "m³", 1.0), ("l", "m³", 1e-3), ("m^3/h", "l/h", 1e3),
     ("kW", "W", 1e3),
     ("C", "°C", 1.0), ("V", "A", None), ("mW", "MW", 1e-9), ("lb", "g", None), ("", "kWh", None), ("min", "m", None)],
)  # fmt: skip
def test_units(given_: str, wanted: str, factor: float | None) -> None:
    assert factor_between(given_, wanted) == factor


def test_a_unit_of_the_telegram_has_to_fit() -> None:
    assert Conversion(unit="kWh")(Measured(1234, "Wh")) == 1.234
    assert Conversion(unit="kWh")(Measured("5.5", "kWh")) == 5.5
    assert Conversion(unit="kWh")(Measured("5.5", "m3")) is None
    assert Conversion()(Measured("5.5", "m3")) == 5.5


@given(st.dictionaries(NAMES, PLAIN, min_size=1, max_size=5))
def test_keys_and_json_come_back(fields: dict[str, str]) -> None:
    for decoder in (d.KeysDecoder(), d.KeysDecoder(";", ":", "D "), d.JsonDecoder()):
        frame = decoder.encode(fields)
        assert frame is not None
        assert decoder.decode(frame) == fields


@given(st.lists(PLAIN, min_size=1, max_size=5))
def test_csv_and_columns_come_back(values: list[str]) -> None:
    names = [f"f{i}" for i in range(len(values))]
    fields = dict(zip(names, values, strict=True))
    csv = d.CsvDecoder(names)
    assert csv.decode(csv.encode(fields) or b"") == fields
    columns = d.ColumnsDecoder({name: (7 * i, 7 * i + 6) for i, name in enumerate(names)}, None)
    found = columns.decode(columns.encode(fields) or b"")
    assert found is not None
    assert {name: str(text).strip() for name, text in found.items()} == {k: v.strip() for k, v in fields.items()}


@given(st.integers(0, 65535), st.integers(-128, 127), st.floats(width=32, allow_nan=False))
def test_struct_comes_back(a: int, b: int, c: float) -> None:
    decoder = d.StructDecoder("HbxF".replace("F", "f"), ["a", "b", "c"])
    assert decoder.decode(decoder.encode({"a": a, "b": b, "c": c}) or b"") == {"a": a, "b": b, "c": c}
    assert decoder.decode(struct.pack(">Hbxf", a, b, c)) == {"a": a, "b": b, "c": c}
    assert decoder.decode(b"short") is None


@pytest.mark.parametrize(
    ("decoder", "frame"),
    [
        (d.KeysDecoder(), b"a=1,a=2"),
        (d.KeysDecoder(), b"a=1,b"),
        (d.KeysDecoder(prefix="D"), b"a=1"),
        (d.CsvDecoder(["a", "b"]), b"1,2,3"),
        (d.JsonDecoder(), b'{"a": 1, "a": 2}'),
        (d.JsonDecoder(), b'{"a": NaN}'),
        (d.JsonDecoder(), b"[1]"),
        (d.JsonDecoder(), b'{"a": 1'),
        (d.JsonDecoder(), b"[" * 5000),
        (d.ColumnsDecoder({"a": (0, 4)}, 8), b"123456789"),
        (d.ColumnsDecoder({"a": (0, 4)}, None), b"123"),
        (d.RegexDecoder(r"T=(?P<t>\d+)"), b"xT=5"),
        (d.RegexDecoder(r"T=(?P<t>.+)", "utf-8"), b"T=\xff"),
    ],
)
def test_frames_of_another_kind_are_not_taken(decoder: d.Decoder, frame: bytes) -> None:
    assert decoder.decode(frame) is None


def test_fields_inside_json() -> None:
    assert d.JsonDecoder().decode(b'{"a": {"b": [1, {"c": "x"}]}, "d": null}') == {
        "a.b.0": 1,
        "a.b.1.c": "x",
        "d": None,
    }


def test_csv_separated_by_any_number_of_spaces() -> None:
    assert d.CsvDecoder(["a", "_", "b"], " ").decode(b"  1   2 3 ") == {"a": "1", "b": "3"}


@pytest.mark.parametrize(
    "pattern",
    [
        r"(?P<a>(\d+)+)", r"(?P<a>(?:x*y*)*)", r"(?P<a>\d", r"\d+", r"(?P<a>([ab]+ ?){2,})",
        # each of these takes more than a minute with forty digits
        r"(?P<a>(?:\d{1,3},?)+);", r"(?P<a>(?:(?:\d+),?)+);", r"(?P<a>(?:\d?\w?)+);", r"(?:\d|\d\d)+(?P<a>;)",
    ],
)  # fmt: skip
def test_patterns_that_cannot_be_used(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"regular expression|named group|for ever"):
        d.check_pattern(pattern)


@pytest.mark.parametrize(
    "pattern", [r"(?P<a>\d+)(?: \d+)?", r"(?P<a>[(+*]+)", r"(?P<a>(?:ab){3})", r"\((?P<a>\d+)\)+",
    r"(?:(?:\d+),){3}(?P<a>.*)", r"(?P<a>[()]+)(?:ab)*", r"\[(?P<a>\d+)\](?: OK)?", r"[]+](?:ab)+(?P<a>\d{2,4})"],
)  # fmt: skip
def test_harmless_patterns_are_taken(pattern: str) -> None:
    d.check_pattern(pattern)


def test_obis_sets() -> None:
    telegram = b"/XXX5id\r\n\r\n1.8.0(0012*kWh)\r\n1.8.0*01(0010*kWh)\r\n"
    telegram += b"0-1:24.3.0(121030140000)(00)(16)(24)(3)(0-1:24.2.1)(m3)\r\n(00024.123)\r\n!"
    fields = ObisDecoder().decode(telegram)
    assert fields is not None
    assert fields["id"] == "XXX5id"
    assert fields["1.8.0"] == Measured("0012", "kWh")
    assert fields["1.8.0*01"] == Measured("0010", "kWh")
    assert fields["0-1:24.3.0"] == "00024.123"
    assert fields["0-1:24.3.0#0"] == "121030140000"


@pytest.mark.parametrize(
    "telegram", [b"1.8.0(1*kWh)\r\n1.8.0(2*kWh)", b"1.8.0(1*kWh", b"1.8.0 1", b"\xff", b"(1)", b"!"]
)
def test_damaged_or_ambiguous_telegrams_are_not_taken(telegram: bytes) -> None:
    assert ObisDecoder().decode(telegram) is None


def test_nmea_void_sentences_have_no_values() -> None:
    decoder = NmeaDecoder()
    good = decoder.decode(sentence("GPRMC,225446,A,4916.45,N,12311.12,W,000.5,054.7,191194,020.3,E"))
    assert good is not None
    assert Conversion()(good["RMC.latitude"]) == pytest.approx(49.27416667)
    assert Conversion()(good["RMC.longitude"]) == pytest.approx(-123.18533333)
    void = decoder.decode(sentence("GPRMC,225446,V,4916.45,N,12311.12,W,000.5,054.7,191194,020.3,E"))
    assert void is not None
    assert void["RMC.latitude"] is void["RMC.spd_over_grnd"] is None
    assert void["RMC.status"] == "V"


@pytest.mark.parametrize(
    "body", ["GPGGA,1,9916.45,N,00000.00,E,1", "GPGGA,1,4960.00,N,00000.00,E,1", "GPGGA,1,4916.45,,1,E,1"]
)
def test_nmea_impossible_positions_have_no_value(body: str) -> None:
    found = NmeaDecoder().decode(sentence(body))
    assert found is not None
    assert found["GGA.latitude"] is None


def test_nmea_transducers_bring_their_own_unit() -> None:
    found = NmeaDecoder().decode(sentence("WIXDR,C,21.5,C,AIR,P,1.013,B,BARO"))
    assert found == {"XDR.AIR": Measured("21.5", "C"), "XDR.BARO": Measured("1.013", "B")}
    twice = NmeaDecoder().decode(sentence("WIXDR,C,21.5,C,AIR,C,22.5,C,AIR"))
    assert twice == {"XDR.AIR": None}


@given(st.binary(max_size=60))
def test_garbage_is_no_sentence(data: bytes) -> None:
    assert NmeaDecoder().decode(data) is None or b"*" in data


@given(
    st.lists(
        st.tuples(st.binary(min_size=6, max_size=6), st.integers(-4, 3), st.integers(-(2**63), 2**63 - 1)),
        min_size=1,
        max_size=8,
        unique_by=lambda e: e[0],
    )
)
def test_sml_comes_back(entries: list[tuple[bytes, int, int]]) -> None:
    found = SmlDecoder().decode(file_of([(name, 30, scaler, value) for name, scaler, value in entries]))
    assert found is not None
    assert [raw for raw in found.values() if isinstance(raw, Measured)] == [
        Measured(value if scaler == 0 else float(f"{value}e{scaler}"), "Wh") for _, scaler, value in entries
    ]


@given(st.binary(max_size=60))
def test_any_content_of_an_mbus_telegram_is_decoded_or_refused(data: bytes) -> None:
    header = bytes.fromhex("080172452301002D2C0A042A000000")
    MbusDecoder().decode(long_frame(header + data))


def test_mbus_names_tell_storage_tariff_and_function() -> None:
    header = bytes.fromhex("080172452301002D2C0A042A000000")
    records = bytes.fromhex("0C0612345600 4C0600125000 8C100611000000 12591234 04060000 0080".replace(" ", ""))
    found = MbusDecoder().decode(long_frame(header + records))
    assert found is not None
    assert found["energy"] == Measured(563412000.0, "Wh")
    assert found["energy.s1"] == Measured(501200000.0, "Wh")
    assert found["energy.t1"] == Measured(11000.0, "Wh")
    assert "flow_temperature.maximum" in found
    assert found["energy.2"] is None, "0x80000000 means that there is no value"
    assert found["manufacturer"] == "KAM"


@pytest.mark.parametrize(
    ("text", "values", "sent"),
    [
        ("#{address:02d}\r", {"address": 7}, b"#07\r"),
        ("\xff{address:>H}{value:<f}", {"address": 258, "value": 1.5}, b"\xff\x01\x02\x00\x00\xc0?"),
        ("{{{value:.2f}}}", {"value": 3}, b"{3.00}"),
        ("{address}", {"address": "A1"}, b"A1"),
        ("{sequence:03d}", {"sequence": 9}, b"009"),
        ("{address:B}", {"address": 200}, b"\xc8"),
    ],
)
def test_templates(text: str, values: dict[str, float | str | bool], sent: bytes) -> None:
    assert Template(text).render(values) == sent


@pytest.mark.parametrize(
    "text", ["{adress}", "{address", "}", "{address!r}", "{value.__class__}", "{value:>}", "{check:02X}", "€"]
)
def test_templates_that_mean_nothing(text: str) -> None:
    with pytest.raises(ValueError, match=r"place|meaning|formatted|single byte"):
        Template(text)


@pytest.mark.parametrize(
    ("text", "value"), [("{value:B}", 300), ("{value:d}", 1.5), ("{value:>H}", -1), ("{value:.1f}", "x")]
)
def test_values_that_do_not_fit_a_template(text: str, value: float | str) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        Template(text).render({"value": value})
