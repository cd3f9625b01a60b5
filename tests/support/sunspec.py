"""SunSpec devices made with pysunspec2's own encoder, served by a scripted server."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sunspec2 import device  # type: ignore[import-untyped]  # it has no types

from tests.support.rogue import Action, Request

MARK, END = b"SunS", b"\xff\xff\0\0"
COMMON = {"Mn": "Fabrikam", "Md": "Sun 10.0", "Vr": "1.2", "SN": "4711", "DA": 1}
INVERTER = {
    "A": 342, "AphA": 114, "A_SF": -1, "PhVphA": 2301, "V_SF": -1, "W": 789, "W_SF": 1, "Hz": 5001, "Hz_SF": -2,
    "WH": 4_321_000, "WH_SF": 0, "TmpCab": 415, "Tmp_SF": -1, "St": 4, "Evt1": 0,
}  # fmt: skip
INPUTS = {
    "DCA_SF": -2, "DCV_SF": -1, "DCW_SF": 0, "DCWH_SF": 0, "N": 2,
    "module": [{"ID": 1, "IDStr": "String 1", "DCA": 657, "DCV": 6000, "DCW": 3942}, {"ID": 2, "DCW": 1}],
}  # fmt: skip
NAMEPLATE = {"DERTyp": 4, "WRtg": 10000, "WRtg_SF": 0}
Chain = list[tuple[int, Mapping[str, Any]]]


def chain() -> Chain:
    """What an inverter like Fronius' has, and a model that only its maker knows."""
    return [(1, COMMON), (103, INVERTER), (120, NAMEPLATE), (160, INPUTS), (65_000, {}), (122, {"StSetLimMsk": 0})]


def encoded(number: int, data: Mapping[str, Any]) -> bytes:
    """One model as it lies in the registers."""
    if number >= 65_000:  # what we call a maker's own
        return struct.pack(">HH", number, 3) + b"\1\2" * 3
    body: bytes = device.Model(number, data=dict(data)).get_mb()[4:]
    return struct.pack(">HH", number, len(body) // 2) + body


@dataclass
class Map:
    """The registers of a device; `models` can be changed at any time, `edit` is called before each reply."""

    models: Chain = field(default_factory=chain)
    base: int = 40000
    end: bytes = END
    edit: Any = None

    def content(self) -> bytes:
        return MARK + b"".join(encoded(number, data) for number, data in self.models) + self.end

    def __call__(self, request: Request) -> Iterable[Action]:
        """A behaviour for `Rogue`: registers that are not there are refused."""
        if self.edit is not None:
            self.edit(request)
        content = self.content()
        at = 2 * (request.start - self.base)
        part = content[at : at + 2 * request.count] if at >= 0 else b""
        if request.function != 3 or len(part) != 2 * request.count:  # read holding registers
            return [request.frame(bytes((request.function | 0x80, 2)))]
        return [request.frame(bytes((3, len(part))) + part)]
