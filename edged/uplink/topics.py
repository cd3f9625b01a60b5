"""Topic templates, and the parts of URLs. Pure.

A template such as `edged/{gateway}/data` becomes a topic by filling in names. Whatever MQTT gives a meaning in a topic
is escaped in the names, as in a URL, so that a name can neither add a level nor a wildcard, and can be read back.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from string import Formatter
from urllib.parse import SplitResult, quote, unquote, urlsplit

MAX_TOPIC = 65_535
"""Bytes of UTF-8 that the length field of a topic can count (MQTT 5, 1.5.4)."""
_SHOWN = 80
"""Most characters of a topic in a message."""
_RESERVED = frozenset("+#/%\x7f") | {chr(code) for code in range(0x20)} | {chr(code) for code in range(0x80, 0xA0)}


def escape(name: str) -> str:
    """`name` as a level of a topic, or a part: `%`, `+`, `#`, `/`, control characters and a leading `$` become %XX."""
    text = "".join(map(_quoted, name)) if not (name.isascii() and name.isalnum()) else name
    return "%24" + text[1:] if text.startswith("$") else text


def unescape(level: str) -> str:
    """The name that `escape` made `level` of; a level that it never makes is left as it is."""
    try:
        return unquote(level, errors="strict")
    except UnicodeDecodeError:  # somebody else's topic: it names nothing of ours
        return level


def _quoted(char: str) -> str:
    surrogate_or_beyond = "\ud800" <= char <= "\udfff" or ord(char) & 0xFFFE == 0xFFFE  # noqa: PLR2004  # noncharacters
    return quote(char, safe="", errors="surrogatepass") if char in _RESERVED or surrogate_or_beyond else char


def check_template(template: str, names: Collection[str]) -> set[str]:
    """The names that the template uses. Raises ValueError if it is no template over `names`, or can yield no topic."""
    shown = _short(template)
    if not template:
        raise ValueError("a topic cannot be empty")
    for char in ("+", "#"):
        if char in template:
            raise ValueError(f"the topic {shown} contains {char!r}, which is a wildcard; only subscriptions have those")
    if any(char in _RESERVED - {"/", "%"} for char in template):
        raise ValueError(f"the topic {shown} contains a control character")
    if len(template.encode("utf-8", "surrogatepass")) > MAX_TOPIC:
        raise ValueError(f"a topic has at most {MAX_TOPIC} bytes")
    return names_used(template, names, f"the topic {shown}")


def names_used(template: str, names: Collection[str], what: str) -> set[str]:
    """The names that a template uses. Raises ValueError, which calls it `what`, if it is none over `names`."""
    used = set()
    try:
        parts = list(Formatter().parse(template))
    except ValueError as exc:
        raise ValueError(f"{what} has a brace without its partner") from exc
    for _, name, form, conversion in parts:
        if name is None:
            continue
        if name not in names or form or conversion:
            known = ", ".join(f"{{{one}}}" for one in names)
            raise ValueError(f"{what} uses {{{name}}}{_did_you_mean(name, names)}; there are {known}")
        used.add(name)
    return used


def _short(template: str) -> str:
    """It quoted, and cut off where a message would be all topic."""
    return repr(template if len(template) <= _SHOWN else f"{template[: _SHOWN - 1]}…")


def _did_you_mean(name: str, names: Collection[str]) -> str:
    from difflib import get_close_matches  # noqa: PLC0415  # only a mistake pays for it

    close = get_close_matches(name, names, n=1)
    return f" (did you mean {{{close[0]}}}?)" if close else ""


def fill(template: str, values: Mapping[str, str]) -> str:
    """The topic that a checked template yields. Raises ValueError if a name in use is empty or the topic too long."""
    parts = []
    for text, name, _, _ in Formatter().parse(template):
        parts.append(text)
        if name is None:
            continue
        if not values.get(name):
            raise ValueError(f"the topic {_short(template)} uses {{{name}}}, but it is not set")
        parts.append(escape(values[name]))
    topic = "".join(parts)
    if (size := len(topic.encode())) > MAX_TOPIC:
        raise ValueError(f"the topic made of {_short(template)} has {size} bytes; at most {MAX_TOPIC} are possible")
    return topic


def split_url(url: str) -> tuple[SplitResult, int | None]:
    """The parts of a URL, and its port. Raises ValueError for none, and for one that holds a password."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as exc:
        raise ValueError(f"`url: {url}` is no URL: {exc}") from None
    if parts.username is not None or parts.password is not None:
        raise ValueError("`url` holds a user name or password; put them into `username` and `password: !secret NAME`")
    return parts, port
