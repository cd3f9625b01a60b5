"""Why a host cannot be reached, in words that say what to do. Pure."""

from __future__ import annotations

import socket
import ssl

from edged.errors import EdgedError, PermanentError, TransientError
from edged.uplink.links.tls import explain


def unreachable(
    exc: OSError | UnicodeError, where: str, host: str, limit: float, what: str, *, tls: bool
) -> EdgedError:
    """A failed attempt to connect to `where`, as one of our errors. `limit`: its seconds; `what`: broker or server."""
    match exc:
        case TimeoutError():
            return TransientError(f"{where} did not answer within {limit:g} s: is it up, is a firewall in the way?")
        case ssl.SSLError():
            return explain(exc, where)
        case socket.gaierror():
            return TransientError(
                f"cannot find the host {host!r} ({exc.strerror}): check `url` and the gateway's DNS", reason="dns"
            )
        case UnicodeError():
            return PermanentError(f"{host!r} is no host name: check `url`", reason="dns")
        case ConnectionRefusedError():
            return TransientError(
                f"nothing listens at {where}: is the {what} running, is the port right?", reason="refused"
            )
        case ConnectionResetError():
            hint = ": is this its port for TLS?" if tls else ""
            return TransientError(f"{where} hung up while connecting{hint}", reason="closed")
        case _:
            return TransientError(f"cannot reach {where}: {exc.strerror or exc}", reason="unreachable")
