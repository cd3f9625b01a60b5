"""Settings that change nothing: another one wins, or they repeat what holds anyhow."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from edged.config import secrets
from edged.config.lint import Nodes
from edged.config.model import Config
from edged.config.nodes import Mapping, Node, find, locate
from edged.config.problems import Mark, Report, SourceFile, quoted


def check_idle(config: Config, nodes: Nodes, report: Report) -> None:
    """What is written and has no effect, as far as the settings themselves can tell."""
    for section in ("buses", "devices", "connections"):
        for name, settings in getattr(config, section).items():
            _idle(settings.idle(), nodes[section, name].value, f"{section}.{name}", report)
    for section, settings in (("buffer", config.buffer), ("backup", config.backup)):
        sound = not any(one.severity == "error" and one.path.startswith(section) for one in report.problems)
        if sound and (entry := nodes.get((section, ""))) is not None:  # else it is not what was written
            _idle(settings.idle(), entry.value, section, report)
    for name, connection in config.connections.items():
        if 0 < config.buffer.max_age <= connection.max_age:
            why = f"`buffer: max_age` gives readings up after {config.buffer.max_age} already"
            _idle([("max_age", why)], nodes["connections", name].value, f"connections.{name}", report)
    for name, device in config.devices.items():
        node = nodes["devices", name].value
        for point, one in device.points.items():
            place = find(node, ("points", str(point)))
            if place is not None:
                path = f"devices.{name}.points.{point}"
                _idle(one.idle(), place, path, report)
                if one.every is not None and one.every == device.every:
                    _idle([("every", f"the device is read every {device.every} anyhow")], place, path, report)


def _idle(found: Iterable[tuple[str, str]], node: Node, path: str, report: Report) -> None:
    for key, why in found:
        if isinstance(node, Mapping) and key in node.entries:
            report.warning(locate(node, (key,), key=True), f"{path}.{key}", f"has no effect: {why}")


def check_secrets_file(config: Config, used: Iterable[str], folder: Path, report: Report) -> None:
    """Entries of `secrets.env` that no `!secret` names."""
    place = folder / secrets.FILE_NAME
    wanted = set(used)
    if not config.devices and not config.connections:
        return
    try:
        lines = place.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError):
        return
    source = SourceFile(secrets.FILE_NAME)  # without its lines, which are not for showing
    for number, line in enumerate(lines, 1):
        key = line.partition("=")[0].strip()
        if "=" in line and not key.startswith("#") and key and key not in wanted:
            report.warning(Mark(source, number, 1), "", f"no `!secret` names {quoted(key)}")
