"""Where things are: configuration, state and the control socket, for a service and for a person in a shell."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

from edged.errors import ConfigError

SYSTEM_CONFIG = Path("/etc/edged/edged.yaml")
_SYSTEM_STATE = Path("/var/lib/edged")
_SYSTEM_RUN = Path("/run/edged")
SOCKET = "edged.sock"


def config_path(given: str | None = None) -> Path:
    """The configuration file: as given, else `$EDGED_CONFIG`, else /etc/edged/edged.yaml.

    Raises ConfigError if none was given and the usual one is not there.
    """
    path = Path(given or os.environ.get("EDGED_CONFIG") or SYSTEM_CONFIG)
    if not given and not path.exists():
        raise ConfigError(f"there is no {path}: name your configuration on the command line, or in $EDGED_CONFIG")
    return path


def state_dir(given: str | None = None) -> Path:
    """The folder for buffer and caches: as given, else systemd's, else /var/lib/edged or the user's own.

    Raises ConfigError where there is none of these, or no folder.
    """
    named = given or os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    if named:
        if Path(named).exists() and not Path(named).is_dir():
            raise ConfigError(f"{named} is not a folder: the state of a gateway needs one")
        return Path(named)
    if os.access(_SYSTEM_STATE if _SYSTEM_STATE.exists() else _SYSTEM_STATE.parent, os.W_OK):
        return _SYSTEM_STATE
    return _own_state()


def listening_path(given: str | None = None, *, system: Path = _SYSTEM_RUN) -> Path:
    """Where a gateway opens its control socket.

    As given, else `$EDGED_SOCKET`, else in the service's folder, or in the user's own where that one is not this user's
    to write to. Raises ConfigError where there is none of these.
    """
    named = _named_socket(given)
    if named is not None:
        return named
    if os.access(system if system.exists() else system.parent, os.W_OK):
        return system / SOCKET
    try:
        return _own_socket()
    except ConfigError as exc:
        raise ConfigError("there is no folder for the control socket: name one with --socket, or set $HOME") from exc


def socket_path(given: str | None = None, *, system: Path = _SYSTEM_RUN) -> Path:
    """Where a gateway's control socket is looked for.

    As given, else `$EDGED_SOCKET`, else that of a gateway which this user runs, else the service's.
    """
    named = _named_socket(given)
    if named is not None:
        return named
    try:
        own = _own_socket()
    except ConfigError:  # a user without a home
        return system / SOCKET
    if _is_socket(own) and (_answers(own) or not (system / SOCKET).exists()):
        return own
    return system / SOCKET if system.exists() else listening_path(system=system)


def _named_socket(given: str | None) -> Path | None:
    named = given or os.environ.get("EDGED_SOCKET")
    if named:
        return Path(named)
    runtime = os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    return Path(runtime) / SOCKET if runtime else None


def _own_socket() -> Path:
    return Path(os.environ.get("XDG_RUNTIME_DIR") or _own_state()) / SOCKET


def _own_state() -> Path:
    named = os.environ.get("XDG_STATE_HOME")
    home = os.path.expanduser("~")  # noqa: PTH111  # unlike Path.home it does not raise where there is none
    if not named and home == "~":
        raise ConfigError("this user has no home folder to keep anything in: name one with --state, or set $HOME")
    return Path(named or Path(home) / ".local/state") / "edged"


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.stat().st_mode)
    except OSError:  # such as another user's runtime folder, after `su`
        return False


def _answers(path: Path) -> bool:
    """Whether somebody listens there; a gateway that was killed leaves its socket behind."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        return probe.connect_ex(str(path)) == 0
