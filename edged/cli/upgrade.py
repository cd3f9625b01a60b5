"""`edged service upgrade` and `rollback`: another release in the place of the one that runs, and back by itself.

    the release that runs:   prove the new one → note it in trial.json → start edged-upgrade.service → tell how it goes
    edged-upgrade.service:   hand over → watch → keep the new one, or go back (also at a boot amid all this)

The unit runs the release from before, whatever the new one is like, and outlives the shell that asked.
"""

from __future__ import annotations

import json
import logging
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from edged import __version__
from edged.cli import EXIT_CONFIG, EXIT_PROBLEM, client
from edged.clock import iso, wall_us
from edged.errors import ConfigError, EdgedError, PermanentError
from edged.upgrade import Format, Home, Outcome, Record, Trial, Watch, expected, format_of, home_of

log = logging.getLogger("edged.upgrade")

_UNIT, _WATCHER = "edged.service", "edged-upgrade.service"
_WATCH = 50.0
"""Seconds for which a new release is watched, so that one that fails is undone within a minute."""
_LOOK = 0.5
"""Seconds between two looks."""
_PROOF = 300.0
"""Seconds that a release may take to read the configuration: thousands of lines take some on the slowest board."""
_SYSTEMCTL = 120.0
_NOT_FOR_A_PROOF = {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "JOURNAL_STREAM", "INVOCATION_ID"}
_GONE = {"auto-restart", "stop-post", "failed"}
"""What systemd says of a service whose process has ended by itself."""
_FACTS = (
    "LoadState", "ActiveState", "SubState", "Result", "ExecMainStatus", "MainPID", "NRestarts", "InvocationID",
    "User",
)  # fmt: skip


# -- systemd -----------------------------------------------------------------------------------------------------------


