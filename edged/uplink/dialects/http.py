"""What HTTP says and means: addresses, what an answer says about a message or about us, signatures. Pure.

Sources: RFC 9110 (semantics; 15 on status codes, 10.2.3 on Retry-After), RFC 6585 (428, 429, 431, 511).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import StrEnum
from string import Formatter
from typing import Self
from urllib.parse import quote, urlsplit

from edged.errors import PermanentError, TransientError
from edged.uplink.links.reasons import clean
from edged.uplink.topics import split_url

PORTS = {"http": 80, "https": 443}
"""The schemes of a server's URL, and the port each means when none is given."""
LONGEST_PAUSE = 3600.0
"""Seconds. A server that wants to be left alone for longer is asked again after an hour all the same."""
_MAX_URL = 8000
"""RFC 9110, 4.1: every server should take addresses of so many octets."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a server is."""

    scheme: str
    host: str
    port: int

    @classmethod
    def parse(cls, url: str) -> Self:
        """That of a URL. Raises ValueError with what is wrong."""
        scheme, separator, _ = url.partition("://")
        if not separator:
            raise ValueError(f"`url: {url}` lacks the way to connect: write https://{url}, or http://{url} without TLS")
        if scheme not in PORTS:
            raise ValueError(f"`url` cannot begin with {scheme}://; use https:// or http://")
        parts, port = split_url(url)
        if not parts.hostname or any(char.isspace() or ord(char) < 0x20 for char in url):  # noqa: PLR2004  # controls
            raise ValueError(f"`url: {url}` names no host; write for instance {scheme}://api.example.com/readings")
        if parts.fragment:
            raise ValueError(f"`url: {url}` has a fragment (#), which no server sees")
        if port == 0:
            raise ValueError("port 0 is no port")
        return cls(scheme, parts.hostname, port or PORTS[scheme])

    @property
    def tls(self) -> bool:
        """Whether it is reached through TLS."""
        return self.scheme == "https"

    @property
    def authority(self) -> str:
        """As it stands in a Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


def target(url: str) -> str:
    """What stands in the request line: the path and the query of a URL."""
    parts = urlsplit(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def fill_url(template: str, values: Mapping[str, str]) -> str:
    """The URL that a checked template yields, names escaped. Raises ValueError if one in use is empty, or too long."""
    parts = []
    for text, name, _, _ in Formatter().parse(template):
        parts.append(quote(text, safe="%/:?=&@!$'()*+,;[]~"))
        if name is None:
            continue
        if not values.get(name):
            raise ValueError(f"`url` uses {{{name}}}, but it is not set")
        parts.append(quote(values[name], safe="", errors="surrogatepass"))
    url = "".join(parts)
    if len(url) > _MAX_URL:
        raise ValueError(f"the URL made of {template[:80]!r} has {len(url)} characters; {_MAX_URL} are safe")
    return url


def fill_text(template: str, values: Mapping[str, str]) -> str:
    """The text that a checked template yields, e.g. a header. Raises ValueError if a name in use is empty."""
    parts = []
    for text, name, _, _ in Formatter().parse(template):
        parts.append(text)
        if name is not None:
            if not values.get(name):
                raise ValueError(f"{{{name}}} is used, but it is not set")
            parts.append(values[name])
    return "".join(parts)


# -- what an answer means ----------------------------------------------------------------------------------------------


class Meaning(StrEnum):
    """Of whom or what a status speaks."""

    DELIVERED = "delivered"
    """The server took responsibility for the message."""
    WAIT = "wait"
    """Of the server: it cannot take anything now. Everything waits, in order."""
    AGAIN = "again"
    """Of the server, or of the message: it is tried again, and others go on meanwhile."""
    US = "us"
    """Of us, or of how we ask: key, address, method. Any message would fare so, and a person must act."""
    REFUSED = "refused"
    """Of the message: it will never be taken."""
    TOO_LARGE = "too_large"
    """Of the message: a smaller one may be taken."""


_ADDRESS = frozenset({404, 405, 410})
"""They speak of the address: of the message if each has its own, otherwise of us."""
STATUSES: dict[int, Meaning] = {
    400: Meaning.REFUSED, 401: Meaning.US, 402: Meaning.US, 403: Meaning.US, 404: Meaning.REFUSED, 405: Meaning.REFUSED,
    406: Meaning.US, 407: Meaning.US, 408: Meaning.WAIT, 409: Meaning.AGAIN, 410: Meaning.REFUSED, 411: Meaning.US,
    412: Meaning.REFUSED, 413: Meaning.TOO_LARGE, 414: Meaning.REFUSED, 415: Meaning.US, 417: Meaning.US,
    421: Meaning.US, 422: Meaning.REFUSED, 423: Meaning.WAIT, 424: Meaning.AGAIN, 425: Meaning.WAIT, 426: Meaning.US,
    428: Meaning.US, 429: Meaning.WAIT, 431: Meaning.US, 451: Meaning.US,
    500: Meaning.AGAIN, 501: Meaning.US, 502: Meaning.WAIT, 503: Meaning.WAIT, 504: Meaning.WAIT, 505: Meaning.US,
    507: Meaning.WAIT, 511: Meaning.US,
}  # fmt: skip
"""What is not listed: 2xx delivered, 3xx of us, another 4xx of the message, another 5xx of the server."""
_CLASSES = {2: Meaning.DELIVERED, 3: Meaning.US, 4: Meaning.REFUSED, 5: Meaning.WAIT}


def meaning(status: int, *, own_address: bool) -> Meaning:
    """What a status means. `own_address`: whether messages have different addresses."""
    if status in _ADDRESS and not own_address:
        return Meaning.US
    return STATUSES.get(status) or _CLASSES.get(status // 100, Meaning.AGAIN)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, as far as anybody looks at it."""

    status: int
    phrase: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Names in lower case; of several of one name the last."""
    body: bytes = b""
    """Its beginning."""

    def __str__(self) -> str:
        """For people: `400 Bad Request (no such device)`."""
        head = f"{self.status} {clean(self.phrase)}".rstrip()
        line = next((one for one in self.body.decode("utf-8", "replace").splitlines() if one.strip()), "")
        return f"{head} ({clean(line.strip())})" if line else head


def retry_after(reply: Reply, now: float) -> float:
    """Seconds for which the server wants to be left alone, at most `LONGEST_PAUSE`; 0 if it says nothing of use.

    `now`: seconds since 1970, for a server that names a moment. It is compared with the server's own clock, where that
    tells the time in its answer, because the gateway's may be wrong.
    """
    text = reply.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:10]), LONGEST_PAUSE)
    moment, there = _moment(text), _moment(reply.headers.get("date", ""))
    if moment is None:
        return 0.0
    return min(max(0.0, moment - (now if there is None else there)), LONGEST_PAUSE)


def _moment(text: str) -> float | None:
    """Seconds since 1970 of an HTTP-date (RFC 9110, 5.6.7); None if it is none."""
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


OF_WHOM = frozenset({403})
"""They speak of us in words that some servers use of a message too: a firewall, rights that differ by device."""


def refusal(reply: Reply, where: str, method: str, credentials: str) -> PermanentError:
    """What a person must do about an answer that speaks of us. `credentials`: the settings that we identify with."""
    status, location = reply.status, clean(reply.headers.get("location", ""))
    if status in {301, 308}:
        return PermanentError(f"{where} has moved to {location}: change `url` ({reply})", reason="moved")
    if status // 100 == 3:  # noqa: PLR2004  # 3xx
        text = f"{where} sends us to {location or 'nowhere'} ({reply}), and edged does not follow"
        return PermanentError(f"{text}: is `url` right, or does the network want somebody to log in?", reason="moved")
    advice, reason = _ADVICE.get(status, ("it does not like how we ask", "request"))
    what = advice.format(credentials=credentials, method=method)
    return PermanentError(f"{where} answers {reply}: {what}", reason=reason)


_ADVICE: dict[int, tuple[str, str]] = {
    401: ("check {credentials}", "refused"),
    402: ("has the account been paid for?", "refused"),
    403: ("check {credentials}, and what they may do", "refused"),
    404: ("check the path of `url`", "address"),
    405: ("check `url` and the method, which is {method}", "address"),
    406: ("it has no answer as we accept it", "request"),
    407: ("something on the way wants a user name: edged uses no proxy", "refused"),
    410: ("it is gone for good; change `url`", "address"),
    411: ("something on the way removes the Content-Length", "request"),
    415: ("it does not take this kind of body: choose another `layout` or `compression`", "request"),
    421: ("it does not serve this host name: check `url`", "address"),
    426: ("it wants another protocol than HTTP/1.1", "request"),
    431: ("the headers are too large: shorten `headers`", "request"),
    501: ("it does not know the method, which is {method}", "address"),
    505: ("it wants another version than HTTP/1.1", "request"),
    511: ("the network wants somebody to log in first", "refused"),
}
"""Status → what to try, and a short word."""


def not_now(reply: Reply, where: str) -> TransientError:
    """An answer that will pass, to what was asked while connecting."""
    return TransientError(f"{where} answers {reply}", reason="busy")


# -- doubt -------------------------------------------------------------------------------------------------------------

_ACCUSED = 1000


@dataclass(slots=True)
class Doubt:
    """Finds out whether a refusal is the message's fault or everybody's.

    A key that has expired and a firewall that dislikes one payload are told in the same words (403), and so are a
    broken server and a broken message (500). The difference: with the one nothing is taken any more; with the other
    the messages beside it are.
    """

    taken: int = 0
    """Messages that were delivered."""
    _blamed: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Message → what was taken when it was refused first, and how often it has been refused."""
    _last: int = -1
    """What was taken when we were refused last; -1 in a new session."""

    def begin(self) -> None:
        """A new session: we are given the benefit of the doubt once more."""
        self._last = -1

    def delivered(self, message: str) -> None:
        """A message was taken."""
        self.taken += 1
        self._blamed.pop(message, None)

    def convicts(self, message: str, patience: int) -> bool:
        """It was refused once more: whether that is often enough, and others have been taken since the first time."""
        since, times = self._blamed.pop(message, (self.taken, 0))
        if times + 1 >= patience and self.taken > since:
            return True
        if len(self._blamed) >= _ACCUSED:
            self._blamed.pop(next(iter(self._blamed)))
        self._blamed[message] = since, times + 1
        return False

    def suspects_us(self) -> bool:
        """Somebody was refused in words that speak of us: whether nothing has been taken since the last time."""
        before, self._last = self._last, self.taken
        return before == self.taken


# -- signatures --------------------------------------------------------------------------------------------------------


def canonical(method: str, path: str, timestamp: str, body: bytes) -> bytes:
    """What is signed: four lines. `path` with its query as in the request line; `body` as it goes over the wire."""
    return "\n".join([method, path, timestamp, hashlib.sha256(body).hexdigest()]).encode()


def signature(secret: str, method: str, path: str, timestamp: str, body: bytes) -> str:
    """HMAC-SHA256 of the canonical text, in hexadecimal."""
    return hmac.new(secret.encode(), canonical(method, path, timestamp, body), hashlib.sha256).hexdigest()
