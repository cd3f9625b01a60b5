"""What is asked of systemd, and told it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from edged.errors import PermanentError

UNIT = "edged.service"
_SECONDS = 120.0
_FACTS = (
    "LoadState", "ActiveState", "SubState", "Result", "ExecMainStatus", "MainPID", "NRestarts", "InvocationID",
    "User",
)  # fmt: skip


def systemctl(*arguments: str) -> str:
    """What systemctl answers. Raises PermanentError."""
    program = shutil.which("systemctl") or "systemctl"
    try:
        done = subprocess.run(  # noqa: S603  # the system's own program, no shell
            [program, *arguments], check=False, capture_output=True, text=True, timeout=_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise PermanentError(f"systemctl {arguments[0]}: {exc}", reason="system") from exc
    if done.returncode:
        raise PermanentError(f"systemctl {' '.join(arguments)}: {done.stderr.strip()}", reason="system")
    return done.stdout


def facts() -> dict[str, str]:
    """What systemd knows of the service. Raises PermanentError."""
    shown = systemctl("show", UNIT, f"--property={','.join(_FACTS)}")
    return dict(line.partition("=")[::2] for line in shown.splitlines())


def boot() -> str:
    """A name for this boot, which no two views on /proc can differ about. Raises PermanentError."""
    return systemctl("show", "--property=UserspaceTimestamp,UserspaceTimestampMonotonic").strip()


def booted() -> bool:
    """Whether this machine runs on systemd."""
    return Path("/run/systemd/system").is_dir() and shutil.which("systemctl") is not None
