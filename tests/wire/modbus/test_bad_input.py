"""A Modbus server that gets everything wrong, one thing at a time: never a wrong value, always the right reason.

Every test ends with the server behaving: the very next poll must be right again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from pathlib import Path

import pytest

from edged.adapter import Duration, TransientError
from tests.support import rogue
from tests.support.modbus import HOST, device, faults, holding, names, opened, values
from tests.support.rogue import Behaviour, Rogue

POINTS = holding(100, 101, 102, 103)
RIGHT = {f"h{n}": n for n in (100, 101, 102, 103)}

TCP_FAULTS: dict[str, tuple[Behaviour, str, str]] = {
    "silence": (rogue.silent, "timeout", "no answer within"),
    "a late reply": (rogue.late(2), "timeout", "no answer within"),
    "garbage": (rogue.send(b"\xff\x00garbage\x80\x81\x82"), "protocol", "not Modbus"),
    "a web page": (rogue.send(b"HTTP/1.1 400 Bad Request\r\n" * 40), "protocol", "not Modbus"),
    "another unit": (rogue.wrong_unit, "protocol", "unit 0 answered when unit 1 was asked"),
    "another transaction": (rogue.wrong_transaction, "protocol", "answered transaction"),
    "another protocol": (rogue.wrong_protocol, "protocol", "not Modbus"),
    "another function": (rogue.wrong_function, "protocol", "answered function 4 when asked 3"),
    "a length too short": (rogue.length_field(-1), "protocol", "bytes"),
    "a length too long": (rogue.length_field(+1), "protocol", "only a part of a reply"),
    "a length of nothing": (rogue.length_field(-10), "protocol", "not Modbus"),
    "an impossible length": (rogue.length_field(40_000), "protocol", "not Modbus"),
    "a wrong byte count": (rogue.byte_count(2), "protocol", "bytes of data"),
    "an odd byte count": (rogue.byte_count(-1), "protocol", "bytes of data"),
    "a register too many": (rogue.registers(+1), "protocol", "bytes"),
    "a register too few": (rogue.registers(-1), "protocol", "bytes"),
    "no register at all": (rogue.registers(-4), "protocol", "not Modbus|bytes"),
    "half a frame": (rogue.truncated, "protocol", "only a part of a reply"),
    "a close in mid-frame": (rogue.cut(9), "protocol", "closed in the middle"),
    "a reset in mid-frame": (rogue.cut(9, rogue.RESET), "protocol", "closed in the middle|closed the connection"),
    "a close instead of an answer": (rogue.closing, "protocol", "closed the connection instead of answering"),
    "a refusal without a code": (lambda r: [r.frame(bytes([r.function | 0x80]))], "protocol", "not Modbus"),
    "a refusal with two codes": (lambda r: [r.frame(bytes([r.function | 0x80, 2, 2]))], "protocol", "2 bytes, not 3"),
}


@pytest.mark.parametrize("fault", TCP_FAULTS)
async def test_tcp(fault: str) -> None:
    behaviour, reason, message = TCP_FAULTS[fault]
    async with Rogue([behaviour, rogue.good]) as server:
        async with opened("tcp", server.port, device(POINTS)) as bus:
            job = bus.prepare("m", list(POINTS))
            with pytest.raises(TransientError, match=message) as caught:
                await bus.poll(job)
            assert caught.value.reason == reason
            assert "\n" not in str(caught.value)
            for _ in range(3):
                assert values(await bus.poll(job)) == RIGHT
        assert server.connections == 2, "the connection that went wrong was used again"


RTU_FAULTS: dict[str, tuple[Behaviour, str, str]] = {
    "silence": (rogue.silent, "timeout", "no answer within"),
    "garbage": (rogue.send(b"\xff\x00garbage\x80\x81\x82"), "protocol", "no reply to the request"),
    "another unit": (rogue.wrong_unit, "protocol", "unit 0 answered when unit 1 was asked"),
    "another function": (rogue.wrong_function, "protocol", "no reply to the request"),
    "a wrong byte count": (rogue.byte_count(2), "protocol", "no reply to the request"),
    "a register too many": (rogue.registers(+1), "protocol", "no reply to the request"),
    "a register too few": (rogue.registers(-1), "protocol", "no reply to the request"),
    "half a frame": (rogue.truncated, "protocol", "no reply to the request"),
    "a flipped bit": (rogue.corrupt, "protocol", "no reply to the request"),
    "a close in mid-frame": (rogue.cut(5), "protocol", "closed the connection"),
    "a close instead of an answer": (rogue.closing, "protocol", "closed the connection"),
}


@pytest.mark.parametrize("fault", RTU_FAULTS)
async def test_rtu_over_tcp(fault: str) -> None:
    behaviour, reason, message = RTU_FAULTS[fault]
    async with Rogue([rogue.good, behaviour, rogue.good], framing="rtu") as server:
        async with opened("rtu-over-tcp", server.port, device(POINTS, timeout=0.1)) as bus:
            job = bus.prepare("m", list(POINTS))
            assert values(await bus.poll(job)) == RIGHT
            with pytest.raises(TransientError, match=message) as caught:
                await bus.poll(job)
            assert caught.value.reason == reason
            for _ in range(3):
                assert values(await bus.poll(job)) == RIGHT


@pytest.mark.parametrize("noise", [b"\x00", b"\xff\xff", b"\x01\x03", b"\x01\x03\x08\x00"])
async def test_noise_before_an_rtu_reply_costs_nothing(noise: bytes) -> None:
    async with (
        Rogue([rogue.preceded_by(noise)], framing="rtu") as server,
        opened("rtu-over-tcp", server.port, device(POINTS)) as bus,
    ):
        job = bus.prepare("m", list(POINTS))
        assert [values(await bus.poll(job)) for _ in range(2)] == [RIGHT, RIGHT]


async def test_an_rtu_reply_after_what_may_have_been_the_request_of_another_master_is_not_taken() -> None:
    async with (
        Rogue([rogue.good, rogue.preceded_by(bytes(range(40))), rogue.good], framing="rtu") as server,
        opened("rtu-over-tcp", server.port, device(POINTS, timeout=0.1)) as bus,
    ):
        job = bus.prepare("m", list(POINTS))
        assert values(await bus.poll(job)) == RIGHT
        with pytest.raises(TransientError, match="another master"):
            await bus.poll(job)
        assert values(await bus.poll(job)) == RIGHT


@pytest.mark.parametrize(("kind", "framing"), [("tcp", "tcp"), ("rtu-over-tcp", "rtu")])
async def test_a_reply_in_single_bytes_is_a_reply(kind: str, framing: str) -> None:
    server = Rogue([rogue.dripping()], framing=framing)  # type: ignore[arg-type]  # parametrised
    async with server, opened(kind, server.port, device(POINTS, timeout=2)) as bus:
        assert values(await bus.poll(bus.prepare("m", list(POINTS)))) == RIGHT


@pytest.mark.parametrize(("kind", "framing"), [("tcp", "tcp"), ("rtu-over-tcp", "rtu")])
async def test_a_device_that_repeats_itself_never_answers_the_next_request(kind: str, framing: str) -> None:
    points = holding(1) | holding(2)
    server = Rogue([rogue.twice], framing=framing)  # type: ignore[arg-type]  # parametrised
    async with server, opened(kind, server.port, device(points)) as bus:
        one, two = bus.prepare("m", ["h1"]), bus.prepare("m", ["h2"])
        for _ in range(4):
            assert values(await bus.poll(one)) == {"h1": 1}
            assert values(await bus.poll(two)) == {"h2": 2}


@pytest.mark.parametrize("reconnect", [False, True])
async def test_a_late_rtu_reply_is_never_taken_for_the_next_whatever_connection_it_comes_on(reconnect: bool) -> None:
    """A serial server hands what comes late from the line to whoever is connected by then."""
    owed: list[bytes] = []
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        with contextlib.suppress(asyncio.CancelledError):
            while request := await reader.read(8):
                read = request[1] == 3
                body = bytes([1, 3, 2]) + request[2:4] if read else bytes([1, request[1] | 0x80, 1])
                owed.append(body + rogue.crc(body))
                if not read or request[3] != 1:  # the device answers in order
                    writer.write(b"".join(owed))
                    owed.clear()
        writer.close()

    server = await asyncio.start_server(serve, HOST, 0)
    port = server.sockets[0].getsockname()[1]
    points = holding(1, 2)
    async with server, opened("rtu-over-tcp", port, device(points, timeout=0.15)) as bus:
        one, two = bus.prepare("m", ["h1"]), bus.prepare("m", ["h2"])
        assert values(await bus.poll(two)) == {"h2": 2}
        assert faults(await bus.poll(one)) == {"h1": "bad(timeout)"}
        if reconnect:
            await bus.close()
        assert values(await bus.poll(two)) == {"h2": 2}
        assert bus.foreign == 1
        assert connections == 1 + reconnect


async def test_a_connection_on_which_nothing_comes_any_more_is_opened_anew() -> None:
    async with Rogue([rogue.good, *[rogue.silent] * 3, rogue.good], framing="rtu") as server:
        async with opened("rtu-over-tcp", server.port, device(POINTS, timeout=0.05)) as bus:
            job = bus.prepare("m", list(POINTS))
            assert values(await bus.poll(job)) == RIGHT
            for _ in range(3):
                with pytest.raises(TransientError, match="no answer"):
                    await bus.poll(job)
            assert values(await bus.poll(job)) == RIGHT
        assert server.connections == 2


async def test_a_reply_to_an_earlier_udp_request_is_passed_over() -> None:
    loop = asyncio.get_running_loop()
    seen: list[tuple[bytes, tuple[str, int]]] = []

    class Late(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            seen.append((data, addr))
            number, start = int.from_bytes(data[:2], "big"), data[8:10]
            for old in range(max(1, number - 2), number + 1):  # the last ones again, then the right one
                value = start if old == number else b"\xba\xad"
                reply = old.to_bytes(2, "big") + b"\0\0\0\5" + bytes([1, 3, 2]) + value
                self.transport.sendto(reply, addr)  # type: ignore[attr-defined]  # a datagram transport

    transport, _ = await loop.create_datagram_endpoint(Late, local_addr=(HOST, 0))
    port = transport.get_extra_info("sockname")[1]
    async with opened("udp", port, device(holding(7))) as bus:
        job = bus.prepare("m", ["h7"])
        for _ in range(5):
            assert values(await bus.poll(job)) == {"h7": 7}
        assert bus.foreign > 0
    transport.close()


@pytest.mark.parametrize("kind", ["tcp", "rtu-over-tcp"])
async def test_an_endpoint_that_refuses_is_unreachable_at_once(kind: str) -> None:
    with socket.socket() as unused:
        unused.bind((HOST, 0))
        port = unused.getsockname()[1]
        async with opened(kind, port, device(POINTS), timeout=Duration(30)) as bus:
            async with asyncio.timeout(5):
                with pytest.raises(TransientError, match=f"{HOST}:{port} refuses the connection") as caught:
                    await bus.poll(bus.prepare("m", list(POINTS)))
    assert caught.value.reason == "unreachable"


async def test_a_udp_port_that_nobody_serves_does_not_cost_the_time_out() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unused:
        unused.bind((HOST, 0))
        port = unused.getsockname()[1]
    async with opened("udp", port, device(POINTS, timeout=30)) as bus, asyncio.timeout(5):
        with pytest.raises(TransientError, match="nobody listens") as caught:
            await bus.poll(bus.prepare("m", list(POINTS)))
    assert caught.value.reason == "unreachable"


async def test_a_host_that_does_not_exist_is_unreachable() -> None:
    async with opened("tcp", 502, device(POINTS), host="no-such-host.invalid", timeout=Duration(20)) as bus:
        with pytest.raises(TransientError, match=r"'no-such-host.invalid'.*(check|give an IP)") as caught:
            await bus.poll(bus.prepare("m", list(POINTS)))
    assert caught.value.reason == "unreachable"


async def test_an_endpoint_that_never_accepts_is_unreachable() -> None:
    """A listener with a full queue drops further SYNs, as a host that is switched off does."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex((HOST, port))
        await asyncio.sleep(0.05)
        async with opened("tcp", port, device(POINTS), timeout=Duration(0.2)) as bus:
            with pytest.raises(TransientError, match=r"no connection to 127\.0\.0\.1") as caught:
                await bus.poll(bus.prepare("m", list(POINTS)))
        for filler in fillers:
            filler.close()
    assert caught.value.reason == "unreachable"


