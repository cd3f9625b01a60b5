"""A change of the configuration as a transaction: validate, apply what differs, watch, go back if it does not come up.

    request → validate (child process) → diff → apply → trial, watched ─┬→ good: the new last good configuration
                                                                         └→ rolled back, with the reason

While a trial is being watched a further reload may come; it is judged against the same last good configuration (how:
`edged.trial`). What happened is kept in `edged.config.history`, and the daemon starts with the last good configuration
when the file cannot be used (`choose`).
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from edged.clock import iso, mono_us, wall_us
from edged.config.compiled import Compiled, load_with_sources
from edged.config.diff import SINGLE, Diff, Touched, compare
from edged.config.history import Entry, History, Result, fingerprint, lay_out, snapshot
from edged.config.model import Config
from edged.errors import ConfigError, EdgedError, TransientError
from edged.notify import notify
from edged.trial import LOOK, Run, Trial, Vitals

log = logging.getLogger("edged.reload")

_LOOK_SHARE = 0.05
"""The largest share of the time that looking may take: with 100,000 devices a look takes long."""


class Gateway(Protocol):
    """What a reload needs of the daemon."""

    @property
    def config(self) -> Config:
        """What it runs."""
        ...

    def vitals(self) -> Vitals:
        """How it does."""
        ...

    def neighbours(self, touched: Touched) -> frozenset[str]:
        """The parts that `touched` concerns, as keys of `Vitals.parts`."""
        ...

    async def adopt(self, config: Config, touched: Touched) -> None:
        """Run `config` from now on, and leave alone what is not touched. Raises TransientError: nothing has changed."""
        ...

    async def settle(self) -> None:
        """Forget what was kept for a way back. Raises TransientError."""
        ...


@dataclass(frozen=True, slots=True)
class Start:
    """What a daemon starts with."""

    compiled: Compiled
    entry: Entry | None = None
    """The last good one, where the file itself cannot be used."""
    problem: str = ""
    """Why not."""


def choose(file: Path, state: Path, *, strict: bool) -> Start:
    """The configuration to start with: the file's, else the last good one.

    Raises ConfigError where the file cannot be used and, `strict` or there is none, no other may be.
    """
    history = History(state / "history")
    compiled: Compiled | None = None
    try:
        compiled = load_with_sources(file, state / "cache")
        problem = "" if strict else _known_to_fail(history, compiled)
    except ConfigError as exc:
        if strict or (entry := _last_good(history, file)) is None:
            raise
        problem = str(exc)
    else:
        entry = _last_good(history, file) if problem else None
        if entry is None:
            return Start(compiled)
    try:
        return Start(_restored(entry, state), entry, problem)
    except (ConfigError, OSError) as exc:
        log.error("%s; and the last good configuration, number %d, cannot be used: %s", problem, entry.number, exc)  # noqa: TRY400  # one line for people
        if compiled is None:
            raise ConfigError(problem) from exc
        return Start(compiled)


def _last_good(history: History, file: Path) -> Entry | None:
    try:
        return history.last_good(file)
    except ConfigError as exc:
        log.warning("no last good configuration: %s", exc)
        return None


def _known_to_fail(history: History, compiled: Compiled) -> str:
    """Why the files' configuration was rolled back, if that is the last that is known of it."""
    try:
        entries = history.entries()
    except ConfigError:
        return ""
    same = [entry for entry in entries if entry.fingerprint == fingerprint(compiled.sources)]
    if not same or same[-1].result != "rolled-back":
        return ""
    return f"this configuration was rolled back on {same[-1].time}: {same[-1].why}"


def _restored(entry: Entry, state: Path) -> Compiled:
    """The configuration of an entry. Raises ConfigError, OSError."""
    with tempfile.TemporaryDirectory(dir=state, prefix="last-good-") as name:
        folder = Path(name)
        return load_with_sources(lay_out(entry, folder / "files"), folder / "cache", log.debug)


