"""What other tools, manuals and PLC languages call things that have another name here, for "did you mean"."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

_OTHER_WORDS: Mapping[str, str] = {
    # settings
    "unit": "slave slave-id slaveid slave-address station station-id unit-id unitid device-id modbus-id id address",
    "every": "interval scan-interval poll poll-interval polling polling-interval period rate scan-rate cycle refresh",
    "host": "ip ip-address ipaddress hostname address server url",
    "url": "broker server host uri endpoint address hostname",
    "port": "tty device com com-port serial-port path",
    "baudrate": "baud speed bps",
    "type": "datatype data-type dtype format kind",
    "holding": "register reg holding-register holding-registers hr",
    "input": "input-register input-registers ir",
    "discrete": "discrete-input di",
    "scale": "factor multiplier multiply gain coefficient",
    "offset": "bias",
    "order": "byte-order byteorder word-order wordorder endian endianness endianess swap byte-swap word-swap",
    "decimals": "precision digits round",
    "range": "min max limits minimum maximum valid",
    "deadband": "threshold hysteresis delta",
    "length": "count size len",
    "enum": "states options values mapping",
    "writable": "write writeable access rw read-only readonly",
    "labels": "tags tag meta metadata",
    "points": "registers values measurements sensors datapoints signals",
    "profile": "template model",
    "adapter": "protocol driver type",
    "connector": "protocol driver type",
    "username": "user login",
    "password": "pass passwd pw",
    "enabled": "enable active disabled",
    # types, among them those of IEC 61131-3
    "bit": "bool boolean",
    "uint8l": "byte u8 uint8",
    "int8l": "sint i8 s8 int8",
    "int16": "int integer short i16 s16 signed signed16 sint16",
    "uint16": "word uint ushort u16 unsigned unsigned16",
    "int32": "dint long i32 s32 signed32 sint32",
    "uint32": "dword udint ulong u32 unsigned32",
    "int64": "lint longlong i64 s64 signed64",
    "uint64": "lword ulint u64 unsigned64",
    "float32": "float real single f32 ieee754",
    "float64": "double lreal f64",
    "float16": "half",
    "bcd16": "bcd",
    "string": "str text ascii char",
    "number": "float real double decimal",
    "text": "string str",
    "boolean": "bool bit",
    # adapters
    "modbus-tcp": "modbus tcp",
    "modbus-rtu": "rtu modbus-serial rs485 rs-485",
    "modbus-ascii": "ascii",
    "ble": "bluetooth bluetooth-le",
    "serial": "uart rs232 rs-232",
    "sim": "simulator simulation simulated",
    "mqtt-in": "mqtt",
}  # fmt: skip
"""What it is called here → what it is called elsewhere."""


def called(word: str, known: Iterable[str]) -> str | None:
    """The one of `known` that others call `word`, or that is called `word` here and something of `known` elsewhere."""
    wanted, options = folded(word), {folded(one): one for one in known}
    for ours, theirs in _OTHER_WORDS.items():
        if ours in options and wanted in theirs.split():
            return options[ours]
    return next((options[one] for one in _OTHER_WORDS.get(wanted, "").split() if one in options), None)


def folded(word: str) -> str:
    """A word without what people confuse."""
    return word.strip().casefold().replace("_", "-")
