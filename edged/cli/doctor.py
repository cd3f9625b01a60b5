"""`edged doctor`: what is wrong, from the wires to the broker."""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from edged import __version__, paths
from edged.cli import EXIT_PROBLEM, NoDaemonError, client
from edged.errors import ConfigError, EdgedError

if TYPE_CHECKING:
    from edged.config.load import Loaded
    from edged.doctor.check import Check

_STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red", "n/a": "dim"}
_MARKS = {"ok": "✓", "warning": "!", "problem": "✗", "n/a": "-"}


@click.command(short_help="Find out what is wrong: lines, ports, network, broker, clock, disk.")
@click.argument("config", required=False)
@click.option("--bundle", is_flag=True, help="Also write a support archive, without secrets.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Where to write the archive.")
@click.option("--offline", is_flag=True, help="Leave network and lines alone: only look at this machine.")
@click.option("--listen", default=10.0, show_default=True, type=click.FloatRange(1, 600), help="Seconds for each line.")
@click.option(
    "--trace", "traces", multiple=True, type=click.Path(dir_okay=False, path_type=Path),
    help="Judge a line by a file that `edged trace --save` wrote. Can be repeated.",
)  # fmt: skip
@click.option("--state", metavar="DIR", help="Folder of the buffer.")
@click.option("--socket", metavar="PATH", help="Control socket of the gateway.")
@click.option("--root", hidden=True, default="/", type=click.Path(path_type=Path), help="Another machine's files.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def doctor(
    config: str | None, bundle: bool, output: Path | None, offline: bool, listen: float, traces: tuple[Path, ...],
    state: str | None, socket: str | None, root: Path, as_json: bool,
) -> None:  # fmt: skip
    """Find out what is wrong, and say what to do about it. Changes nothing.

    Looks at the lines (silence, echo, swapped wires, wrong settings, noise, two devices with one number, a second
    master), ports and permissions, Bluetooth, clock, disk, temperature and supply, and at the way to each receiver up
    to the login. Lines are judged by what the running gateway has heard; without one a few reads are made.

    CONFIG is the YAML file; without it $EDGED_CONFIG, that of the running gateway, or /etc/edged/edged.yaml.

    Exit codes: 0 nothing is wrong, or only warnings; 1 there is a problem.
    """
    place = Path(config) if config else paths.SYSTEM_CONFIG
    exam = _Exam(config, place, paths.state_dir(state), paths.socket_path(socket), root)
    checks = list(exam.checks(offline=offline, listen=listen, traces=traces))
    if as_json:
        click.echo(json.dumps({"checks": [asdict(check) for check in checks], "worst": _worst(checks)}, indent=2))
    else:
        show(checks)
    if bundle:
        target = output or Path(f"edged-{platform.node()}-{time.strftime('%Y%m%d-%H%M%S')}.tar.gz")
        exam.bundle(target, checks)
        click.echo(f"wrote {target}; it holds no passwords, but names of hosts and devices", err=as_json)
    if _worst(checks) == "problem":
        raise SystemExit(EXIT_PROBLEM)


