"""ThingWorx's side of its REST API, played: things that are there or not, properties that take a value or not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from edged.config.types import Duration, Secret
from edged.uplink.state import State
from tests.support.forwarding import context_of, gateway, through_an_outage
from tests.support.httpserver import Answer, HttpServer, Taken, audit_of_headers
from tests.support.waiting import until

KEY = "1x9256cf-9fe9-434e-adbe-9772c0c40261"


@dataclass
class Platform:
    """Answers as the platform does."""

    things: set[str]
    key: str = KEY
    broken: set[str] = field(default_factory=set)

    def __call__(self, one: Taken) -> Answer:
        _, root, collection, thing, services, service = one.target.split("/")
        assert (one.method, root, collection, services) == ("POST", "Thingworx", "Things", "Services")
        assert (service, one.header("content-type")) == ("UpdatePropertyValues", "application/json")
        if one.header("appkey") != self.key:
            return Answer(401)
        if thing not in self.things:
            return Answer(404, body=f"Thing: {thing} does not exist\n".encode())
        if thing in self.broken:
            return Answer(500, body=b"Unable to Invoke Service UpdatePropertyValues : cannot convert to NUMBER")
        rows = orjson.loads(one.body)["values"]["rows"]
        assert all(set(row) == {"name", "value", "time", "quality"} for row in rows)
        return Answer(200)


def sending(path: Path, url: str, **settings: Any) -> Any:
    quick = {"response_timeout": Duration(1.5), "retry_max": Duration(0.2), "connector": "thingworx", **settings}
    return gateway(path / "buffer.db", 0, url=url, app_key=Secret(name="k"), **quick)


def values(taken: Iterable[Taken]) -> dict[tuple[str, float], int]:
    """The time of each value of p0 that came, by thing and value."""
    return {
        (one.target.split("/")[3], row["value"]["value"]): row["time"]
        for one in taken for row in orjson.loads(one.body)["values"]["rows"] if row["name"] == "p0"
    }  # fmt: skip


def context() -> Any:
    return context_of(secret=lambda _: KEY)


async def test_an_outage_loses_nothing_and_times_stay_as_they_were(tmp_path: Path) -> None:
    with HttpServer(Platform({f"d{i}" for i in range(10)})) as server:
        async with sending(tmp_path, server.url, context=context()) as one:
            await through_an_outage(one, server, before=3, after=3)
            assert (await one.saved()) == {"delivered": 8000, "pending": 0, "dead": 0}
    got = values(server.taken)
    assert got.keys() == {(f"d{i}", float(poll)) for i in range(10) for poll in range(1, 17)}
    assert all(3590 < (got["d0", 16.0] - got["d0", float(poll)]) / 1000 < 3660 for poll in range(4, 14))
    audit = audit_of_headers(server.taken)
    assert (audit.missing, audit.out_of_order) == ([], 0)
    assert audit.duplicates <= 4


async def test_a_thing_that_is_not_there_and_one_that_takes_no_value_do_not_hold_up_the_others(tmp_path: Path) -> None:
    with HttpServer(Platform({f"d{i}" for i in range(9)}, broken={"d3"})) as server:
        async with sending(tmp_path, server.url, context=context()) as one:
            one.poll(2)
            await one.drained()
            assert (await one.saved()) == {"delivered": 800, "pending": 0, "dead": 200}
            assert one.forwarder.state().last_rejection
    assert {thing for thing, _ in values(server.taken)} == {f"d{i}" for i in range(9)} - {"d3"}


async def test_an_application_key_that_has_expired_is_told_and_costs_nothing(tmp_path: Path) -> None:
    platform = Platform({f"d{i}" for i in range(10)}, key="another")
    with HttpServer(platform) as server:
        async with sending(tmp_path, server.url, context=context()) as one:
            one.poll(2)
            await until(lambda: one.forwarder.state().state is State.AUTHENTICATION_FAILED)
            assert "401 Unauthorized: check `app_key`" in one.forwarder.state().last_error
            platform.key = KEY
            await one.drained()
            assert (await one.saved()) == {"delivered": 1000, "pending": 0, "dead": 0}
