"""A flood of commands in the log."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edged.downlink.flood import LINES, PERIOD, Flood


def test_few_commands_have_a_line_each() -> None:
    flood = Flood()
    assert all(flood.may_say(second, "verified") for second in range(200))
    assert flood.summary(1000) == ""


def test_of_many_the_rest_is_summed_up_once() -> None:
    flood = Flood()
    said = [flood.may_say(1.0, "verified" if i % 10 else "failed") for i in range(10_000)]
    assert sum(said) == LINES
    assert flood.summary(1.0 + PERIOD / 2) == ""
    assert flood.summary(1.0 + PERIOD) == "8,982 verified, 998 failed"
    assert flood.summary(1.0 + 2 * PERIOD) == ""
    assert flood.may_say(1.0 + 2 * PERIOD, "verified")


@given(st.lists(st.floats(0, 3), min_size=1, max_size=400))
def test_every_command_is_said_or_counted(pauses: list[float]) -> None:
    flood, now, said, counted, lines = Flood(), 0.0, 0, 0, []
    for pause in pauses:
        now += pause
        if summary := flood.summary(now):
            counted += int(summary.split()[0])
            lines.append(now)
        if flood.may_say(now, "verified"):
            said += 1
            lines.append(now)
    if summary := flood.summary(now + PERIOD):
        counted += int(summary.split()[0])
    assert said + counted == len(pauses)
    for begin in lines:
        assert sum(begin <= one < begin + PERIOD for one in lines) <= 2 * (LINES + 1)