def systemctl(*arguments: str) -> str:
    """What systemctl answers. Raises PermanentError."""
    program = shutil.which("systemctl") or "systemctl"
    try:
        done = subprocess.run(  # noqa: S603  # the system's own program, no shell
            [program, *arguments], check=False, capture_output=True, text=True, timeout=_SYSTEMCTL
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise PermanentError(f"systemctl {arguments[0]}: {exc}", reason="system") from exc
    if done.returncode:
        raise PermanentError(f"systemctl {' '.join(arguments)}: {done.stderr.strip()}", reason="system")
    return done.stdout


def _facts() -> dict[str, str]:
    shown = systemctl("show", _UNIT, f"--property={','.join(_FACTS)}")
    return dict(line.partition("=")[::2] for line in shown.splitlines())


def _boot() -> str:
    """A name for this boot, which no two views on /proc can differ about."""
    return systemctl("show", "--property=UserspaceTimestamp,UserspaceTimestampMonotonic").strip()


def _booted() -> bool:
    return Path("/run/systemd/system").is_dir() and shutil.which("systemctl") is not None


# -- the proof ---------------------------------------------------------------------------------------------------------


def _formats(databases: Sequence[Path]) -> list[Format]:
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
    for one in _formats(databases):
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


def _proof(release: Path, facts: Mapping[str, str]) -> Proof:
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


# -- asking for it -----------------------------------------------------------------------------------------------------


@click.command(short_help="Let another release take over; it is undone by itself if that does not work.")
@click.argument("what", required=False, type=click.Path(exists=True))
@click.option("--dry-run", is_flag=True, help="Only let the release prove itself.")
@click.option("--no-wait", is_flag=True, help="Return when it has taken over; it is watched all the same.")
@click.option("--watch", metavar="SECONDS", type=click.FloatRange(5, 3600), default=_WATCH, show_default=True,
              help="How long to watch the new release.")  # fmt: skip
@click.option("--one-way", is_flag=True, help="Also where the release before could not use the buffer any more.")
def upgrade(what: str | None, dry_run: bool, no_wait: bool, watch: float, one_way: bool) -> None:  # click's way
    """Let another release take over; it is undone by itself if that does not work.

    WHAT is a package (.deb), a bundle (.tar.gz), or the folder of a release that is here already; without it, the
    newest that is here.

    The new release first proves itself beside the one that runs: it reads the configuration and looks at the buffer.
    Then it takes over, and is watched. If it ends, does not get ready, or something that worked before does not work
    with it, the gateway goes back to the release before.

    Exit codes: 0 done; 1 rolled back; 2 refused, and nothing has changed.
    """
    if not dry_run:
        _need_root()
    home = _home()
    if what and what.endswith(".deb"):
        sys.exit(_install_package(home, Path(what), dry_run=dry_run))
    name = _release(home, what)
    sys.exit(change(home, name, dry_run=dry_run, wait=not no_wait, watch=watch, one_way=one_way))


@click.command(short_help="Go back to the release before, in the same careful way.")
def rollback() -> None:
    """Go back to the release before, in the same careful way.

    Refused where that one could not use the buffer any more.
    """
    _need_root()
    home = _home()
    name = home.link("previous")
    if not name:
        raise ConfigError("there is no release before this one")
    sys.exit(change(home, name))


def change(
    home: Home, name: str, *, dry_run: bool = False, wait: bool = True, watch: float = _WATCH, one_way: bool = False
) -> int:
    """Let the release `name` take over; returns the exit code. Raises EdgedError."""
    old, began = home.link("current"), iso(wall_us())
    if home.trial() is not None:
        raise ConfigError("an upgrade is under way: `edged service status` tells how it is going")
    if name == old:
        click.echo(f"{name} runs already")
        return 0
    facts = _facts() if _booted() else {}
    try:
        proof = _proof(home.release(name), facts)
        why = "; ".join(proof.problems)
        if proof.one_way and not one_way:
            why = why or (
                f"it would change {', '.join(proof.one_way)} at once, and {old} could not go on with that: "
                "--one-way does it all the same"
            )
    except PermanentError as exc:
        proof, why = Proof(""), str(exc)
    if why:
        click.echo(f"edged: {name} was refused, {old} goes on: {why}", err=True)
        if not dry_run:
            home.end(Record("refused", old, name, began, iso(wall_us()), why))
        return EXIT_CONFIG
    click.echo(f"{name} has read the configuration and knows the buffer")
    if dry_run:
        return 0
    if facts.get("ActiveState") not in ("active", "activating", "reloading"):
        _switch(home, old, name)
        home.end(Record("good", old, name, began, iso(wall_us())))
        click.echo(f"{name} is what the next start will run: the service does not run now")
        return 0
    trial = Trial(
        old,
        name,
        _boot(),
        began,
        watch,
        _worked(proof.socket, watch),
        proof.databases,
        proof.socket,
        facts.get("InvocationID", ""),
        home.link("previous"),
    )
    home.set_link("previous", old)
    home.begin(trial)
    try:
        systemctl("start", _WATCHER)
    except PermanentError as exc:
        home.end(Record("interrupted", old, name, began, iso(wall_us()), str(exc)))
        raise
    return _follow(home, trial, wait=wait)


def _switch(home: Home, old: str, new: str) -> None:
    if old:
        home.set_link("previous", old)
    home.set_link("current", new)


def _worked(socket: str, watch: float) -> tuple[str, ...]:
    """What works now, and should work again within the time of the watch."""
    try:
        status = client.call(Path(socket), "/v1/status")
        uptime = (_seconds(status["time"]) - _seconds(status["started"])) if "started" in status else 0.0
    except (EdgedError, KeyError, ValueError) as exc:
        click.echo(f"the gateway does not say how it does ({exc}): only whether the new one keeps running counts")
        return ()
    return expected(status, uptime, watch)


def _seconds(text: str) -> float:
    from datetime import datetime  # only here

    return datetime.fromisoformat(text).timestamp()


def _follow(home: Home, trial: Trial, *, wait: bool) -> int:
    """Tell how it goes until it is over, or the new one is ready."""
    began, ready = time.monotonic(), False
    while home.trial() is not None:
        facts = _facts()
        if not ready and facts["InvocationID"] != trial.invocation and facts["ActiveState"] == "active":
            ready = True
            seconds = time.monotonic() - began
            click.echo(f"{trial.new} is ready after {seconds:.1f} s; watching it for {trial.watch:g} s")
            if not wait:
                return 0
        if time.monotonic() - began > 2 * trial.watch + _SYSTEMCTL:
            raise PermanentError(f"{_WATCHER} does not come to an end: systemctl status {_WATCHER}", reason="system")
        time.sleep(_LOOK)
    record = home.last()
    good = record is not None and record.outcome == "good" and record.new == trial.new
    click.echo(str(record), err=not good)
    return 0 if good else EXIT_PROBLEM


def _need_root() -> None:
    if os.geteuid():
        raise ConfigError("only root may do that: put sudo before it")


def _home() -> Home:
    home = home_of()
    if home is None:
        raise ConfigError(
            f"{sys.prefix} is a plain environment, without releases side by side: upgrade it with pip, then "
            "`edged service install`; Debian's package and a bundle bring releases"
        )
    return home


def _release(home: Home, what: str | None) -> str:
    """The name of the release that is meant. Raises ConfigError, PermanentError."""
    if what is None:
        newest = home.names()
        if not newest:
            raise ConfigError(f"there is no release in {home.path}")
        return newest[0]
    path = Path(what).resolve()
    if path.is_file():
        return _unpack(home, path)
    if path.parent != home.path / "releases" or path.name not in home.names():
        raise ConfigError(f"{what} is no complete release of {home.path}: there are {', '.join(home.names())}")
    return path.name


def _unpack(home: Home, archive: Path) -> str:
    """Install a bundle beside the release that runs; returns its name."""
    if (home.path / "package").exists():
        raise ConfigError("Debian's package is installed here: give a .deb")
    with tempfile.TemporaryDirectory(dir=home.path, prefix=".bundle-") as name:
        done = subprocess.run(["tar", "-xf", archive, "-C", name], check=False, capture_output=True, text=True)  # noqa: S603, S607  # the system's tar on what root has named
        scripts = list(Path(name).glob("*/install"))
        if done.returncode or len(scripts) != 1:
            raise ConfigError(f"{archive} is no bundle of edged: {done.stderr.strip() or 'there is no install in it'}")
        done = subprocess.run(  # noqa: S603  # what root has named
            [scripts[0], home.path, "--release"],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        raise PermanentError(f"{archive} could not be installed: see above", reason="bundle")
    return lines[-1]


def _install_package(home: Home, package: Path, *, dry_run: bool) -> int:
    """Let dpkg do it: the package's own script calls back."""
    if not (home.path / "package").exists():
        raise ConfigError(f"{home.path} was not installed by Debian's package: give a bundle (.tar.gz)")
    command = ["dpkg", *(["--dry-run"] if dry_run else []), "--install", str(package)]
    return subprocess.run(command, check=False).returncode  # noqa: S603  # what root has named


# -- seeing it through -------------------------------------------------------------------------------------------------


@click.command(hidden=True)
def settle() -> None:
    """Carry out the upgrade that was asked for, or finish one that was interrupted: edged-upgrade.service."""
    from edged import logs  # only here

    logs.set_up()
    home = _home()
    trial = home.trial()
    if trial is None:
        return
    if trial.why:
        _go_back(home, trial, trial.why)
        return
    if home.link("current") != trial.new:
        if trial.boot != _boot():
            log.warning("the upgrade to %s was interrupted before it took over; %s goes on", trial.new, trial.old)
            _end(home, trial, "interrupted", "the machine went off before the new release took over")
            return
        log.info("%s takes over from %s", trial.new, trial.old)
        home.set_link("current", trial.new)
        systemctl("restart", "--no-block", _UNIT)
    if why := _watch(trial):
        _go_back(home, trial, why)
        return
    if not (home.path / "package").exists():  # the units that it brings; Debian's package has put them in place
        subprocess.run([home.path / "current/bin/edged", "service", "install", "--no-start"], check=False)  # noqa: S603  # our own
    try:
        for name in home.prune():
            log.info("removed the release %s", name)
    except OSError as exc:
        log.warning("releases that are not needed any more stay: %s", exc)
    log.info("%s has been watched for %.0f s and stays", trial.new, trial.watch)
    _end(home, trial, "good", "")  # last: whoever waits for it may change all of this


def _watch(trial: Trial) -> str:
    """Watch the new release; returns why it has to go, if so."""
    watch, began = Watch(trial.worked), time.monotonic()
    ready, rebooted = False, trial.boot != _boot()
    while time.monotonic() < began + trial.watch:
        facts = _facts()
        if facts["InvocationID"] != trial.invocation or rebooted:
            if facts["NRestarts"] != "0" or facts["SubState"] in _GONE:
                return (
                    f"it ended by itself ({facts['Result']}, exit code {facts['ExecMainStatus']}): journalctl -u edged"
                )
            if facts["ActiveState"] == "active":
                if not ready:
                    log.info("%s is ready after %.1f s", trial.new, time.monotonic() - began)
                ready = True
                try:
                    watch.look(client.call(Path(trial.socket), "/v1/status", timeout=10))
                except EdgedError as exc:
                    log.debug("%s", exc)
        time.sleep(_LOOK)
    if not ready:
        return f"it did not get ready within {trial.watch:.0f} s"
    return "; ".join(watch.failed())


def _go_back(home: Home, trial: Trial, why: str) -> None:
    """The release before in the place of the new one. Can be begun anew wherever it was interrupted."""
    log.error("rolling back from %s to %s: %s", trial.new, trial.old, why)
    home.begin(replace(trial, why=why))
    home.set_link("current", trial.old)
    state = _facts()["ActiveState"]
    if state != "active":  # it hangs, or dies again and again: there is nothing to wait for
        _try("kill", "--signal=KILL", _UNIT)
    if state != "inactive":  # stopped by a person
        _try("stop", _UNIT)
    for path in trial.databases:
        _set_aside(trial, path)
    _end(home, trial, "rolled-back", why)
    if state != "inactive":
        systemctl("start", "--no-block", _UNIT)


def _try(*arguments: str) -> None:
    try:
        systemctl(*arguments)
    except PermanentError as exc:
        log.debug("%s", exc)


def _set_aside(trial: Trial, name: str) -> None:
    """Put away a file that only the new release can use, so that the one before can go on at all."""
    one = next((one for one in _formats([Path(path) for path in trial.databases]) if str(one.path) == name), None)
    if one is None or not one.newer:
        return
    for path in (one.path, *(one.path.with_name(f"{one.path.name}{end}") for end in ("-wal", "-shm"))):
        if path.exists():
            path.rename(path.with_name(path.name.replace(one.path.name, f"{one.path.name}.format-{one.found}")))
    log.error(
        "%s is of format %d, which %s does not know: it is kept as %s.format-%d, with all that was not delivered",
        one.path, one.found, trial.old, one.path.name, one.found,
    )  # fmt: skip


def _end(home: Home, trial: Trial, outcome: Outcome, why: str) -> None:
    if outcome != "good" and trial.before in home.names():
        home.set_link("previous", trial.before)
    home.end(Record(outcome, trial.old, trial.new, trial.began, iso(wall_us()), why))


def described() -> Iterator[str]:
    """What there is to say of releases, for `edged service status`."""
    home = home_of()
    if home is None:
        return
    trial, record = home.trial(), home.last()
    others = [name for name in home.names() if name != home.link("current")]
    yield f"release {home.link('current')}" + (f"; also here: {', '.join(others)}" if others else "")
    if trial is not None:
        yield f"UPGRADE under way since {trial.began}: {trial.new} is watched for {trial.watch:g} s"
    elif record is not None:
        yield str(record)
