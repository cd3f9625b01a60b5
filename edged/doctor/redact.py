"""Takes secrets out of text, in whatever form they stand there. Pure.

Two nets: the texts that are known to be secrets, in plain, base64, URL-encoded, hexadecimal and escaped form; and
whatever stands behind a word such as `password`, or in the user part of a URL, known or not.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

from edged.discretion import WORDS, secrets_in, without_parameters

HIDDEN = "***"
_SHORTEST = 4
"""Shorter texts are hidden only where their key says so: else half of every file would be gone."""
_WORDS = rf"[\w.-]*(?:{WORDS.replace('hmac|', '')}|pin|auth)[\w.-]*"
_QUOTED = r"\"(?:[^\"\\]|\\.)*\"|'(?:[^']|'')*'"
_PLAIN = r"(?!!secret\b)[^\s,}\]|>&][^\n,}\]]*"
_ASSIGNED = re.compile(
    rf"(?P<key>(?:\"{_WORDS}\"|'{_WORDS}'|\b{_WORDS})\s*[:=]\s*)(?P<value>{_QUOTED}|{_PLAIN})", re.IGNORECASE
)
_BLOCK = re.compile(
    rf"^(?P<head>(?P<indent>[ -]*)[\"']?{_WORDS}[\"']?\s*:\s*(?:[|>&!][^\n]*)?)\n"
    r"(?P<body>(?:(?P=indent)[ \t]+[^\n]*\n|[ \t]*\n)+)",
    re.IGNORECASE | re.MULTILINE,
)
_NO_SECRETS = frozenset({"true", "false", "null", "none", "auto", HIDDEN})
"""What stands behind such words without being one."""
_USER_PART = re.compile(r"(?<=://)[^/\s@]+@")
_URL = re.compile(r"\b\w+://[^\s\"'<>`]+")
_BEARER = re.compile(r"\b(?P<kind>Bearer|Basic)\s+[\w+/=.~-]{6,}", re.IGNORECASE)
_PEM = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)


def found_in(text: str) -> set[str]:
    """The texts that stand where secrets stand, so that they can be hidden elsewhere too."""
    found = {_bare(match["value"]) for match in _ASSIGNED.finditer(text)}
    for block in _BLOCK.finditer(text):
        found.update(line.strip() for line in block["body"].splitlines())
        found.add(" ".join(line.strip() for line in block["body"].splitlines()).strip())
    found.update(value for url in _URL.findall(text) for _, value in secrets_in(url.rstrip("}],.)")))
    for match in _USER_PART.finditer(text):
        user, _, password = match[0][:-1].partition(":")
        found.add(password or user)
    return {one for one in found if one and one.lower() not in _NO_SECRETS and not one.startswith("!secret")}


def redacted(text: str, secrets: Iterable[str]) -> str:
    """`text` without any of these, and without what looks like one."""
    text = _PEM.sub(HIDDEN, text)
    for form in sorted(_forms(secrets), key=len, reverse=True):
        text = re.sub(re.escape(form), HIDDEN, text, flags=re.IGNORECASE)
    text = without_parameters(_USER_PART.sub(f"{HIDDEN}@", text))
    text = _BLOCK.sub(lambda match: f"{match['head']} {HIDDEN}\n", text)
    text = _BEARER.sub(lambda match: f"{match['kind']} {HIDDEN}", text)
    return _ASSIGNED.sub(lambda match: match["key"] + HIDDEN, text)


def _bare(value: str) -> str:
    value = value.strip()
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        return value[1:-1]
    return value.partition(" #")[0].strip()


def _forms(secrets: Iterable[str]) -> set[str]:
    """Each way in which a secret may be written."""
    forms: set[str] = set()
    for secret in secrets:
        for text in {secret, secret.strip()}:
            if len(text) < _SHORTEST:
                continue
            forms |= {
                text,
                quote(text),
                quote(text, safe=""),
                quote_plus(text),
                json.dumps(text)[1:-1],
                repr(text)[1:-1],
            }
            forms |= {json.dumps(text, ensure_ascii=False)[1:-1]}
            data = text.encode("utf-8", "surrogateescape")
            forms |= {data.hex(), data.hex(" "), *_in_base64(data)}
    return {form for form in forms if len(form) >= _SHORTEST}


def _in_base64(data: bytes) -> set[str]:
    """What of the secret can be seen in base64, whatever stands before and after it."""
    found: set[str] = set()
    for before in range(3):
        for coded in (base64.b64encode, base64.urlsafe_b64encode):
            whole = coded(bytes(before) + data).decode().rstrip("=")
            begin, end = -(-8 * before // 6), 8 * (before + len(data)) // 6
            found.add(whole[begin:end])
    return found
