from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.uplink.topics import MAX_TOPIC, check_template, escape, fill, unescape

NAMES = ("gateway", "tenant", "device")


@given(st.text(st.characters(exclude_categories=["Cs"])))  # no name that is configured has half a character
def test_what_is_escaped_can_be_read_back(name: str) -> None:
    assert unescape(escape(name)) == name


@given(st.text(st.characters(exclude_categories=[]), min_size=1))
def test_an_escaped_name_is_one_level_that_mqtt_allows(name: str) -> None:
    level = escape(name)
    assert not set(level) & set("+#/\0")
    assert not level.startswith("$")
    level.encode()  # no lone surrogates


@pytest.mark.parametrize("level", ["%ff", "%ED%A0%80", "a%C3", "%"])
def test_what_nobody_has_escaped_stays_as_it_is(level: str) -> None:
    assert unescape(level) == level


@given(st.text())
def test_whatever_somebody_publishes_to_names_something_that_can_be_written_down(level: str) -> None:
    unescape(level).encode()


def test_what_needs_no_escape_stays_readable() -> None:
    assert escape("plant-7 Süd ($1)") == "plant-7 Süd ($1)"


@pytest.mark.parametrize(
    ("name", "level"),
    [("a/b", "a%2Fb"), ("a+#", "a%2B%23"), ("$SYS", "%24SYS"), ("50%", "50%25"), ("\0\x1f", "%00%1F")],
)
def test_characters_with_a_meaning_are_escaped(name: str, level: str) -> None:
    assert escape(name) == level


def test_a_template_is_filled_with_escaped_names() -> None:
    assert fill("{tenant}/{gateway}/data", {"tenant": "a/b", "gateway": "g"}) == "a%2Fb/g/data"


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        ("", "empty"),
        ("edged/+/data", "wildcard"),
        ("edged/#", "wildcard"),
        ("edged/{gatway}/data", "did you mean {gateway}"),
        ("edged/{}/data", "uses {}"),
        ("edged/{gateway!r}", "uses"),
        ("edged/{gateway:>10}", "uses"),
        ("edged/{gateway", "brace"),
        ("edged/gateway}", "brace"),
        ("a\nb", "control"),
        ("x" * (MAX_TOPIC + 1), "at most"),
    ],
)
def test_a_template_that_yields_no_topic_is_refused(template: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        check_template(template, NAMES)


def test_a_template_tells_which_names_it_uses() -> None:
    assert check_template("{gateway}/{{x}}/{device}", NAMES) == {"gateway", "device"}
    assert fill("{gateway}/{{x}}", {"gateway": "g"}) == "g/{x}"


def test_a_name_in_use_must_be_set() -> None:
    with pytest.raises(ValueError, match="not set"):
        fill("{tenant}/data", {"tenant": ""})


def test_a_topic_is_never_longer_than_mqtt_can_say() -> None:
    with pytest.raises(ValueError, match="65538 bytes"):
        fill("{tenant}/x", {"tenant": "ü" * 32768})


@pytest.mark.parametrize("end", ["{", "{nobody}", "+", "\0"])
def test_a_message_shows_only_the_beginning_of_a_long_topic(end: str) -> None:
    with pytest.raises(ValueError, match="the topic 'xxx") as told:
        check_template("x" * 60_000 + end, NAMES)
    assert len(str(told.value)) < 250
