"""`edged service settle`: sees an upgrade through, as edged-upgrade.service, and finishes one that was interrupted.

It runs the release from before, whatever the new one is like, and outlives the shell that asked.
"""

from __future__ import annotations

import logging
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import click

from edged.cli import client
from edged.cli.system_files import fit
from edged.cli.systemd import UNIT, boot, facts, systemctl
from edged.cli.upgrade_proof import formats
from edged.clock import iso, wall_us
from edged.errors import EdgedError, PermanentError
from edged.upgrade import Home, Outcome, Record, Trial, Watch, needed_home

log = logging.getLogger("edged.upgrade")

LOOK = 0.5
"""Seconds between two looks."""
_GONE = {"auto-restart", "stop-post", "failed"}
"""What systemd says of a service whose process has ended by itself."""


@click.command(hidden=True)
def settle() -> None:
    """Carry out the upgrade that was asked for, or finish one that was interrupted: edged-upgrade.service."""
    from edged import logs  # only here

    logs.set_up()
    home = needed_home()
    trial = home.trial()
    if trial is None:
        return
    if trial.why:
        _go_back(home, trial, trial.why)
        return
    if home.link("current") != trial.new and trial.boot != boot():
        log.warning("the upgrade to %s was interrupted before it took over; %s goes on", trial.new, trial.old)
        _try_to_fit(home, trial.old, trial.new)
        _end(home, trial, "interrupted", "the machine went off before the new release took over")
        return
    if why := _hand_over(home, trial) or _watch(trial):
        _go_back(home, trial, why)
        return
    _try_to_fit(home, trial.new, trial.old)  # from now on its own unit watches
    if not (home.path / "package").exists():  # what else it wants; Debian's package does that itself
        subprocess.run([home.path / "current/bin/edged", "service", "install", "--no-start"], check=False)  # noqa: S603  # our own
    try:
        for name in home.prune():
            log.info("removed the release %s", name)
    except OSError as exc:
        log.warning("releases that are not needed any more stay: %s", exc)
    log.info("%s has been watched for %.0f s and stays", trial.new, trial.watch)
    _end(home, trial, "good", "")  # last: whoever waits for it may change all of this


def _hand_over(home: Home, trial: Trial) -> str:
    """The new release and its files in the place of the old one; returns why that cannot be, if so.

    Done anew after a power cut, which changes nothing where it was complete.
    """
    again = home.link("current") == trial.new
    if not again:
        log.info("%s takes over from %s", trial.new, trial.old)
        home.set_link("current", trial.new)
    try:
        fit(home, trial.new, trial.old, watcher=trial.old)
        if not again or (trial.boot == boot() and facts()["InvocationID"] == trial.invocation):
            systemctl("restart", "--no-block", UNIT)
    except EdgedError as exc:
        return f"it cannot take over: {exc}"
    return ""


def _watch(trial: Trial) -> str:
    """Watch the new release; returns why it has to go, if so."""
    watch, began = Watch(trial.worked), time.monotonic()
    ready, rebooted = False, trial.boot != boot()
    while time.monotonic() < began + trial.watch:
        now = facts()
        if now["InvocationID"] != trial.invocation or rebooted:
            if now["NRestarts"] != "0" or now["SubState"] in _GONE:
                return f"it ended by itself ({now['Result']}, exit code {now['ExecMainStatus']}): journalctl -u edged"
            if now["ActiveState"] == "active":
                if not ready:
                    log.info("%s is ready after %.1f s", trial.new, time.monotonic() - began)
                ready = True
                try:
                    watch.look(client.call(Path(trial.socket), "/v1/status", timeout=10))
                except EdgedError as exc:
                    log.debug("%s", exc)
        time.sleep(LOOK)
    if not ready:
        return f"it did not get ready within {trial.watch:.0f} s"
    return "; ".join(watch.failed())


def _go_back(home: Home, trial: Trial, why: str) -> None:
    """The release before in the place of the new one. Can be begun anew wherever it was interrupted."""
    log.error("rolling back from %s to %s: %s", trial.new, trial.old, why)
    home.begin(replace(trial, why=why))
    home.set_link("current", trial.old)
    _try_to_fit(home, trial.old, trial.new)
    now = facts()
    if trial.boot == boot() and now["InvocationID"] == trial.invocation and now["ActiveState"] == "active":
        _end(home, trial, "rolled-back", why)  # the old one has never been stopped
        return
    state = now["ActiveState"]
    if state != "active":  # it hangs, or dies again and again: there is nothing to wait for
        _try("kill", "--signal=KILL", UNIT)
    if state != "inactive":  # stopped by a person
        _try("stop", UNIT)
    for path in trial.databases:
        _set_aside(trial, path)
    _end(home, trial, "rolled-back", why)
    if state != "inactive":
        systemctl("start", "--no-block", UNIT)


def _try_to_fit(home: Home, name: str, other: str) -> None:
    """What cannot be put in place is told, and keeps no release from running."""
    try:
        fit(home, name, other)
    except PermanentError as exc:
        log.warning("%s runs, but not with its own units: %s", name, exc)


def _try(*arguments: str) -> None:
    try:
        systemctl(*arguments)
    except PermanentError as exc:
        log.debug("%s", exc)


def _set_aside(trial: Trial, name: str) -> None:
    """Put away a file that only the new release can use, so that the one before can go on at all."""
    one = next((one for one in formats([Path(path) for path in trial.databases]) if str(one.path) == name), None)
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