class _Exam:
    """One examination of one gateway."""

    def __init__(self, given: str | None, place: Path, state: Path, socket: Path, root: Path) -> None:
        self._given, self._place = given, place
        self._state, self._socket, self._root = state, socket, root
        self._loaded: Loaded | None = None
        self._status: dict[str, Any] | None = None
        self._traces: dict[str, list[str]] = {}
        self._unheard: dict[str, EdgedError] = {}

    @property
    def _base(self) -> Path:
        return self._place.resolve().parent

    def checks(self, *, offline: bool, listen: float, traces: Sequence[Path]) -> Iterator[Check]:
        """Everything, one after the other."""
        from edged.doctor.lines import check_lines, judge
        from edged.doctor.machine import check_machine, latency_of
        from edged.doctor.network import check_connections

        yield self._configuration()
        yield from self._daemon()
        config = self._loaded.config if self._loaded else None
        yield from check_machine(config, self._state, self._root)
        for path in traces:
            yield from _judged(path, judge)
        if offline:
            return
        yield from check_connections(config, self._base)
        latencies = {
            str(name): latency_of(Path(bus.port), self._root)
            for name, bus in (config.buses.items() if config else ())
            if hasattr(bus, "port") and isinstance(bus.port, str) and bus.port.startswith("/")
        }
        yield from check_lines(config, partial(self._trace, listen=listen), latencies)

    def _configuration(self) -> Check:
        """Whether it can be read; whatever comes of it, the other checks go on."""
        from edged.config.load import load
        from edged.doctor.check import ok, problem, warning

        try:
            self._place = client.config_path(self._given, str(self._socket))
        except ConfigError as exc:
            return problem("configuration", str(exc), "edged doctor FILE")
        self._loaded = load(self._place, find_secrets=True)
        errors = [one for one in self._loaded.problems if one.severity != "warning"]
        if errors:
            return problem(
                "configuration", f"{len(errors)} errors, the first: {errors[0]}", f"edged check {self._place}"
            )
        if self._loaded.problems:
            text = f"{len(self._loaded.problems)} warnings, the first: {self._loaded.problems[0]}"
            return warning("configuration", text, f"edged check {self._place}")
        return ok("configuration", f"{self._place} is good")

    def _daemon(self) -> Iterator[Check]:
        from edged.doctor.check import ok, problem, skipped, warning

        try:
            self._status = client.call(self._socket, "/v1/status", timeout=10)
        except NoDaemonError as exc:
            yield skipped("gateway", str(exc))
            return
        except EdgedError as exc:
            yield problem("gateway", str(exc), "sudo systemctl restart edged, and look at: journalctl -u edged")
            return
        status: dict[str, Any] = self._status or {}
        for name, fault in status["faults"].items():
            yield problem(
                f"gateway {name}", f"started again {fault['restarts']} times: {fault['detail']}", "journalctl -u edged"
            )
        if status["buffer"]["alarm"]:
            yield problem("buffer", status["buffer"]["detail"], "edged buffer stats; make room, or repair")
        restarts = status.get("health", {}).get("restarts", {}).get("last", [])
        if restarts and restarts[-1]["reason"] in {"crash", "watchdog", "memory", "power"}:
            last = restarts[-1]
            yield warning(
                "gateway start", f"the run before this one ended badly ({last['reason']}); started {last['time']}",
                "docs/how-to/health.md says what that means; journalctl -u edged",
            )  # fmt: skip
        yield ok("gateway", f"edged {status['version']} runs as {status['gateway']}, pid {status['pid']}")
        for name, one in status["connections"].items():
            if not one["connected"]:
                yield problem(f"gateway {name}", f"not connected: {one['detail']}", "see the checks of its way below")

    def _trace(self, bus: str, *, listen: float) -> list[str]:
        """The frames of a bus: the gateway's, else our own. Raises EdgedError."""
        if bus not in self._traces:
            if self._status is not None:
                target = f"/v1/trace/{quote(bus, safe='')}"
                self._traces[bus] = [line.decode() for line in client.lines(self._socket, target)]
            else:
                self._listen(listen)
        found = self._traces.get(bus) or self._unheard[bus]
        if isinstance(found, EdgedError):
            raise found
        return found

    def _listen(self, seconds: float) -> None:
        """Make our own traces, of all lines together. Raises ConfigError."""
        from edged.doctor.lines import judged_buses, record_lines

        config = self._loaded.config if self._loaded else None
        if config is None:
            raise ConfigError("without a configuration it cannot be opened")
        names = judged_buses(config)
        if sys.stderr.isatty():
            click.echo(f"Reading from {', '.join(names)}, for up to {seconds:g} s …", err=True)
        for name, heard in record_lines(config, names, self._base, seconds).items():
            if isinstance(heard, EdgedError):
                self._unheard[name] = heard
            else:
                self._traces[name] = heard

    def bundle(self, target: Path, checks: Sequence[Check]) -> None:
        """Write the archive. Raises ConfigError."""
        from edged.doctor.bundle import journal, known_secrets, write_bundle

        configs = {f"config/{path.name}": _text(path) for path in (self._loaded.files if self._loaded else [])}
        files = {
            "version.txt": f"edged {__version__}\nPython {sys.version}\n{platform.platform()} {platform.machine()}\n",
            "checks.json": json.dumps([asdict(check) for check in checks], indent=2),
            "status.json": json.dumps(self._status, indent=2),
            "problems.txt": "".join(f"{one}\n" for one in (self._loaded.problems if self._loaded else [])),
            "journal.txt": journal(),
            **configs,
            **{
                f"trace/{bus}.jsonl": "\n".join(line.strip() for line in lines) + "\n"
                for bus, lines in self._traces.items()
            },
        }
        config = self._loaded.config if self._loaded else None
        telling = (*configs.values(), files["journal.txt"], files["status.json"])
        write_bundle(target, files, known_secrets(config, telling, self._base))


def _judged(path: Path, judge: Callable[[Sequence[str]], Iterator[Check]]) -> Iterator[Check]:
    try:
        yield from judge(_text(path).splitlines())
    except (ValueError, KeyError, StopIteration, RuntimeError) as exc:
        raise ConfigError(f"{path} is not a trace that `edged trace --save` wrote") from exc


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", errors="replace")
    except OSError as exc:
        return f"cannot be read: {exc.strerror or exc}\n"


def _worst(checks: Sequence[Check]) -> str:
    states = {check.state for check in checks}
    return next((state for state in ("problem", "warning") if state in states), "ok")


def show(checks: Sequence[Check], console: Any = None) -> None:
    """The checks as text, one under the other; what is to be done below each."""
    from rich.console import Console
    from rich.text import Text

    console = console or Console(highlight=False, soft_wrap=True)
    width = max((len(check.name) for check in checks), default=0)
    for check in checks:
        style = _STYLES[check.state]
        line = Text(f"{_MARKS[check.state]} ", style=style)
        line.append(f"{check.name:<{width}}  ", style="bold" if check.state != "n/a" else "dim")
        line.append(check.evidence, style=style if check.state != "ok" else "")
        console.print(line)
        if check.remedy:
            console.print(Text(f"  {'':<{width}}  → {check.remedy}"))
    counted = {state: sum(check.state == state for check in checks) for state in _STYLES}
    words = {(state, True): f"{state}s" for state in ("warning", "problem")}
    console.print(", ".join(f"{n} {words.get((state, n > 1), state)}" for state, n in counted.items() if n))
