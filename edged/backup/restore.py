"""Puts a backup in the place of what is there: all of it or nothing, and what was there is kept."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from edged.backup.archive import extract_to, opened, room, sync_folder
from edged.backup.check import verify
from edged.backup.manifest import BUFFER, COMMANDS, Manifest, Member, chosen
from edged.backup.pending import JOURNAL, Step, begin, finish
from edged.buffer.lock import Lock
from edged.buffer.offline import look
from edged.cli.system_files import shipped
from edged.clock import wall_us
from edged.config.load import load
from edged.downlink import restored
from edged.downlink.store import read_offline
from edged.errors import ConfigError, EdgedError, PermanentError

_SPARE = 16 * 2**20
_SIDE_FILES = ("-wal", "-shm")


@dataclass(frozen=True, slots=True)
class Goal:
    """Where a backup is to go."""

    main: Path
    """The configuration's main file."""
    state: Path
    only: frozenset[str] = frozenset()
    """Parts; all without any."""
    outside: bool = False
    """Whether files may go to places outside the folders of configuration and state."""
    force: bool = False
    """Whether what is there may be set aside."""


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of one file."""

    target: Path
    what: Literal["new", "replaced", "unchanged", "set aside"]
    member: str = ""


@dataclass(slots=True)
class Plan:
    """What a restore would do."""

    manifest: Manifest
    changes: list[Change] = field(default_factory=list)
    blockers: list[str] = field(default_factory=list)
    """What is there and would be set aside: only with `force`."""
    notes: list[str] = field(default_factory=list)
    aside: dict[Path, Path] = field(default_factory=dict)
    """Folder → where in it that goes what was there."""
    waited: int = 0
    """Commands that waited in the backup, and are not carried out."""


def planned(path: Path, goal: Goal) -> Plan:
    """Look at everything and change nothing. Raises ConfigError, PermanentError (damaged backup), TransientError."""
    try:
        return _planned(path, goal)
    except OSError as exc:  # a folder that this user may not look into
        raise ConfigError(f"{exc.filename or path} cannot be read ({exc.strerror or exc}); try with sudo") from exc


def _planned(path: Path, goal: Goal) -> Plan:
    verdict = verify(path)
    if verdict.problems or verdict.manifest is None:
        raise PermanentError(
            f"{path} is not whole: {verdict.problems[0]}. Take another backup; what can be saved of this one: tar -xzf",
            reason="backup",
        )
    manifest = verdict.manifest
    plan = Plan(manifest, notes=[*manifest.notes, *verdict.warnings])
    contents: dict[str, bytes] = {}
    members = list(chosen(manifest, goal.only))

    def keep(member: Member, pieces: Iterator[bytes]) -> None:
        if member in members and not member.name.endswith(".db"):
            contents[member.name] = b"".join(pieces)

    with opened(path) as archive:
        archive.each(keep)
    _check_buffer(manifest, goal, members)
    for member in members:
        target = _target(member.name, manifest, goal)
        if target is None:
            plan.notes.append(f"{member.name.removeprefix('outside')} lies outside: --outside puts it back, too")
        else:
            plan.changes.append(_change(member.name, target, contents.get(member.name)))
    parts, there = {member.part for member in members}, {change.target for change in plan.changes}
    others = [*(_configured(goal.main) if "config" in parts else ())]
    others += sorted((goal.state / "history").glob("[0-9]*.json")) if "history" in parts else []
    plan.changes += [Change(path, "set aside") for path in others if path not in there]
    plan.blockers += _blockers(plan, goal)
    plan.notes += [f"not in this backup: {name}" for name in manifest.left_out if not Path(name).exists()]
    return plan


def _check_buffer(manifest: Manifest, goal: Goal, members: Collection[Member]) -> None:
    """An archive does not decide where root writes a file."""
    elsewhere = manifest.buffer_path and not _within(Path(manifest.buffer_path), goal.state)
    if elsewhere and not goal.outside and any(member.name == BUFFER for member in members):
        raise ConfigError(
            f"the buffer belongs at {manifest.buffer_path}, outside of {goal.state}: add --outside, or leave it out "
            "with --only"
        )


def _within(path: Path, folder: Path) -> bool:
    return Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder))  # noqa: PTH100  # links stay as they are


def _target(name: str, manifest: Manifest, goal: Goal) -> Path | None:
    """Where a member goes; None if nobody has allowed that."""
    top, _, rest = name.partition("/")
    if top == "config":
        return goal.main if name == manifest.main else goal.main.parent / rest
    if top == "outside":
        return Path("/") / rest if goal.outside else None
    if name == BUFFER and manifest.buffer_path:
        return Path(manifest.buffer_path).absolute()
    return goal.state / rest


def _change(name: str, target: Path, content: bytes | None) -> Change:
    if not os.path.lexists(target):
        return Change(target, "new", name)
    try:
        same = content is not None and target.read_bytes() == content
    except OSError:
        same = False
    return Change(target, "unchanged" if same else "replaced", name)


def _configured(main: Path) -> Iterator[Path]:
    """The files that a configuration in this folder consists of now."""
    folder = main.parent
    found = {path.absolute() for path in load(main).files} if main.exists() else set()
    found |= {path for name in ("conf.d", "profiles") for path in (folder / name).glob("*.y*ml")}
    yield from sorted(path for path in found if path.is_relative_to(folder))


def _blockers(plan: Plan, goal: Goal) -> Iterator[str]:
    """What a person must agree to lose sight of."""
    config = [one for one in plan.changes if one.what in {"replaced", "set aside"} and _is_config(one, goal)]
    if config and not _is_shipped(goal.main, config):
        ours = load(goal.main).config if goal.main.exists() else None
        other = ours is not None and plan.manifest.gateway not in {"", str(ours.gateway.id)}
        who = f", of the gateway {ours.gateway.id}, not {plan.manifest.gateway}" if ours and other else ""
        yield f"there is another configuration{who}: {', '.join(str(one.target) for one in config[:5])}"
    for change in plan.changes:
        if change.what != "replaced":
            continue
        if change.member == BUFFER and (text := _buffer_there(change.target)):
            yield text
        if change.member == COMMANDS and _commands_there(change.target):
            yield f"there are commands in {change.target}"


def _is_config(change: Change, goal: Goal) -> bool:
    return not change.member.startswith("state/") and not _within(change.target, goal.state)


def _is_shipped(main: Path, changes: Collection[Change]) -> bool:
    """Whether all that is there is what an installation puts there."""
    if [change.target for change in changes] != [main]:
        return False
    try:
        return main.read_text("utf-8") == shipped("edged.yaml")
    except (OSError, ConfigError, UnicodeDecodeError):
        return False


def _buffer_there(path: Path) -> str:
    try:
        stats = look(path, "stats", {})
    except EdgedError:
        return f"there is a buffer {path}, which cannot be read"
    waiting = sum(one["pending"] for one in stats["connections"].values())
    more = f", of which {waiting:,} wait to be delivered" if waiting else ""
    return f"there are {stats['readings']:,} readings in {path}{more}" if stats["head"] else ""


def _commands_there(path: Path) -> bool:
    try:
        return bool(read_offline(path, 1))
    except (EdgedError, ValueError):
        return True


# -- doing it ----------------------------------------------------------------------------------------------------------


def restore(path: Path, goal: Goal, plan: Plan) -> None:
    """Carry a plan out. What was there is beside its place afterwards: see `Plan.aside`.

    Raises ConfigError (the gateway runs, a folder cannot be written, no `force` for what is there), TransientError.
    """
    if plan.blockers and not goal.force:
        raise ConfigError(f"{'; '.join(plan.blockers)}: --force sets that aside")
    _check_links(plan, goal)
    with ExitStack() as stack:
        try:
            owner = _prepared(goal.state)
            if any(change.member.startswith("state/") for change in plan.changes):
                stack.enter_context(_locked(plan, goal, owner))
            finish(goal.state)  # of an earlier restore
            _carry_out(path, goal, plan, owner)
        except OSError as exc:
            where = exc.filename or goal.state
            raise ConfigError(f"{where} cannot be written ({exc.strerror or exc}); try with sudo") from exc


def _check_links(plan: Plan, goal: Goal) -> None:
    """The state belongs to the service: who writes there must not lead root to other folders. Raises ConfigError."""
    folders = {folder for one in plan.changes for folder in one.target.parents if _within(folder, goal.state)}
    for folder in sorted(folders - {goal.state}):
        if folder.is_symlink() and folder.lstat().st_uid not in {0, os.geteuid()}:
            raise ConfigError(f"{folder} is a link that this user has not made: look where it leads, and remove it")


def _prepared(state: Path) -> tuple[int, int]:
    """Make the folder of the state, if need be; returns who owns it."""
    if not state.exists():
        state.mkdir(mode=0o750, parents=True)
        try:
            user = pwd.getpwnam("edged")
        except KeyError:
            user = None
        if user is not None and os.geteuid() == 0 and state == Path("/var/lib/edged"):
            os.chown(state, user.pw_uid, user.pw_gid)
    status = state.stat()
    return status.st_uid, status.st_gid


@contextmanager
def _locked(plan: Plan, goal: Goal, owner: tuple[int, int]) -> Iterator[None]:
    """Keep the gateway from starting meanwhile. Raises ConfigError if it runs."""
    with ExitStack() as stack:
        for place in _buffers(plan, goal):
            try:
                lock = Lock(place)
            except ConfigError as exc:
                raise ConfigError(f"{exc}. The gateway must not run meanwhile: sudo systemctl stop edged") from exc
            stack.callback(lock.release)
            _give(lock.path, owner)
        yield


def _buffers(plan: Plan, goal: Goal) -> set[Path]:
    """Where a gateway that runs would have its buffer: as it is configured now, and as it was."""
    running = load(goal.main).config if goal.main.exists() else None
    named = {running.buffer.path if running else "", plan.manifest.buffer_path}
    places = {Path(name) if name else goal.state / "buffer.db" for name in named}
    return {place for place in places if place.parent.is_dir()} | {
        one.target for one in plan.changes if one.member == BUFFER
    }


def _carry_out(path: Path, goal: Goal, plan: Plan, owner: tuple[int, int]) -> None:
    changing = {one.member: one.target for one in plan.changes if one.member and one.what != "unchanged"}
    stamp = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(2)}"
    roots = _roots(goal, [one.target for one in plan.changes if one.what != "unchanged"])
    for root in roots.values():
        root.mkdir(parents=True, exist_ok=True)
        for junk in root.glob(".restore-*"):  # of a restore that was killed before it changed anything
            shutil.rmtree(junk, ignore_errors=True)
        for empty in root.glob("before-restore-*"):  # likewise
            with suppress(OSError):
                empty.rmdir()
    staging = {root: root / f".restore-{stamp}" for root in roots.values()}
    aside = {root: root / f"before-restore-{stamp}" for root in roots.values()}
    try:
        for root, place in staging.items():
            sizes = [one.size for one in plan.manifest.members if roots.get(changing.get(one.name, Path())) == root]
            room(root, sum(sizes), _SPARE)
            place.mkdir(mode=0o700)
        _make_folders(changing.values(), goal.state, owner)
        staged = {name: staging[roots[target]] / name for name, target in changing.items()}
        with opened(path) as archive:
            archive.each(extract_to(staged))
        plan.waited = _settle_commands(staged, changing)
        _dress(plan.manifest, staged, changing, owner)
        for place in staging.values():
            for folder in (place, *(one for one in place.rglob("*") if one.is_dir())):
                sync_folder(folder)
        for root, place in aside.items():
            if any(os.path.lexists(one.target) for one in plan.changes if roots.get(one.target) == root):
                place.mkdir(mode=0o700)
                _give(place, owner if root == goal.state else _owner_of(root))
                plan.aside[root] = place
        steps = list(_steps(plan, roots, aside, staged))
        begin(goal.state, steps, staging.values())
    except BaseException:
        if not (goal.state / JOURNAL).exists():
            for folder in (*staging.values(), *plan.aside.values()):
                shutil.rmtree(folder, ignore_errors=True)
        raise
    finish(goal.state)


def _roots(goal: Goal, targets: Collection[Path]) -> dict[Path, Path]:
    """Target → the folder in which it is prepared, and in which stays what was there: always on the same disk."""
    roots: dict[Path, Path] = {}
    for target in targets:
        if _within(target, goal.state):
            roots[target] = goal.state
        elif _within(target, goal.main.parent):
            roots[target] = goal.main.parent
        else:
            roots[target] = target.parent
    return roots


def _steps(
    plan: Plan, roots: Mapping[Path, Path], aside: Mapping[Path, Path], staged: Mapping[str, Path]
) -> Iterator[Step]:
    for change in plan.changes:
        if change.what == "unchanged":
            continue
        root = roots[change.target]
        inner = change.target.relative_to(root)
        if change.target.suffix == ".db" or change.member in {BUFFER, COMMANDS}:
            for side in _SIDE_FILES:  # a journal must never meet a database that it does not belong to
                beside = change.target.with_name(change.target.name + side)
                yield Step(str(beside), str(aside[root] / inner) + side)
        new = str(staged[change.member]) if change.member else ""
        yield Step(str(change.target), str(aside[root] / inner), new)


def _settle_commands(staged: Mapping[str, Path], targets: Mapping[str, Path]) -> int:
    if COMMANDS not in staged:
        return 0
    there = targets[COMMANDS]
    return restored.settle(staged[COMMANDS], there if there.exists() else None, wall_us())


def _dress(manifest: Manifest, staged: Mapping[str, Path], targets: Mapping[str, Path], owner: tuple[int, int]) -> None:
    """Modes and owners, before anything is in its place."""
    for member in manifest.members:
        place = staged.get(member.name)
        if place is None:
            continue
        config = member.part == "config"
        place.chmod(member.mode & (0o640 if member.secret else 0o775))
        existing = targets[member.name]
        _give(place, _owner_of(existing if existing.exists() else _standing(existing)) if config else owner)


def _make_folders(targets: Iterable[Path], state: Path, owner: tuple[int, int]) -> None:
    """The folders that files go into; whose, that says the folder above."""
    for target in targets:
        for folder in reversed([one for one in target.parents if not one.exists()]):
            folder.mkdir(mode=0o750)
            _give(folder, owner if _within(folder, state) else _owner_of(folder.parent))


def _standing(path: Path) -> Path:
    """The nearest folder above that is there."""
    return next(folder for folder in path.parents if folder.exists())


def _owner_of(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_uid, status.st_gid


def _give(path: Path, owner: tuple[int, int]) -> None:
    """Only root can, and only then it is needed."""
    if os.geteuid() == 0:
        os.chown(path, *owner, follow_symlinks=False)
