"""What a release says of itself before it takes over: `edged service prove`, asked by the release that runs."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from edged import __version__
from edged.errors import ConfigError, PermanentError
from edged.upgrade import Format, format_of

_PROOF = 300.0
"""Seconds that a release may take to read the configuration: thousands of lines take some on the slowest board."""
_NOT_FOR_A_PROOF = {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "JOURNAL_STREAM", "INVOCATION_ID"}


def formats(databases: Sequence[Path]) -> list[Format]:
    """The forms of the buffer and of what is kept of commands, and those that this release knows."""
    from edged.buffer import store as buffer  # `edged --help` must not pay for them
    from edged.downlink import store as commands

    known = ((buffer.FORMAT, buffer.USABLE), (commands.FORMAT, commands.FORMAT))
    return [format_of(path, *numbers) for path, numbers in zip(databases, known, strict=True)]


@click.command(hidden=True)
@click.argument("config", required=False)
@click.option("--state")
@click.option("--socket")
@click.option("--log-level")
@click.option("--strict", is_flag=True)
def prove(config: str | None, state: str | None, socket: str | None, log_level: str | None, strict: bool) -> None:  # noqa: ARG001  # those of `edged run`
    """Say as JSON whether this release can take over from the one that runs: called by that one.

    Does what a start does before it touches anything: the configuration is read and compiled, which is kept for the
    start; all code is loaded.
    """
    from edged import daemon, paths  # noqa: F401  # whether it can be loaded is part of the proof
    from edged.config.compiled import load_with_sources

    file, folder = paths.config_path(config), paths.state_dir(state)
    said: list[str] = []
    problems: list[str] = []
    databases = [folder / "buffer.db", folder / "commands.db"]
    try:
        loaded = load_with_sources(file, folder / "cache", said.append).config
        databases[0] = Path(loaded.buffer.path) if loaded.buffer.path else databases[0]
        socket = socket or loaded.control.socket or None
    except ConfigError as exc:
        problems += ["".join(said).strip(), str(exc)]
    one_way = []
    for one in formats(databases):
        if one.newer:
            problems.append(
                f"{one.path} was written by a newer edged (format {one.found}; edged {__version__} knows {one.known})"
            )
        if one.one_way:
            one_way.append(f"{one.path} (format {one.found}, to {one.known})")
    click.echo(
        json.dumps({
            "version": __version__, "problems": [one for one in problems if one], "one_way": one_way,
            "databases": [str(one) for one in databases], "socket": str(paths.socket_path(socket)),
        })
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Proof:
    """What a release says of itself."""

    version: str
    problems: tuple[str, ...] = ()
    one_way: tuple[str, ...] = ()
    """Files that it changes at once, so that there is no way back."""
    databases: tuple[str, ...] = ()
    socket: str = ""


def proof_of(release: Path, facts: Mapping[str, str]) -> Proof:
    """Let a release prove itself, as the user and in the surroundings of the service. Raises PermanentError."""
    arguments, environment = _surroundings(facts)
    who: dict[str, Any] = {}
    if facts.get("User") and os.geteuid() == 0:
        try:
            user = pwd.getpwnam(facts["User"])
        except KeyError:
            raise PermanentError(f"there is no user {facts['User']}", reason="system") from None
        who = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": os.getgrouplist(user.pw_name, user.pw_gid)}
    command = [str(release / "bin/python3"), "-I", "-m", "edged", "service", "prove", *arguments]
    try:
        done = subprocess.run(  # noqa: S603  # an installed release of our own
            command, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=_PROOF, env=environment, cwd="/", **who,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise PermanentError(f"it did not prove itself within {_PROOF:.0f} s", reason="proof") from None
    except OSError as exc:
        raise PermanentError(f"it cannot be started: {exc}", reason="proof") from exc
    try:
        found = json.loads(done.stdout.splitlines()[-1])
        names = {key: tuple(found[key]) for key in ("problems", "one_way", "databases")}
        return Proof(version=found["version"], socket=found["socket"], **names)
    except (IndexError, ValueError, KeyError, TypeError):
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise PermanentError(f"it does not work (exit code {done.returncode}): {last}", reason="proof") from None


def _surroundings(facts: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """The arguments of `edged run` and the environment that the running service has; else what it would have."""
    usual = {"PATH": os.environ.get("PATH", os.defpath), "STATE_DIRECTORY": "/var/lib/edged"}
    try:
        folder = Path(f"/proc/{int(facts.get('MainPID', '0')) or 'none'}")
        words = (folder / "cmdline").read_bytes().split(b"\0")[:-1]
        pairs = (folder / "environ").read_bytes().split(b"\0")
        arguments = [os.fsdecode(word) for word in words[words.index(b"run") + 1 :]]
    except (OSError, ValueError):
        return [], usual
    environment = dict(os.fsdecode(pair).partition("=")[::2] for pair in pairs if b"=" in pair)
    return arguments, {name: value for name, value in environment.items() if name not in _NOT_FOR_A_PROOF}
