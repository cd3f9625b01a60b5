from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edged.adapter import Value
from edged_ble.codecs.advert import Advertisement, Decoded, Kind, Stateless
from edged_ble.listener import CONFIRM, KEPT, Listener

SECOND = 1_000_000


class Plain(Stateless):
    """Company 1: a byte of temperature, and a second byte, the number, if there is one. Company 2: a button."""

    points: Mapping[str, Kind] = {"temperature": Kind(), "button": Kind("text", event=True)}

    def decode(self, adv: Advertisement) -> Decoded | None:
        if 2 in adv.manufacturer_data:
            return Decoded({"button": "press"})
        data = adv.manufacturer_data.get(1)
        if data is None:
            return None
        if not data:
            return Decoded({}, problem="it is empty")
        return Decoded({"temperature": data[0]}, packet_id=data[1] if len(data) > 1 else None)


def hear(listener: Listener, seconds: float, data: bytes, company: int = 1) -> None:
    moment = round(seconds * SECOND)
    listener.hear(Advertisement("A", rssi=-50, manufacturer_data={company: data}), moment, moment)


def values(listener: Listener, since: int = 0) -> list[Mapping[str, Value]]:
    return [packet.values for packet in listener.since(since)]


def test_a_repetition_with_the_same_number_is_no_measurement() -> None:
    ear = Listener(Plain(), 300)
    for moment, data in enumerate([b"\x14\x01", b"\x14\x01", b"\x14\x02", b"\x14\x02", b"\x15\x03"]):
        hear(ear, moment, data)
    assert [one["temperature"] for one in values(ear)] == [20, 20, 21]
    hear(ear, 10_000, b"\x15\x03")
    assert ear.count == 3, "however long it repeats it"
    assert ear.sightings == 6


def test_unchanged_values_without_a_number_are_confirmed_from_time_to_time() -> None:
    ear = Listener(Plain(), 300)
    for tenth in range(1800):
        hear(ear, tenth / 10, b"\x14")
    assert ear.count == 180 / CONFIRM
    assert ear.last == 120 * SECOND, "with the time at which they came"
    hear(ear, 180.05, b"\x15")
    assert ear.count == 4, "a change at once"


def test_a_sensor_that_takes_turns_with_two_messages_is_not_new_each_time() -> None:
    ear = Listener(Plain(), 300)
    for tenth in range(100):
        hear(ear, tenth / 10, b"\x14")
        hear(ear, tenth / 10 + 0.05, b"", company=2)
    assert [list(one) for one in values(ear)] == [["temperature"], ["button"]]


def test_one_press_is_reported_once_and_the_next_press_again() -> None:
    ear = Listener(Plain(), 300)
    for moment in (0, 0.2, 0.4, 1.5, 3.0, 10.0, 10.2):
        hear(ear, moment, b"", company=2)
    assert ear.count == 2


@dataclass(eq=False)
class Fetching:
    """Satisfies `Reader`."""

    thin: bool = False
    delivered: int = 0
    lost: int = 0

    def fetch(self, ear: Listener) -> list[int]:
        numbers = [packet.number for packet in ear.since(self.delivered)]
        self.delivered = ear.count
        ear.tidy()
        return numbers


def test_what_is_not_fetched_is_bounded_and_the_newest_stay_and_the_loss_is_counted() -> None:
    ear, reader = Listener(Plain(), 300), Fetching()
    ear.readers.add(reader)
    for number in range(KEPT + 50):
        hear(ear, number, bytes([number % 256, number % 256]))
    kept = ear.since(0)
    assert len(kept) == KEPT
    assert kept[-1].number == ear.count == KEPT + 50
    assert [packet.number for packet in ear.since(ear.count - 2)] == [ear.count - 1, ear.count]
    assert not ear.since(ear.count)
    assert reader.lost == 50


def test_what_was_fetched_is_not_kept() -> None:
    ear, reader = Listener(Plain(), 300), Fetching()
    ear.readers.add(reader)
    for number in range(10):
        hear(ear, number, bytes([number, number]))
    assert reader.fetch(ear) == list(range(1, 11))
    assert not ear.since(0)
    assert ear.newest is not None
    assert ear.newest.number == 10, "for a person who asks"


def test_a_reader_that_comes_rarely_costs_no_memory_and_misses_neither_the_newest_nor_an_event() -> None:
    ear, rarely, often = Listener(Plain(), 300), Fetching(thin=True), Fetching()
    ear.readers.add(rarely)
    ear.readers.add(often)
    fetched = []
    for number in range(2000):
        hear(ear, 10 * number, bytes([number % 256, number % 256]))
        if number in {100, 700}:
            hear(ear, 10 * number + 1, b"", company=2)
        if number % 7 == 0:
            fetched += often.fetch(ear)
            assert len(ear.since(0)) <= 8
    fetched += often.fetch(ear)
    assert fetched == list(range(1, 2003)), "who comes often gets all"
    assert rarely.fetch(ear) == [102, 703, 2002]
    assert not rarely.lost
    assert not often.lost


def test_a_reader_that_is_gone_holds_nothing_back() -> None:
    ear, reader, asked = Listener(Plain(), 300), Fetching(), Fetching()
    ear.readers.add(reader)
    ear.readers.add(asked)
    del asked
    hear(ear, 1, b"\x01\x01")
    assert reader.fetch(ear) == [1]
    assert not ear.since(0)


def test_why_it_cannot_be_read_is_known_until_it_can() -> None:
    ear = Listener(Plain(), 300)
    hear(ear, 1, b"")
    assert ear.problem == "it is empty"
    hear(ear, 2, b"\x00", company=9)
    assert ear.foreign == 1
    hear(ear, 3, b"\x14")
    assert (ear.problem, ear.foreign, ear.count) == ("", 0, 1)
