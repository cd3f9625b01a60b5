"""What commands cost: from the publication to the verified result, and the memory of 10,000 that wait.

    python -m tests.bench.commands [COMMANDS] [QUEUED]

Everything is real: mosquitto, the daemon in its own process, pymodbus' server as the one idle device. Latency is
measured by the sender's clock, from handing the command to its MQTT client to hearing `verified`.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.measure import memory, percentile
from tests.support.commanding import RESULTS, Sender, config, ending, healthy, now, results
from tests.support.gateway import Gateway, running
from tests.support.modbus import pymodbus_server
from tests.support.mosquitto import Mosquitto
from tests.support.subscriber import Subscriber, subscribed

_POINTS = 50
"""Of the device that does not answer: of each, one command waits."""


async def latency(folder: Path, count: int) -> dict[str, Any]:
    """Milliseconds from the publication to the verified result, one command after the other."""
    with Mosquitto(folder / "broker") as broker, pymodbus_server("tcp", 1) as port:
        gateway = Gateway(folder / "gateway", config(port, broker.port))
        with subscribed(broker.port, RESULTS) as heard:
            async with running(gateway):
                await healthy(gateway)
                sender = Sender(broker.port)
                took = []
                for i in range(count):
                    began = time.time_ns() // 1000
                    sender.send(id=str(i), point="plc/setpoint", value=10 + i % 20)
                    assert (await ending(heard, str(i)))["state"] == "verified"
                    verified = next(one for one in reversed(heard.messages) if b'"verified"' in one.payload)
                    took.append((verified.at - began) / 1000)
                    heard.messages.clear()
                sender.close()
    return {"commands": count, "median_ms": round(median(took), 1), "p95_ms": round(percentile(took, 0.95), 1),
            "max_ms": round(max(took), 1)}  # fmt: skip


async def queued(folder: Path, count: int, *, answers: bool) -> dict[str, Any]:
    """MiB before and after so many commands, each with an expiry, for a device that answers, or does not."""
    with Mosquitto(folder / "broker") as broker, pymodbus_server("tcp", 1) as port:
        document = config(port, broker.port, session_expiry="1h")
        many = {f"p{i}": {"holding": i, "writable": True} for i in range(_POINTS)}
        device = {"bus": "plc", "unit": 1, "every": "200ms", "timeout": "300ms"}
        document["buses"]["gone"] = {"adapter": "modbus-tcp", "host": "127.0.0.1", "port": 1}
        document["devices"]["many"] = {**device, "bus": "plc" if answers else "gone", "points": many}
        gateway = Gateway(folder / "gateway", document)
        with subscribed(broker.port, RESULTS) as heard:
            async with running(gateway):
                await healthy(gateway)
                await asyncio.sleep(2)
                before, _ = memory(gateway.pid)
                sender = Sender(broker.port)
                began = time.monotonic()
                expires = now() + 600_000_000
                for i in range(count):
                    payload = {"id": str(i), "point": f"many/p{i % _POINTS}", "value": i % 1000, "expires": expires}
                    sender.post(payload)
                await _told(heard, count if answers else count - _POINTS)
                seconds = time.monotonic() - began
                after, _ = memory(gateway.pid)
                sender.close()
                status = await gateway.status()
    states: dict[str, int] = {}
    for one in results(heard):
        name = f"{one['state']}({one['reason']})" if "reason" in one else one["state"]
        states[name] = states.get(name, 0) + 1
    return {"queued": count, "answers": answers, "seconds": round(seconds, 1), "rss_before_mib": round(before, 1),
            "rss_after_mib": round(after, 1), "told": states, "waiting": status["commands"]["waiting"],
            "polls": sum(one["polls"] for bus in status["buses"] for one in bus["devices"])}  # fmt: skip


async def _told(heard: Subscriber, count: int) -> None:
    async with asyncio.timeout(300):
        while sum(b'"accepted"' not in one.payload for one in heard.messages) < count:
            await asyncio.sleep(0.1)


async def main() -> None:
    count, many = (int(word) for word in (sys.argv[1:] + ["200", "10000"][len(sys.argv) - 1 :]))
    with tempfile.TemporaryDirectory() as name:
        print(json.dumps(await latency(Path(name, "latency"), count)))
        for answers in (True, False):
            print(json.dumps(await queued(Path(name, f"queued-{answers}"), many, answers=answers)))


if __name__ == "__main__":
    asyncio.run(main())
