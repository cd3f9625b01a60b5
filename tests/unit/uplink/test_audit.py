from __future__ import annotations

from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from edged.cli.subscribe import summary
from edged.testing.audit import Audit, LaneId, MessageId
from edged.testing.receiver import decode, proof


def message(seq: int, prev: int, lane: str = "live", first: int = 0, epoch: str = "e") -> dict[str, Any]:
    first = first or prev + 1
    return {
        "v": 1, "gateway": "g", "epoch": epoch, "lane": lane, "first": first, "seq": seq, "prev": prev,
        "readings": 10, "tables": [],
    }  # fmt: skip


ANYTHING: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9) | st.text(max_size=3) | st.just([{}])
)
WORDS = ("gateway", "epoch", "lane", "seq", "prev", "first", "readings", "values", "flow", "replay")


@given(st.lists(st.tuples(st.sampled_from(WORDS), ANYTHING | st.just({"a": 1})), max_size=4))
def test_whatever_somebody_publishes_there_does_not_end_the_audit(changes: list[tuple[str, Any]]) -> None:
    record = decode(orjson.dumps(message(5, 4) | dict(changes)))
    assert record is None or Audit().take(record)
    assert changes or record == message(5, 4)


def test_a_complete_lane_has_nothing_to_report() -> None:
    audit = Audit()
    assert all(audit.take(message(seq, seq - 5)) for seq in (5, 10, 15))
    assert (audit.missing, audit.duplicates, audit.out_of_order, audit.messages, audit.readings) == ([], 0, 0, 3, 30)
    assert audit.gaps("g", "e") == []
    assert audit.lanes[LaneId("g", "e", "live")].last == 15


def test_what_the_broker_confirmed_and_lost_is_missing_until_it_comes() -> None:
    audit = Audit()
    audit.take(message(5, 0))
    audit.take(message(15, 10))
    assert audit.missing == [MessageId("g", "e", 10)]
    assert audit.gaps("g", "e") == [(6, 10)]
    assert audit.take(message(10, 5))
    assert audit.missing == []
    assert audit.out_of_order == 1
    assert audit.gaps("g", "e") == []


def test_a_repeated_message_is_a_duplicate_and_to_be_dropped_also_from_the_other_lane() -> None:
    audit = Audit()
    audit.take(message(5, 0))
    assert not audit.take(message(5, 0))
    assert not audit.take(message(5, 0, lane="historical"))
    assert audit.duplicates == 2
    assert audit.readings == 10


def test_a_message_that_reaches_further_back_is_new_although_its_number_came_before() -> None:
    """Thinning joins what had been cut differently: only what is covered already may be dropped."""
    audit = Audit()
    assert audit.take(message(20, 10))
    assert not audit.take(message(20, 10))
    assert not audit.take(message(20, 14))
    assert audit.take(message(20, 0))
    assert not audit.take(message(20, 10))


def test_what_is_sent_once_more_disturbs_the_order_of_no_lane() -> None:
    audit = Audit()
    assert audit.take(message(10, 0, "historical"))
    assert audit.take(message(100, 0, "historical", 91) | {"replay": True})
    assert audit.take(message(20, 10, "historical"))
    assert (audit.out_of_order, audit.missing, audit.duplicates) == (0, [], 0)


def test_who_begins_in_the_middle_misses_nothing_that_was_before() -> None:
    audit = Audit(from_the_beginning=False)
    assert audit.take(message(50, 40))
    assert audit.take(message(20, 10, "historical"))
    assert audit.missing == []
    assert audit.take(message(70, 60))
    assert audit.missing == [MessageId("g", "e", 60)]


def test_the_lanes_are_in_order_each_for_itself() -> None:
    audit = Audit()
    for seq, prev, lane in [(5, 0, "live"), (105, 5, "live"), (10, 0, "historical"), (110, 105, "live")]:
        audit.take(message(seq, prev, lane, first=seq - 4))
    assert (audit.missing, audit.out_of_order, audit.duplicates) == ([], 0, 0)
    assert audit.gaps("g", "e") == [(11, 100)]


def test_a_new_epoch_and_another_gateway_are_other_stories() -> None:
    audit = Audit()
    audit.take(message(5, 0))
    assert audit.take(message(5, 0, epoch="f"))
    assert audit.take(message(5, 0) | {"gateway": "h"})
    assert audit.messages == 3


def test_each_flow_has_chains_of_its_own() -> None:
    audit = Audit()
    for seq, prev, flow in [
        (5, 0, "hot"),
        (9, 0, "cold"),
        (5, 0, "cold"),
        (15, 5, "hot"),
        (20, 10, "cold"),
        (5, 0, ""),
    ]:
        assert audit.take(message(seq, prev) | ({"flow": flow} if flow else {}))
    assert audit.missing == [MessageId("g", "e", 10, "cold")]
    assert (audit.duplicates, audit.out_of_order) == (0, 1)
    assert audit.lanes[LaneId("g", "e", "live", "hot")].last == 15
    assert (audit.gaps("g", "e", "hot"), audit.gaps("g", "e", "cold"), audit.gaps("g", "e")) == ([], [(10, 10)], [])
    assert not audit.take(message(15, 5) | {"flow": "hot"})


def test_what_is_told_of_a_flow_names_it() -> None:
    audit = Audit()
    for seq, prev in [(5, 0), (15, 10)]:
        audit.take(message(seq, prev) | {"flow": "hot"})
    record = summary(audit)
    assert record["missing"] == [{"gateway": "g", "epoch": "e", "seq": 10, "flow": "hot"}]
    assert record["not_covered"] == [{"gateway": "g", "epoch": "e", "first": 6, "last": 10, "flow": "hot"}]


def test_the_numbers_may_stand_in_user_properties() -> None:
    said = [("gateway", "g"), ("epoch", "e"), ("lane", "live"), ("first", "6"), ("seq", "9"), ("prev", "5")]
    assert proof(said) is None
    found = proof([*said, ("readings", "4"), ("flow", "hot")])
    audit = Audit()
    assert found is not None
    assert audit.take(found)
    assert audit.missing == [MessageId("g", "e", 5, "hot")]
    assert audit.readings == 4
    assert proof([*said[:-1], ("prev", "x"), ("readings", "4")]) is None


def test_other_messages_are_let_through() -> None:
    assert Audit().take({"v": 1, "gateway": "g", "status": "online"})


@given(st.lists(st.integers(1, 5), min_size=1, max_size=30), st.data())
def test_after_any_loss_the_audit_knows_which_messages_are_missing(sizes: list[int], data: st.DataObject) -> None:
    sent, prev = [], 0
    for size in sizes:
        sent.append(message(prev + size, prev))
        prev += size
    lost = data.draw(st.sets(st.sampled_from(range(len(sent)))))
    audit = Audit()
    for i, one in enumerate(sent):
        if i not in lost:
            audit.take(one)
    # What precedes a lost message is not named by it; the next one that came names the last lost before it.
    named = {sent[i]["seq"] for i in lost if i + 1 < len(sent) and i + 1 not in lost}
    assert {one.seq for one in audit.missing} == named
    for i in lost:
        audit.take(sent[i])
    assert audit.missing == []
    assert audit.gaps("g", "e") == []