class Reloader:
    """Carries out reloads, one after the other."""

    def __init__(self, gateway: Gateway, main: Path, state: Path, start: Start) -> None:
        """`main`: the configuration file; `start`: what the daemon was started with."""
        self._gateway = gateway
        self._main, self._file = main, str(main.absolute())
        self._cache = state / "cache"
        self._history = History(state / "history")
        self._requests: asyncio.Queue[Run] = asyncio.Queue(1)
        self._trial: Trial | None = None
        self._entry = start.entry
        self._sources = start.compiled.sources
        self._from_file = not start.problem
        self._problem = start.problem
        self._since = iso(wall_us())
        self._restart: tuple[str, ...] = ()

    # -- what people see -------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Which configuration runs, and whether it is what the file says."""
        trial = self._trial
        return {
            "file": self._file,
            "running": "file" if self._from_file else "last-good",
            "entry": self._entry.number if self._entry else None,
            "since": self._since,
            "problem": self._problem,
            "watching": round(max(trial.left, 0.1), 1) if trial else 0,
            "restart_needed": list(self._restart),
        }

    def request(self, *, watch: float | None = None, keep: bool = False) -> Run:
        """Ask for a reload; it begins at once, also while an earlier one is being watched.

        Raises TransientError when one is about to begin already.
        """
        run = Run(watch, keep)
        try:
            self._requests.put_nowait(run)
        except asyncio.QueueFull:
            raise TransientError("a reload is about to begin already; it takes the files as they are now") from None
        return run

    async def preview(self) -> dict[str, Any]:
        """What a reload would change. Raises ConfigError with the problems, TransientError."""
        said: list[str] = []
        try:
            fresh, _ = await self._read(said)
        except ConfigError as exc:
            raise ConfigError("\n".join([*said, str(exc)])) from exc
        return _diff_event(compare(self._gateway.config, fresh.config))

    # -- the work --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve requests until cancelled."""
        if self._from_file:
            await self._begin()
        else:
            log.error(
                "NOT running what %s says, but the last good configuration, number %s of %s: %s. Mend the file, then "
                "`edged reload`; `edged run --strict` never does this",
                self._file, self._entry.number if self._entry else "?", self._entry.time if self._entry else "?",
                self._problem,
            )  # fmt: skip
            notify("STATUS=running the last good configuration; the file cannot be used")
        while True:
            await self._carry_out(await self._next())

    async def _next(self) -> Run:
        """The next request. Until it comes, watch what is on trial."""
        while self._trial is not None:
            try:
                async with asyncio.timeout(min(self._trial.pause, max(self._trial.left, 0.01))):
                    return await self._requests.get()
            except TimeoutError:
                await self._look(self._trial)
        return await self._requests.get()

    async def _begin(self) -> None:
        """Put what the daemon started with on trial, unless it has proved itself before.

        A trial that a stop has cut short begins anew: a gateway that starts again and again must not fill the history.
        """
        try:
            newest = await asyncio.to_thread(self._history.last_good, self._main)
            if newest is not None and newest.fingerprint == fingerprint(self._sources):
                self._entry = newest
                return
            cut_short = await asyncio.to_thread(self._history.on_trial, self._main, fingerprint(self._sources))
            files = await asyncio.to_thread(snapshot, self._sources)
        except EdgedError as exc:
            log.warning("this configuration is not kept in the history: %s", exc)
            return
        self._entry = cut_short or await self._keep(files, "trial", ("started with it",))
        config, parts = self._gateway.config, frozenset(self._gateway.vitals().parts)
        self._trial = Trial(
            Run(keep=True), self._entry, config, None, (), Vitals({}, {}), parts, float(config.control.watch),
            time.monotonic(),
        )  # fmt: skip

    async def _carry_out(self, run: Run) -> None:
        notify("RELOADING=1", f"MONOTONIC_USEC={mono_us()}", "STATUS=reloading")
        said: list[str] = []
        try:
            fresh, files = await self._read(said)
            diff = compare(self._gateway.config, fresh.config)
            run.tell(**_diff_event(diff))
            for line in diff.lines():
                log.info("reload: %s", line)
            await self._apply(run, diff, fresh, files)
        except EdgedError as exc:
            self._problem, self._from_file = f"the last reload failed, nothing was changed: {exc}", False
            for line in "".join(said).splitlines():
                log.error("%s", line)  # noqa: TRY400  # what the child said of the files
            log.error("reload failed, nothing was changed: %s", exc)  # noqa: TRY400  # one line for people
            run.tell("failed", last=True, why=str(exc), problems="".join(said))
        notify("READY=1", f"STATUS={self._problem or 'running what the file says'}")

    async def _read(self, said: list[str]) -> tuple[Compiled, Mapping[str, Any]]:
        fresh = await asyncio.to_thread(load_with_sources, self._main, self._cache, said.append)
        return fresh, await asyncio.to_thread(snapshot, fresh.sources)

    async def _apply(self, run: Run, diff: Diff, fresh: Compiled, files: Mapping[str, Any]) -> None:
        gateway, old = self._gateway, self._trial
        running = gateway.config
        config = _without_restart(running, fresh.config)
        base, worked = (old.base, old.worked) if old else (running, gateway.vitals())
        base_restart = old.base_restart if old else self._restart
        concerned = gateway.neighbours(diff.touched) | (old.parts if old else frozenset())
        await gateway.adopt(config, diff.touched)
        concerned |= gateway.neighbours(diff.touched)
        base_entry = old.base_entry if old else self._entry
        self._since, self._problem, self._from_file = iso(wall_us()), "", True
        self._restart, self._sources = diff.touched.restart, fresh.sources
        if diff.touched.restart:
            log.warning("reload: only a restart applies %s", ", ".join(diff.touched.restart))
        if not diff.changes:
            same = self._entry is not None and self._entry.fingerprint == fingerprint(fresh.sources)
            if not same and old is None:
                self._entry = await self._keep(files, "good", ("only text without effect",))
            run.tell("unchanged", last=True)
            log.info("reload: nothing to change")
            return
        if old is not None:
            old.run.tell("superseded", last=True)
            self._trial = None
        watch = float(config.control.watch) if run.watch is None else run.watch
        self._entry = await self._keep(files, "trial", tuple(diff.lines()))
        self._trial = Trial(
            run, self._entry, base, base_entry, base_restart, worked, concerned, watch, time.monotonic()
        )
        run.tell("applied", watch=watch, entry=self._entry.number if self._entry else None)

    # -- the trial -------------------------------------------------------------------------------------------------

    async def _look(self, trial: Trial) -> None:
        began = time.thread_time()
        now = self._gateway.vitals()
        broken = trial.look(now)
        trial.pause = max(LOOK, (time.thread_time() - began) / _LOOK_SHARE)
        if trial.left > 0 and not broken:
            return
        failed = trial.failed(now) + ([broken] if broken else [])
        if failed and not trial.run.keep:
            await self._roll_back(trial, "; ".join(failed))
            return
        await self._settle()
        result: Result = "trial" if failed else "good"
        self._entry = await self._conclude(trial.entry, result, "; ".join(failed))
        self._trial = None
        notes = trial.silent(now)
        for note in (*failed, *(notes if trial.worked.parts else ())):
            log.warning("does not work yet: %s", note)
        log.info("the configuration has been watched for %.0f s%s", trial.watch, "" if failed else " and is good")
        trial.run.tell("kept" if failed else "good", last=True, problems=failed, notes=notes)

    async def _roll_back(self, trial: Trial, why: str) -> None:
        log.error("rolling back: %s", why)
        notify("RELOADING=1", f"MONOTONIC_USEC={mono_us()}", "STATUS=rolling back")
        touched = compare(self._gateway.config, trial.base).touched
        await self._gateway.adopt(trial.base, touched)
        await self._settle()
        await self._conclude(trial.entry, "rolled-back", why)
        self._entry, self._from_file, self._restart = trial.base_entry, False, trial.base_restart
        self._since = iso(wall_us())
        self._problem, self._trial = f"rolled back: {why}", None
        notify("READY=1", f"STATUS={self._problem}")
        trial.run.tell("rolled-back", last=True, why=why)

    async def _settle(self) -> None:
        try:
            await self._gateway.settle()
        except TransientError as exc:
            log.warning("what was kept for a way back stays until the next start: %s", exc)

    async def _keep(self, files: Mapping[str, Any], result: Result, changes: tuple[str, ...]) -> Entry | None:
        return await self._written(
            lambda: self._history.add(self._main, files, time=iso(wall_us()), result=result, changes=changes)
        )

    async def _conclude(self, entry: Entry | None, result: Result, why: str) -> Entry | None:
        if entry is None or result == "trial":
            return entry
        return await self._written(lambda: self._history.conclude(entry, result, why)) or entry

    async def _written(self, write: Callable[[], Entry]) -> Entry | None:
        try:
            return await asyncio.to_thread(write)
        except (OSError, ConfigError) as exc:
            log.warning("the history of configurations cannot be written: %s", exc)
            return None


def _diff_event(diff: Diff) -> dict[str, Any]:
    return {
        "event": "diff",
        "changes": [change.as_dict() for change in diff.changes],
        "lines": diff.lines(),
        "restart_needed": list(diff.touched.restart),
    }


def _without_restart(running: Config, wanted: Config) -> Config:
    """`wanted`, less what only a restart can apply."""
    kept = {name: getattr(running, name) for name in SINGLE if name not in {"gateway", "control", "backup"}}
    return replace(wanted, **kept, control=replace(wanted.control, socket=running.control.socket))