async def test_a_device_that_stops_answering_costs_one_time_out_a_poll() -> None:
    points = holding(*range(0, 5000, 500))
    async with Rogue([rogue.good, rogue.good, rogue.silent]) as server:
        async with opened("tcp", server.port, device(points)) as bus:
            job = bus.prepare("m", list(points))
            assert len(bus.plan(job).requests) == 10
            result = await bus.poll(job)
    assert len(server.requests) == 3
    assert len(values(result)) == 2
    assert set(faults(result).values()) == {"bad(timeout)"}
    assert len(faults(result)) == 8


async def test_a_block_that_is_never_answered_does_not_hide_the_others_for_ever() -> None:
    points = holding(*range(0, 5000, 1000))

    def behave(request: rogue.Request) -> object:
        return rogue.silent(request) if request.start == 1000 else rogue.good(request)

    async with Rogue([behave]) as server:  # type: ignore[list-item]  # what the behaviours return
        async with opened("tcp", server.port, device(points, timeout=0.05)) as bus:
            job = bus.prepare("m", list(points))
            await bus.poll(job)
            notes: list[str] = []
            for _ in range(4):
                result = await bus.poll(job)
                notes += result.notes
                assert names(result) == sorted(points)
                assert faults(result) == {"h1000": "bad(timeout)"}
                assert len(values(result)) == 4
            asked = len(server.requests)
            assert values(await bus.poll(job)) == {f"h{n}": n for n in (0, 2000, 3000, 4000)}
            assert len(server.requests) == asked + 4, "the silent register still costs a time-out each poll"
    assert notes == ["m: holding 1000 is never answered, unlike others; leaving out h1000"]


