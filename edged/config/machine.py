"""What of a configuration this machine contradicts: ports, certificates and folders that are here and cannot be used.

A configuration may be checked on another machine than it will run on. So what is not here says nothing; only what is
here is looked at: whether the service's user (`edged`, where there is one; else whoever checks) may use it.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edged.config.lint import Nodes
from edged.config.model import Config
from edged.config.nodes import locate
from edged.config.problems import Report, quoted
from edged.config.types import FileName
from edged.media.ports import NoPortError, find_port

SERVICE = "edged"
_FILES = ("ca", "certificate", "key")


def check_machine(config: Config, nodes: Nodes, report: Report, base: Path) -> None:
    """Ports, certificates and the buffer's folder, as far as they are here. `base` is the configuration's folder."""
    for section in ("buses", "connections"):
        for name, settings in getattr(config, section).items():
            node, path = nodes[section, name].value, f"{section}.{name}"
            for key, message in (*_port(settings), *_files(settings, base)):
                report.warning(locate(node, (key,)), f"{path}.{key}", message)
    _check_shared(config, nodes, report)
    entry, place = nodes.get(("buffer", "")), config.buffer.path
    if entry is not None and place:
        folder = Path(place).parent
        if folder.is_dir() and not may(folder, stat.S_IRWXU):
            message = f"{folder} may not be written by {who()}: sudo chown {SERVICE} {folder}"
            report.warning(locate(entry.value, ("path",)), "buffer.path", message)


def _check_shared(config: Config, nodes: Nodes, report: Report) -> None:
    """Buses whose ports have different names and are the same one."""
    first: dict[str, str] = {}
    for name, settings in config.buses.items():
        port = getattr(settings, "port", None)
        if not isinstance(port, str) or "://" in port or not settings.enabled:
            continue
        try:
            device = os.path.realpath(find_port(port)[0])
        except NoPortError:
            continue
        other = first.setdefault(device, name)
        if other != name and port != getattr(config.buses[other], "port", None):  # the same name is an error anyway
            report.warning(
                locate(nodes["buses", name].value, ("port",)), f"buses.{name}.port",
                f"is the port of the bus {quoted(other)} by another name: put all devices on one of the two",
            )  # fmt: skip


def _port(settings: Any) -> Iterator[tuple[str, str]]:
    port = getattr(settings, "port", None)
    if not isinstance(port, str) or "://" in port or not settings.enabled:
        return
    try:
        device, unstable = find_port(port)
    except NoPortError:
        return
    if unstable:
        yield "port", unstable
    path = Path(device)
    if not stat.S_ISCHR(path.stat().st_mode):
        yield "port", f"{device} is no serial port"
    elif not may(path, stat.S_IRUSR | stat.S_IWUSR):
        group = _group(path.stat().st_gid)
        yield "port", f"{device} may not be opened by {who()}: sudo usermod -aG {group} {who(plain=True)}, then restart"


def _files(settings: Any, base: Path) -> Iterator[tuple[str, str]]:
    for key in _FILES:
        name = getattr(settings, key, None)
        if not isinstance(name, FileName) or not name:
            continue
        path = Path(name.at(base))
        if not path.exists():
            if path.parent.is_dir() and path.parent != Path("/"):
                yield key, f"there is no {path}, though its folder is here"
        elif not may(path, stat.S_IRUSR):
            yield key, f"{path} may not be read by {who()}: change its owner or mode"
        elif key == "key" and path.stat().st_mode & stat.S_IROTH:
            yield key, f"{path} is a private key that every user of this machine can read: chmod o-rwx {path}"


def who(*, plain: bool = False) -> str:
    """The user that is asked about, for people."""
    name = _user().pw_name
    return name if plain else f"the user {name}"


def may(path: Path, wanted: int) -> bool:
    """Whether that user may do it; `wanted` in the bits of an owner (S_IRUSR …)."""
    user = _user()
    if user.pw_uid == os.geteuid():
        modes = ((stat.S_IRUSR, os.R_OK), (stat.S_IWUSR, os.W_OK), (stat.S_IXUSR, os.X_OK))
        return os.access(path, sum(mode for bit, mode in modes if wanted & bit))
    status = path.stat()
    if user.pw_uid == status.st_uid:
        return status.st_mode & wanted == wanted
    shift = 3 if status.st_gid in os.getgrouplist(user.pw_name, user.pw_gid) else 6
    return status.st_mode & (wanted >> shift) == wanted >> shift


def _user() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(SERVICE)
    except KeyError:
        user = os.geteuid()
    try:
        return pwd.getpwuid(user)
    except KeyError:  # a container may run as any number
        return pwd.struct_passwd((f"with the number {user}", "", user, os.getegid(), "", "/", ""))


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)
