"""The validated configuration in a cache, so that starting the daemon costs neither YAML nor validation.

The cache holds the configuration as plain data and everything it was made from. Imported on the run path: needs neither
a YAML parser nor pydantic; those live in a child process, which runs only when something changed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from edged import __version__
from edged.adapter import load_adapter
from edged.config.flows import FlowConfig
from edged.config.inputs import Inputs, digest, digest_of_file
from edged.config.model import BackupConfig, BufferConfig, ClockConfig, Config, ControlConfig, GatewayConfig
from edged.config.plain import build, dump
from edged.config.types import Secret
from edged.errors import ConfigError
from edged.uplink.connectors import load_connector

FORMAT = 3
"""Raised when the layout of the compiled form changes."""
CHECK_TIMEOUT = 300.0
"""Seconds. Thousands of lines take some seconds on the slowest board; longer than this is a hang."""
_SINGLE = {
    "gateway": GatewayConfig, "buffer": BufferConfig, "control": ControlConfig, "clock": ClockConfig,
    "backup": BackupConfig,
}  # fmt: skip


class StaleError(Exception):
    """A compiled configuration that must not be used: damaged, or made from something that has changed."""


@dataclasses.dataclass(frozen=True, slots=True)
class Compiled:
    """A configuration and the files that say it."""

    config: Config
    sources: dict[str, str]
    """Absolute path → digest of the content: what a person wrote, without the profiles that adapters ship."""


def load_compiled(path: Path, cache_dir: Path) -> Config:
    """The configuration at `path`: see `load_with_sources`."""
    return load_with_sources(path, cache_dir).config


def load_with_sources(path: Path, cache_dir: Path, said: Callable[[str], None] | None = None) -> Compiled:
    """The configuration at `path`: from the cache in `cache_dir` while that is still true, else validated anew.

    Validation happens in a child process, which prints what is wrong, or merely suspicious, to standard error, or hands
    it to `said`. Raises ConfigError if there are errors. A cache that cannot be read is ignored; one that cannot be
    written, or that would hold a secret in the clear, is not kept.
    """
    place = cache_dir / f"config-{hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:16]}.json"
    with contextlib.suppress(OSError, StaleError):
        return _restored(_read(place))
    content = _compile(path, said)
    try:
        compiled = _restored(content)
    except StaleError as exc:
        raise ConfigError(f"{path} could not be used: {exc}; try again") from exc
    if not any(_literal_secrets(compiled.config)):
        with contextlib.suppress(OSError):
            store(place, content)
    return compiled


def compiled(config: Config, inputs: Inputs) -> bytes:
    """The compiled form of a configuration and what it was made from."""
    classes = dict(_classes(config))
    sources = _sources(config, inputs)
    for file in _code(classes.values()):
        inputs.files[file] = digest_of_file(file) or ""
    record = {
        "format": FORMAT,
        "edged": __version__,
        "classes": {name: _name_of(cls) for name, cls in classes.items()},
        "inputs": inputs.plain(),
        "sources": sources,
        **_data(config),
    }
    body = json.dumps(record, ensure_ascii=False).encode("utf-8", "surrogatepass")
    return digest(body).encode() + b"\n" + body


def _data(config: Config) -> dict[str, Any]:
    """The configuration, and beside it, by number: settings that devices have in common, and the points of these."""
    known: dict[int, Any] = {}
    data = {field.name: dump(getattr(config, field.name), known) for field in dataclasses.fields(Config)}
    points: dict[int, Any] = {}
    numbers: dict[int, int] = {}
    for device in data["devices"].values():
        if "points" in device:
            mapping = device["points"]
            number = numbers.setdefault(id(mapping), len(points))
            points[number] = mapping
            device["points"] = number
    settings: dict[str, int] = {}
    data["devices"] = {
        name: settings.setdefault(json.dumps(device), len(settings)) for name, device in data["devices"].items()
    }
    return {"config": data, "settings": list(map(json.loads, settings)), "points": list(points.values())}


def restore(content: bytes) -> Config:
    """The configuration of a compiled form. Raises StaleError."""
    return _restored(content).config


def _restored(content: bytes) -> Compiled:
    checksum, _, body = content.partition(b"\n")
    if checksum.decode("ascii", "replace") != digest(body):
        raise StaleError("it is damaged")
    try:
        record = json.loads(body)
        if (record["format"], record["edged"]) != (FORMAT, __version__):
            raise StaleError("it was made by another version of edged")
        if not Inputs(**record["inputs"]).unchanged(os.environ):
            raise StaleError("something it was made from has changed")
        settings = _with_points(record["settings"], record["points"])
        return Compiled(_config(record["config"], settings, record["classes"]), record["sources"])
    except (ValueError, TypeError, LookupError, ConfigError) as exc:
        raise StaleError(f"it does not fit the installed code: {exc}") from exc


def store(place: Path, content: bytes) -> None:
    """Write a file that only its owner can read, so that after a crash it is either the old or the new one, whole.

    Raises OSError.
    """
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=place.parent, prefix=f".{place.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(place)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    folder = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _read(place: Path) -> bytes:
    """The content of a cache that nobody else can have written. Raises OSError, StaleError."""
    with place.open("rb") as file:
        status = os.fstat(file.fileno())
        if status.st_uid not in {0, os.geteuid()} or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise StaleError("others can write to it")
        return file.read()


def _compile(path: Path, said: Callable[[str], None] | None) -> bytes:
    import subprocess  # noqa: PLC0415  # only when something changed

    # The child sees the packages that this process sees, and nothing that lies in the working directory.
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    command = [sys.executable, "-P", "-m", "edged", "check", "--compile", "-", "--", str(path)]
    # In memory, because an uncached configuration may hold passwords.
    with os.fdopen(os.memfd_create("edged-config"), "w+b") as result:
        try:
            done = subprocess.run(  # noqa: S603  # our own interpreter and module
                command, stdin=subprocess.DEVNULL, stdout=result, stderr=subprocess.PIPE if said else None,
                env=environ, timeout=CHECK_TIMEOUT, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise ConfigError(f"checking {path} took more than {CHECK_TIMEOUT:.0f} s") from None
        except OSError as exc:
            raise ConfigError(f"{path} cannot be checked: {exc.strerror or exc}") from exc
        code = done.returncode
        if said is not None and done.stderr:
            said(done.stderr.decode("utf-8", "replace"))
        if code:
            again = f"`edged check {path}` shows them again"
            raise ConfigError(f"{path} has errors: see above, or {again}" if code == 2 else f"checking {path} failed")  # noqa: PLR2004  # its exit code for errors
        result.seek(0)
        return result.read()


def _with_points(settings: list[dict[str, Any]], points: list[Any]) -> list[dict[str, Any]]:
    for device in settings:
        if "points" in device:
            device["points"] = points[device["points"]]
    return settings


def _config(data: dict[str, Any], settings: list[dict[str, Any]], names: dict[str, str]) -> Config:
    """Rebuild it, with the classes that the installed adapters and connectors have now.

    Devices with the same settings are one object.
    """

    def named(kind: str, word: str, cls: Any) -> Any:
        if names.get(f"{kind} {word}") != _name_of(cls):
            raise StaleError(f"{kind} {word!r} is implemented by another class")
        return cls

    words = [data["buses"][device["bus"]]["adapter"] for device in settings]
    devices = [
        build(named("device", word, load_adapter(word).device_config), device)
        for word, device in zip(words, settings, strict=True)
    ]
    return Config(
        **{name: build(cls, data[name]) for name, cls in _SINGLE.items()},
        buses={
            name: build(named("bus", bus["adapter"], load_adapter(bus["adapter"]).bus_config), bus)
            for name, bus in data["buses"].items()
        },
        devices={name: devices[number] for name, number in data["devices"].items()},
        connections={
            name: build(named("connection", one["connector"], load_connector(one["connector"]).connection_config), one)
            for name, one in data["connections"].items()
        },
        flows={name: build(FlowConfig, one) for name, one in data.get("flows", {}).items()},
    )


def _sources(config: Config, inputs: Inputs) -> dict[str, str]:
    shipped = {load_adapter(bus.adapter).profiles() for bus in config.buses.values()}
    return {file: digest for file, digest in inputs.files.items() if Path(file).parent not in shipped}


def _classes(config: Config) -> Iterator[tuple[str, type]]:
    """What implements the configuration: `bus modbus-tcp` → its class."""
    for bus in config.buses.values():
        yield f"bus {bus.adapter}", type(bus)
        yield f"device {bus.adapter}", load_adapter(bus.adapter).device_config
    for connection in config.connections.values():
        yield f"connection {connection.connector}", type(connection)


def _name_of(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


def _code(classes: Any) -> set[str]:
    """The files whose change may change what is valid, or what a setting means."""
    files = {str(file) for file in Path(__file__).parent.glob("*.py")}
    for module in {base.__module__ for cls in classes for base in cls.__mro__}:
        file = getattr(sys.modules.get(module), "__file__", None)
        package = sys.modules.get(module.partition(".")[0])
        if file is None or module == "builtins":
            continue
        files.add(file)
        if package is not None and package.__name__ != "edged":
            files.update(str(one) for root in getattr(package, "__path__", []) for one in Path(root).rglob("*.py"))
    return files


def _literal_secrets(value: Any) -> Iterator[Secret]:
    if isinstance(value, Secret):
        if value.text:
            yield value
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _literal_secrets(getattr(value, field.name))
    elif isinstance(value, dict):
        for one in value.values():
            yield from _literal_secrets(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _literal_secrets(one)