@pytest.mark.parametrize("kind", ["tcp", "rtu-over-tcp"])
async def test_a_machine_that_stands_still_for_longer_than_the_time_out_blames_no_device(kind: str) -> None:
    server = Rogue([rogue.good], framing="tcp" if kind == "tcp" else "rtu")
    async with server, opened(kind, server.port, device(POINTS, timeout=0.1)) as bus:
        job = bus.prepare("m", list(POINTS))
        assert values(await bus.poll(job)) == RIGHT
        await asyncio.sleep(0.01)
        poll = asyncio.create_task(bus.poll(job))
        asyncio.get_running_loop().call_soon(time.sleep, 0.2)  # it is asked by then, and has not heard it
        assert values(await poll) == RIGHT
        asked = len(server.requests)
        server.script[:] = [rogue.silent]
        with pytest.raises(TransientError, match=r"no answer within 0\.1 s"):
            await bus.poll(job)
        assert len(server.requests) == asked + 1


async def test_retries_repeat_the_request_on_a_new_connection() -> None:
    async with Rogue([rogue.silent, rogue.wrong_unit, rogue.good]) as server:
        async with opened("tcp", server.port, device(POINTS, retries=2)) as bus:
            result = await bus.poll(bus.prepare("m", list(POINTS)))
    assert values(result) == RIGHT
    assert result.transactions == 3
    assert server.connections == 3


