"""What is wrong with a configuration is shown without the secrets in it, however wrongly they are written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.config.load import load
from edged.config.masking import masked
from edged.discretion import secrets_in, without_parameters

HIDDEN = "qwe4Rt"


def said(folder: Path, text: str) -> str:
    """All that is shown of what is wrong with it, to people and to programs."""
    main = folder / "edged.yaml"
    main.write_text(text)
    problems = load(main, find_secrets=True).problems
    assert problems
    return "\n".join([*(one.render() for one in problems), *(json.dumps(one.as_dict()) for one in problems)])


@pytest.mark.parametrize(
    "wrong",
    [
        "pasword: qwe4Rt", "passwort: qwe4Rt", "password: [qwe4Rt, x]", "password: {is: qwe4Rt}",
        "password: 'x\n  qwe4Rt",
        "password: *qwe4Rt", "password: &qwe4Rt", "password: !qwe4Rt", "password: !secret 'a qwe4Rt'",
        "password: !secret qwe4Rt oh", "password: @qwe4Rt", "password: x#qwe4Rt: b", "password: x,qwe4Rt: b",
        'password: "x"qwe4Rt', 'password: "x, qwe4Rt', "password: >-\n      x\n     qwe4Rt", "password:\n    - qwe4Rt",
        "password:\n      is: qwe4Rt", "password: |\n      a\n\n\t qwe4Rt", "hmac: qwe4Rt", "bind_key: qwe4Rt",
        "secret_headers: {'X A': qwe4Rt}", "secret_headers: [qwe4Rt]", "headers: {Authorization: Bearer qwe4Rt}",
        "url: mqtt://u:qwe4Rt@h", "url: http://h/?api_key=qwe4Rt", "url: http://h/#sig=qwe4Rt",
        "url: http://h/x?code=qwe4Rt&a={b}",
        "key: |\n      -----BEGIN PRIVATE KEY-----\n      qwe4Rt\n     -----END",
        "key: '-----BEGIN PRIVATE KEY-----qwe4Rt",
    ],
)  # fmt: skip
@pytest.mark.parametrize("connector", ["mqtt", "http"])
def test_no_mistake_shows_a_secret(tmp_path: Path, connector: str, wrong: str) -> None:
    head = f"gateway: {{id: a}}\nconnections:\n  c:\n    connector: {connector}\n    widow: 1\n    "
    assert HIDDEN not in said(tmp_path, head + wrong + "\n")


@pytest.mark.parametrize(
    "wrong",
    [
        "password: qwe4Rt", "password: q}qwe4Rt", "password: [qwe4Rt", "password: {a: qwe4Rt", "password: q,qwe4Rt",
        "password: 'it''s qwe4Rt'", "X-Api-Key: qwe4Rt", '"api_key": qwe4Rt', "password: *qwe4Rt",
    ],
)  # fmt: skip
def test_nor_does_one_on_a_line_of_many_settings(tmp_path: Path, wrong: str) -> None:
    text = f"gateway: {{id: a}}\nconnections:\n  c: {{connector: mqtt, widow: 1, {wrong}, url: 'mqtt://h'}}\n"
    assert HIDDEN not in said(tmp_path, text)


def test_what_is_no_secret_is_shown() -> None:
    shown = [
        "  bypass: {bus: a, unit: 300}", "  hmac: {key_id: a}", "  password: !secret mqtt # why", '  password: ""',
        "    url: https://h/x?site=b25", "  username: me", "  keepalive: 1s", "passage:", "  unit: 300",
    ]  # fmt: skip
    assert [masked(shown, index) for index in range(len(shown))] == shown
    assert masked(["a: {password: abc, url: x}"], 0) == "a: {password: ***, url: x}"


@given(st.lists(st.text("pasword:-{}[]'\"|>#*!,\t x", max_size=20), min_size=1, max_size=4))
def test_a_line_keeps_its_length(lines: list[str]) -> None:
    """Whatever stands there: the caret below shows the right place."""
    assert all(len(masked(lines, index)) == len(line) for index, line in enumerate(lines))


@pytest.mark.parametrize(
    "line",
    [
        "pass" * 50_000, "a: {" + "pass" * 50_000 + ": x", "u: http://h/?" + "pass" * 50_000,
        "password: x" + " " * 200_000,
        "{" + "password: x, " * 15_000, "password: " + "[" * 100_000, 'password: "' + '\\"' * 100_000, "://" * 60_000,
        "pass" + " " * 200_000 + "x", "u: http://h/?pass=" + "." * 200_000,
    ],
    ids=lambda line: line[:20],
)  # fmt: skip
def test_no_line_is_too_long(line: str) -> None:
    """What took time that grows with the square of the length would not come to an end here."""
    assert len(masked([line], 0)) == len(line)


def test_parameters_of_a_url() -> None:
    url = "https://h/x?site=b25&code=abcd&sig=a%2Fb&Api-Key=k&empty_token="
    assert dict(secrets_in(url)) == {"code": "abcd", "sig": "a/b", "Api-Key": "k"}
    assert without_parameters(f"see {url}.") == "see https://h/x?site=b25&code=****&sig=*****&Api-Key=*&empty_token=."
    assert not list(secrets_in("http://[::1"))
