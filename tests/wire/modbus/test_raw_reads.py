"""Raw reads: what no point names, between the polls, and nothing but reads."""

from __future__ import annotations

import pytest

from edged.adapter import ConfigError, PermanentError, Prober, RawRequest, TransientError
from edged_modbus import TCP
from edged_modbus.config import ModbusTcpBus
from tests.support.modbus import HOST, device, holding, opened, pymodbus_server


@pytest.fixture(scope="module")
def port() -> object:
    with pymodbus_server("tcp", 1) as port:
        yield port


async def test_registers_bits_and_identification_of_a_unit_that_nobody_configured(port: int) -> None:
    async with opened("tcp", port, {}) as bus:
        assert isinstance(bus, Prober)
        assert (await bus.read_raw(RawRequest(1, "holding", 100, 3))).words == (100, 101, 102)
        assert (await bus.read_raw(RawRequest(1, "coil", 1, 2))).words == (1, 0)
        assert (await bus.read_raw(RawRequest(1, "identification"))).texts["VendorName"] == "Fabrikam"


async def test_a_refusal_has_its_code_and_a_silence_its_reason(port: int) -> None:
    async with opened("tcp", port, {}) as bus:
        with pytest.raises(PermanentError, match="illegal data address") as refused:
            await bus.read_raw(RawRequest(1, "holding", 60_000, 1))
        assert getattr(refused.value, "code", None) == 2
    silent = TCP.open("b", ModbusTcpBus(adapter="modbus-tcp", host=HOST, port=1), {})
    with pytest.raises(TransientError) as gone:
        await silent.read_raw(RawRequest(1, "holding"))  # type: ignore[attr-defined]  # a Prober, as shown above
    assert gone.value.reason == "unreachable"
    await silent.close()


@pytest.mark.parametrize(
    "request_",
    [
        RawRequest(1, "write", 0, 1),
        RawRequest(1, "holding", -1, 1),
        RawRequest(1, "holding", 65_535, 2),
        RawRequest(1, "holding", 0, 126),
        RawRequest(256, "holding", 0, 1),
        RawRequest(1, "holding", 0, 1, timeout=0),
    ],
)
async def test_what_is_no_read_is_refused_before_anything_is_sent(port: int, request_: RawRequest) -> None:
    async with opened("tcp", port, device(holding(7))) as bus:
        with pytest.raises(ConfigError):
            await bus.read_raw(request_)
