"""TLS towards a broker."""

from __future__ import annotations

import socket
import ssl
from typing import Any

from edged.adapter import ConfigError, TransientError

from .config import MqttBus


class _Context(ssl.SSLContext):
    """A context that shakes hands as it wraps, and closes the socket where that fails, which paho does not."""

    def wrap_socket(self, sock: socket.socket, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        """As in the base class."""
        kwargs["do_handshake_on_connect"] = True
        try:
            return super().wrap_socket(sock, *args, **kwargs)
        except OSError:
            sock.close()
            raise


def context(config: MqttBus) -> ssl.SSLContext:
    """The context of a bus, read from the disk anew so that renewed certificates count. Blocks. Raises ConfigError."""
    made = _Context(ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if config.insecure:
            made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
        elif config.ca:
            made.load_verify_locations(config.ca)
        else:
            made.load_default_certs()
        if config.certificate:
            made.load_cert_chain(config.certificate, config.key or None, password=_no_passphrase)
    except ssl.SSLError as exc:
        raise ConfigError(f"`ca`, `certificate` or `key` is no PEM file as needed here: {exc.reason or exc}") from exc
    except OSError as exc:
        raise ConfigError(f"a file of `ca`, `certificate` or `key` cannot be read: {exc.strerror or exc}") from exc
    return made


def _no_passphrase() -> str:
    raise ConfigError("the private key is protected by a passphrase; store it without one, readable by edged alone")


def explain(exc: ssl.SSLError, where: str) -> TransientError:
    """A failed handshake, for a person."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return TransientError(f"the certificate of {where} is not accepted: {exc.verify_message}", reason="unreachable")
    return TransientError(
        f"the TLS handshake with {where} failed ({exc.reason or exc}): is this its port for TLS, does it want a client "
        f"`certificate`?",
        reason="unreachable",
    )
