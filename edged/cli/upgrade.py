"""`edged service upgrade` and `rollback`: another release in the place of the one that runs, and back by itself.

    the release that runs:   prove the new one → note it in trial.json → start edged-upgrade.service → tell how it goes
    edged-upgrade.service:   hand over → watch → keep the new one, or go back (also at a boot amid all this)

The first is here, with `upgrade_proof.py`; the second is in `upgrade_settle.py`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from edged.cli import EXIT_CONFIG, EXIT_PROBLEM, client
from edged.cli.system_files import WATCHER, fit
from edged.cli.systemd import boot, booted, facts, systemctl
from edged.cli.upgrade_proof import Proof, proof_of
from edged.cli.upgrade_settle import LOOK
from edged.clock import iso, wall_us
from edged.errors import ConfigError, EdgedError, PermanentError
from edged.upgrade import Home, Record, Trial, expected, home_of, needed_home

_WATCH = 50.0
"""Seconds for which a new release is watched, so that one that fails is undone within a minute."""
_SLOW = 120.0
"""Seconds that systemd may take for the rest."""


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
    home = needed_home()
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
    home = needed_home()
    name = home.link("previous")
    if name in ("", home.link("current")):
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
    running = facts() if booted() else {}
    proof, why = _proved(home, name, running, one_way=one_way)
    if why:
        click.echo(f"edged: {name} was refused, {old} goes on: {why}", err=True)
        if not dry_run:
            _stays(home, Record("refused", old, name, began, iso(wall_us()), why))
        return EXIT_CONFIG
    click.echo(f"{name} has read the configuration and knows the buffer")
    if dry_run:
        return 0
    if running.get("ActiveState") not in ("active", "activating", "reloading"):
        _switch(home, old, name)
        home.end(Record("good", old, name, began, iso(wall_us())))
        click.echo(f"{name} is what the next start will run: the service does not run now")
        return 0
    trial = Trial(
        old, name, boot(), began, watch, _worked(proof.socket, watch), proof.databases, proof.socket,
        running.get("InvocationID", ""), home.link("previous"),
    )  # fmt: skip
    if not trial.before:
        home.set_link("previous", old)  # somebody has to finish it after a power cut
    home.begin(trial)  # before the link changes: it alone knows then what there was before
    home.set_link("previous", old)
    try:
        fit(home, old, name)  # what dpkg has unpacked counts when the new release does
        systemctl("start", WATCHER)
    except EdgedError as exc:
        _stays(home, Record("interrupted", old, name, began, iso(wall_us()), str(exc)))
        raise
    return _follow(home, trial, wait=wait)


def _proved(home: Home, name: str, running: Mapping[str, str], *, one_way: bool) -> tuple[Proof, str]:
    """What the release says of itself, and why it cannot take over, if so."""
    try:
        proof = proof_of(home.release(name), running)
    except PermanentError as exc:
        return Proof(""), str(exc)
    why = "; ".join(proof.problems)
    if proof.one_way and not one_way:
        why = why or (
            f"it would change {', '.join(proof.one_way)} at once, and {home.link('current')} could not go on with "
            "that: --one-way does it all the same"
        )
    return proof, why


def _stays(home: Home, record: Record) -> None:
    """The old release goes on, with its own files of the system: dpkg may have put the new one's in place."""
    try:
        fit(home, record.old, record.new)
    except EdgedError as exc:
        click.echo(f"edged: {exc}", err=True)
    home.end(record)


def _switch(home: Home, old: str, new: str) -> None:
    """No service runs that could show whether it works."""
    if old:
        home.set_link("previous", old)
    home.set_link("current", new)
    fit(home, new, old)


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
        now = facts()
        if not ready and now["InvocationID"] != trial.invocation and now["ActiveState"] == "active":
            ready = True
            seconds = time.monotonic() - began
            click.echo(f"{trial.new} is ready after {seconds:.1f} s; watching it for {trial.watch:g} s")
            if not wait:
                return 0
        if time.monotonic() - began > 2 * trial.watch + _SLOW:
            raise PermanentError(f"{WATCHER} does not come to an end: systemctl status {WATCHER}", reason="system")
        time.sleep(LOOK)
    record = home.last()
    good = record is not None and record.outcome == "good" and record.new == trial.new
    click.echo(str(record), err=not good)
    return 0 if good else EXIT_PROBLEM


def _need_root() -> None:
    if os.geteuid():
        raise ConfigError("only root may do that: put sudo before it")


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