async def test_an_idle_connection_closed_by_the_peer_is_not_a_failure() -> None:
    async with Rogue([rogue.good, rogue.closing, rogue.good]) as server:
        async with opened("tcp", server.port, device(POINTS)) as bus:
            job = bus.prepare("m", list(POINTS))
            assert [values(await bus.poll(job)) for _ in range(3)] == [RIGHT] * 3


async def test_a_busy_device_is_asked_again() -> None:
    async with Rogue([rogue.refuse(6), rogue.good]) as server:
        async with opened("tcp", server.port, device(POINTS, retries=1)) as bus:
            assert values(await bus.poll(bus.prepare("m", list(POINTS)))) == RIGHT
        assert server.connections == 1, "an exception is a proper reply"


@pytest.mark.parametrize(
    ("code", "reason"), [(4, "exception"), (5, "exception"), (6, "exception"), (10, "exception"), (11, "timeout")]
)
async def test_passing_exceptions_teach_nothing(code: int, reason: str) -> None:
    async with Rogue([rogue.refuse(code), rogue.good]) as server:
        async with opened("tcp", server.port, device(POINTS)) as bus:
            job = bus.prepare("m", list(POINTS))
            with pytest.raises(TransientError, match=f"exception {code}") as caught:
                await bus.poll(job)
            assert caught.value.reason == reason
            result = await bus.poll(job)
            assert values(result) == RIGHT
            assert (result.transactions, result.notes) == (1, [])


@pytest.mark.parametrize("behaviour", [rogue.silent, rogue.send(b"\x00" * 300), rogue.cut(9), rogue.wrong_unit])
async def test_failures_leak_neither_sockets_nor_tasks(behaviour: Behaviour) -> None:
    async with Rogue([behaviour]) as server:
        async with opened("tcp", server.port, device(POINTS, timeout=0.02)) as bus:
            job = bus.prepare("m", list(POINTS))
            tasks = len(asyncio.all_tasks())
            for _ in range(30):
                with pytest.raises(TransientError):
                    await bus.poll(job)
            await asyncio.sleep(0.05)
            assert len(asyncio.all_tasks()) <= tasks + 1
            assert server.open <= 1
            assert len(list(Path("/proc/self/fd").iterdir())) < 60
        await bus.close()
        await asyncio.sleep(0.05)
        assert server.open == 0


async def test_failures_do_not_flood_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with Rogue([rogue.silent, rogue.send(b"\x00" * 300), rogue.wrong_unit, rogue.cut(9)]) as server:
        async with opened("tcp", server.port, device(POINTS, timeout=0.02)) as bus:
            job = bus.prepare("m", list(POINTS))
            for _ in range(6):
                with pytest.raises(TransientError):
                    await bus.poll(job)
    assert caplog.records == []
