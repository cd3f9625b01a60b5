"""TLS towards a receiver: the context, and its errors in words that say what to do."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edged.errors import ConfigError, EdgedError, PermanentError, TransientError


@dataclass(frozen=True, slots=True)
class Tls:
    """How to prove who we are, and whom to trust. All files are PEM; empty means not given."""

    ca: str = ""
    certificate: str = ""
    key: str = ""
    alpn: tuple[str, ...] = ()
    server_name: str = ""
    insecure: bool = False


class TlsContext(ssl.SSLContext):
    """A client context that can check another name than the host's, and knows the socket that it wrapped last.

    A library that fails between wrapping and returning a socket leaves it open; whoever called it can close it here.
    """

    server_name = ""
    wrapped: ssl.SSLSocket | None = None

    def wrap_socket(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        """As in the base class."""
        if self.server_name:
            kwargs["server_hostname"] = self.server_name
        self.wrapped = super().wrap_socket(*args, **kwargs)
        return self.wrapped


def make_context(tls: Tls) -> TlsContext:
    """The context for these settings, read from disk anew so that renewed certificates count. Blocks.

    Raises ConfigError when a file is missing, unreadable, no certificate, or does not belong to the other.
    """
    context = TlsContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.server_name = tls.server_name
    if tls.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif tls.ca:
        _load("ca", tls.ca, lambda: context.load_verify_locations(tls.ca))
    else:
        context.load_default_certs()
    if tls.certificate:
        if tls.key:
            _readable("key", tls.key)
        _load(
            "certificate",
            tls.certificate,
            lambda: context.load_cert_chain(tls.certificate, tls.key or None, password=_no_passphrase),
        )
    if tls.alpn:
        context.set_alpn_protocols(list(tls.alpn))
    return context


def files_of(tls: Tls) -> tuple[tuple[int, int, int], ...]:
    """What changes when one of the files is renewed. One that is missing for a moment is no error. Blocks."""
    found = []
    for name in filter(None, (tls.ca, tls.certificate, tls.key)):
        try:
            status = Path(name).stat()
        except OSError:
            found.append((0, 0, 0))
        else:
            found.append((status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(found)


def _no_passphrase() -> str:
    raise ConfigError("the private key is protected by a passphrase; store it without one, readable by edged alone")


def _readable(setting: str, path: str) -> None:
    try:
        with Path(path).open("rb"):
            pass
    except OSError as exc:
        raise ConfigError(f"cannot read `{setting}: {path}`: {exc.strerror or exc}") from exc


def _load(setting: str, path: str, load: Any) -> None:
    _readable(setting, path)
    try:
        load()
    except ssl.SSLError as exc:
        if "KEY_VALUES_MISMATCH" in str(exc):
            raise ConfigError(f"the private key does not belong to `{setting}: {path}`") from exc
        raise ConfigError(f"`{setting}: {path}` is no PEM file as needed here ({exc.reason or exc})") from exc


_VERIFY = {
    9: "is not valid yet: is the gateway's clock right?",
    10: "has expired, or the gateway's clock is wrong",
    18: "is self-signed: give it to the gateway as `ca`",
    19: "was issued by an authority that is not trusted: set `ca` to its certificate",
    20: "was issued by an authority that is not trusted: set `ca` to its certificate",
    21: "was issued by an authority that is not trusted: set `ca` to its certificate",
    62: "is for another name: correct the host in `url`, or set `server_name`",
    64: "is not for this IP address: use the host's name in `url`, or set `server_name`",
}
"""OpenSSL's verification errors (x509_vfy.h) as a technician can use them."""
_CLOCK = {9, 10}


def explain(exc: ssl.SSLError, where: str) -> EdgedError:
    """A failed handshake with `where` as one of our errors: slow to retry where a person must act."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        advice = _VERIFY.get(exc.verify_code, f"cannot be verified: {exc.verify_message}")
        text = f"the certificate of {where} {advice}"
        return TransientError(text, reason="tls") if exc.verify_code in _CLOCK else PermanentError(text, reason="tls")
    reason = f"{exc.reason or exc}"
    if "WRONG_VERSION_NUMBER" in reason or "RECORD_LAYER_FAILURE" in reason or "HTTP_REQUEST" in reason:
        return PermanentError(f"{where} does not speak TLS on this port: is it the right one?", reason="tls")
    if "CERTIFICATE_REQUIRED" in reason or "BAD_CERTIFICATE" in reason or "HANDSHAKE_FAILURE" in reason:
        return PermanentError(
            f"{where} refused the TLS handshake ({reason}): does it want a client `certificate`, or another one?",
            reason="tls",
        )
    if "UNKNOWN_CA" in reason or "CERTIFICATE_EXPIRED" in reason or "CERTIFICATE_REVOKED" in reason:
        return PermanentError(f"{where} refused our client `certificate` ({reason})", reason="tls")
    return TransientError(f"the TLS handshake with {where} failed: {reason}", reason="tls")
