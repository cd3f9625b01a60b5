"""No secret leaves, in whatever form it stands there."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.doctor.redact import found_in, redacted

SECRET = "s3cr€t/w+rd ä&b"


@given(
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=6, max_size=20),
    st.binary(max_size=5),
)
def test_a_known_secret_is_found_in_every_form(secret: str, before: bytes) -> None:
    secret = secret.strip()
    if len(secret) < 6 or secret in "***":
        return
    data = secret.encode()
    inside = base64.b64encode(before + data + b"tail").decode()
    begin, end = -(-8 * len(before) // 6), 8 * (len(before) + len(data)) // 6
    text = "\n".join([secret, quote(secret), quote_plus(secret), json.dumps(secret), data.hex(), inside])
    clean = redacted(text, [secret])
    for form in (quote_plus(secret), data.hex(), inside[begin:end]):
        assert form.lower() not in clean.lower()
    assert secret not in clean


@pytest.mark.parametrize(
    "text",
    [
        "password: hunter22", 'password: "hunter22"', "{username: x, password: 'hunter22'}", "PASSWORD=hunter22",
        "url: mqtt://user:hunter22@host", '{"api_key": "hunter22"}', "password: >\n    hunter22\nnext: 1",
        "  token:\n    hunter22\n", "shared_access_key: hunter22", "group_key: 'hunter22'",
        "Authorization: Bearer hunter22abc", "headers: {X-Api-Key: hunter22}", "pasword: hunter22",
        "url: https://h/x?site=b25&code=hunter22", "POST https://h/x?sig=hunter22: 400",
        "mqtt_password = hunter22 and more",
        "-----BEGIN PRIVATE KEY-----\nhunter22\n-----END PRIVATE KEY-----",
    ],
)  # fmt: skip
def test_what_stands_where_secrets_stand_is_hidden(text: str) -> None:
    assert "hunter22" not in redacted(text, [])


def test_what_is_no_secret_stays() -> None:
    text = "devices: {meter-1: {bus: line-a, unit: 12}}\nbaudrate: 19200\nhmac: {key_id: a}\npassword: !secret mqtt\n"
    assert redacted(text, []) == text


def test_secrets_in_a_configuration_are_hidden_elsewhere_too() -> None:
    text = f"connections:\n  c: {{url: 'mqtt://u:in-url-1@h', password: '{SECRET}'}}\n  d: {{url: https://h?code=a%2Fb42}}\n"
    secrets = found_in(text)
    assert {SECRET, "in-url-1", "a/b42"} <= secrets
    assert redacted(f"the broker said {SECRET} and in-url-1", secrets) == "the broker said *** and ***"
