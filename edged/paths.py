"""Where things are: configuration, state and the control socket, for a service and for a person in a shell."""

from __future__ import annotations

import os
from pathlib import Path

from edged.errors import ConfigError

SYSTEM_CONFIG = Path("/etc/edged/edged.yaml")
_SYSTEM_STATE = Path("/var/lib/edged")
_SYSTEM_RUN = Path("/run/edged")


def config_path(given: str | None = None) -> Path:
    """The configuration file: as given, else `$EDGED_CONFIG`, else /etc/edged/edged.yaml.

    Raises ConfigError if none was given and the usual one is not there.
    """
    path = Path(given or os.environ.get("EDGED_CONFIG") or SYSTEM_CONFIG)
    if not given and not path.exists():
        raise ConfigError(f"there is no {path}: name your configuration on the command line, or in $EDGED_CONFIG")
    return path


def state_dir(given: str | None = None) -> Path:
    """The folder for buffer and caches: as given, else systemd's, else /var/lib/edged or the user's own."""
    named = given or os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    if named:
        return Path(named)
    if os.access(_SYSTEM_STATE if _SYSTEM_STATE.exists() else _SYSTEM_STATE.parent, os.W_OK):
        return _SYSTEM_STATE
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "edged"


def socket_path(given: str | None = None) -> Path:
    """The control socket: as given, else `$EDGED_SOCKET`, else in systemd's or the user's runtime folder."""
    named = given or os.environ.get("EDGED_SOCKET")
    if named:
        return Path(named)
    runtime = os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    if runtime:
        return Path(runtime) / "edged.sock"
    if os.access(_SYSTEM_RUN if _SYSTEM_RUN.exists() else _SYSTEM_RUN.parent, os.W_OK) or _SYSTEM_RUN.exists():
        return _SYSTEM_RUN / "edged.sock"
    return Path(os.environ.get("XDG_RUNTIME_DIR") or state_dir()) / "edged.sock"
