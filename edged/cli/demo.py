"""`edged demo`: the whole gateway at work, an outage included, with no hardware and no account anywhere."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from edged.cli import EXIT_INTERRUPTED, EXIT_PROBLEM, NoDaemonError, client

if TYPE_CHECKING:
    from edged.config.model import Config
    from edged.testing.audit import Audit
    from edged.testing.proxy import FaultProxy

_CUT_AFTER, _CUT_FOR = 5.0, 10.0
"""When the link to the broker is cut, and for how long, seconds."""
_SHOWN = 4
"""How many values of a device are shown."""
_SHORTEST = 5.0
_SETTLE = 6.0
"""How much longer than the cut a timed demo should last, so that the backlog can drain."""


@click.command(short_help="Show the whole gateway at work, with simulated devices and an outage.")
@click.option("--for", "duration", metavar="TIME", help="End by itself after this time, such as 20s. [default: Ctrl-C]")
@click.option(
    "--broker", metavar="URL", help="A running MQTT broker, such as mqtt://127.0.0.1:1883. [default: embedded]"
)
@click.option("--config", type=click.Path(exists=True, dir_okay=False), help="Another configuration than the demo's.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, and nothing else.")
def demo(duration: str | None, broker: str | None, config: str | None, as_json: bool) -> None:  # click
    """Show the whole gateway at work, with simulated devices and an outage.

    Serves simulated Modbus devices on real sockets, plays a recording of Bluetooth sensors, runs the gateway on them
    in a process of its own, cuts it off from the MQTT broker for ten seconds and brings it back, and counts what a
    receiver behind the broker got. Exit code 1 if a reading was lost.
    """
    from edged.config.types import Duration  # `edged --help` must not pay for it

    try:
        seconds = None if duration is None else float(Duration.parse(duration))
    except ValueError as exc:
        raise click.BadParameter(str(exc), param_hint="--for") from None
    if seconds is not None and seconds < _SHORTEST:
        raise click.BadParameter(f"at least {_SHORTEST:.0f}s, so that the gateway has started", param_hint="--for")
    if seconds is not None and seconds < _CUT_AFTER + _CUT_FOR + _SETTLE - 1:
        click.echo(f"(shorter than {_CUT_AFTER + _CUT_FOR + _SETTLE - 1:.0f}s: the outage is left out)", err=True)
    result = asyncio.run(_Demo(seconds, broker, config, quiet=as_json).run())
    click.echo(json.dumps(asdict(result)) if as_json else result.text())
    if result.lost or not result.received:
        raise SystemExit(EXIT_PROBLEM)


@dataclass(frozen=True, slots=True)
class Result:
    """What became of the readings, once all has ended."""

    stored: int
    delivered: int
    pending: int
    received: int
    lost: int
    duplicates: int
    """Messages that the receiver got twice."""
    outage_seconds: float

    def text(self) -> str:
        """The result for people."""
        verdict = "Nothing was lost." if not self.lost else f"{self.lost:,} readings were LOST."
        if not self.received:
            verdict = "NOTHING ARRIVED: the log above says why."
        return (
            f"{self.stored:,} readings stored, {self.delivered:,} delivered, {self.pending:,} still in the buffer, "
            f"{self.received:,} received behind the broker, {self.duplicates} messages twice, "
            f"in spite of {self.outage_seconds:.0f} s without a connection. {verdict}"
        )


def demo_config() -> Path:
    """The shipped configuration: beside the sources, or where a wheel puts it."""
    places = [Path(__file__).resolve().parents[2] / "config", Path(sys.prefix) / "share/edged"]
    for place in places:
        if (place / "demo.yaml").exists():
            return place / "demo.yaml"
    raise click.ClickException(f"demo.yaml is in none of {', '.join(map(str, places))}; name one with --config")


class _Demo:
    """One run of the demo."""

    def __init__(self, seconds: float | None, broker: str | None, config: str | None, *, quiet: bool) -> None:
        self._seconds = seconds
        self._broker = broker
        self._config = Path(config) if config else demo_config()
        self._quiet = quiet
        self._stop = asyncio.Event()
        self._outage = 0.0
        self._log: list[str] = []
        self._latest: dict[str, str] = {}
        """Device → what the receiver behind the broker got of it last."""
        self._print: Callable[[str], object] = click.echo

    def print_to(self, function: Callable[[str], object]) -> None:
        """Where lines go that are not part of the table."""
        self._print = function

    async def run(self) -> Result:
        """Run it to the end."""
        from edged.testing.audit import Audit  # as above
        from edged.testing.proxy import FaultProxy

        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop.set)
        async with AsyncExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edged-demo-")))
            host, port = await self._start_broker(stack)
            proxy = await stack.enter_async_context(FaultProxy(host, port))
            self._choose_ports(proxy.port)
            config = await self._start_devices(stack, folder)
            audit = Audit()
            topic = f"edged/{config.gateway.id}/data"
            await stack.enter_async_context(_receiving((host, port), topic, audit, self._latest))
            process = await self._start_gateway(stack, folder)
            await self._watch(proxy, folder, audit, process)
            await self._end_gateway(process)
            if not process.returncode:
                await asyncio.sleep(0.5)  # what is on its way from the broker to the receiver
                self._show_latest()
                return await self._result(folder, audit)
        if self._stop.is_set() and process.returncode == -signal.SIGTERM:
            raise SystemExit(EXIT_INTERRUPTED)  # before the gateway had got as far as ending in good order
        # Outside of the receiver's task group, which would wrap it.
        told = "\n".join(self._log[-20:])
        raise click.ClickException(f"the gateway ended with exit code {process.returncode}:\n{told}")

    # -- the parts -----------------------------------------------------------------------------------------------

    async def _start_broker(self, stack: AsyncExitStack) -> tuple[str, int]:
        """(host, port) of the broker that was named, or of an embedded one."""
        if self._broker:
            url = urlsplit(self._broker)
            if url.scheme != "mqtt" or not url.hostname:
                raise click.BadParameter(f"{self._broker!r} is not like mqtt://127.0.0.1:1883", param_hint="--broker")
            return url.hostname, url.port or 1883
        port = free_port()
        await stack.enter_async_context(embedded_broker(port))
        os.environ["EDGED_DEMO_MQTT_PROTOCOL"] = "3.1.1"  # it answers MQTT 5 with silence
        return "127.0.0.1", port

    def _choose_ports(self, mqtt: int) -> None:
        os.environ["EDGED_DEMO_MQTT_PORT"] = str(mqtt)
        for name in ("PLC", "METERS"):
            os.environ[f"EDGED_DEMO_{name}_PORT"] = str(free_port())

    async def _start_devices(self, stack: AsyncExitStack, folder: Path) -> Config:
        from edged.cli.simulate import start_simulators  # as above
        from edged.config.compiled import load_compiled

        config = await asyncio.to_thread(load_compiled, self._config, folder / "state" / "cache")
        if len(config.connections) != 1:
            raise click.UsageError(f"{self._config} has {len(config.connections)} connections, and the demo needs one")
        simulators = await start_simulators(stack, config, "127.0.0.1", 0)
        self._say(f"{len(config.devices)} simulated devices:")
        for bus, where in (item for simulator in simulators for item in simulator.endpoints.items()):
            self._say(f"  {bus} ({config.buses[bus].adapter}, {where}): {', '.join(config.devices_on(bus))}")
        return config

    async def _start_gateway(self, stack: AsyncExitStack, folder: Path) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "edged", "run", str(self._config), "--state", str(folder / "state"),
            "--socket", str(folder / "edged.sock"), stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # so that Ctrl-C reaches us alone, and we end it in good order
        )  # fmt: skip

        async def end() -> None:
            if process.returncode is None:
                process.kill()
            await process.wait()

        stack.push_async_callback(end)
        reader = asyncio.create_task(self._read_log(process), name="gateway log")
        stack.callback(reader.cancel)
        return process

    async def _read_log(self, process: asyncio.subprocess.Process) -> None:
        if process.stderr is None:
            return
        async for line in process.stderr:
            self._say("  " + line.decode(errors="replace").rstrip())

    async def _end_gateway(self, process: asyncio.subprocess.Process) -> None:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(20):
            await process.wait()

    # -- while it runs -------------------------------------------------------------------------------------------

    async def _watch(self, proxy: FaultProxy, folder: Path, audit: Audit, process: asyncio.subprocess.Process) -> None:
        """Show the table, cut the link and bring it back, until the time is up, Ctrl-C, or the gateway's end."""
        began = time.monotonic()
        cut_at = began + _CUT_AFTER
        wants_cut = self._seconds is None or self._seconds >= _CUT_AFTER + _CUT_FOR + _SETTLE - 1
        cut = False
        with self._screen() as show:
            while not self._stop.is_set() and process.returncode is None:
                now = time.monotonic()
                if self._seconds is not None and now - began >= self._seconds:
                    break
                if wants_cut and not cut and now >= cut_at:
                    cut = True
                    await proxy.refuse()
                    self._say(f"-- the link to the broker is cut for {_CUT_FOR:.0f} s --")
                if cut and wants_cut and now >= cut_at + _CUT_FOR:
                    wants_cut = False
                    self._outage = now - cut_at
                    await proxy.restore()
                    self._say("-- the link is back --")
                show(await self._row(folder, audit, now - began, broken=cut and wants_cut))
                await self._pause(0.5)
        if cut and wants_cut:
            self._outage = time.monotonic() - cut_at
            await proxy.restore()

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        except TimeoutError:
            pass

    async def _row(self, folder: Path, audit: Audit, seconds: float, *, broken: bool) -> dict[str, str]:
        try:
            status = await asyncio.to_thread(client.call, folder / "edged.sock", "/v1/status", timeout=5)
        except NoDaemonError:
            return {}
        (connection,) = status["buffer"]["connections"].values()
        return {
            "time": f"{seconds:.0f} s",
            "link": "CUT" if broken else "up",
            "read": f"{status['buffer']['read']:,}",
            "stored": f"{status['buffer']['stored']:,}",
            "in buffer": f"{connection['pending']:,}",
            "delivered": f"{connection['delivered']:,}",
            "received": f"{audit.readings:,}",
            "lost": f"{len(audit.missing):,}",
            "duplicates": f"{audit.duplicates:,}",
        }

    def _screen(self) -> AbstractContextManager[Callable[[Mapping[str, str]], None]]:
        """A context that yields a function to show a row: a live table on a terminal, a line a second elsewhere."""
        if self._quiet:
            return _silent()
        if sys.stdout.isatty():
            return _live_table(self)
        return _plain_lines()

    def _say(self, line: str) -> None:
        self._log.append(line)
        if not self._quiet:
            self._print(line)

    def _show_latest(self) -> None:
        """What the receiver got last of each device."""
        if self._latest:
            self._say("Last received behind the broker:")
        width = max(map(len, self._latest), default=0)
        for device, text in sorted(self._latest.items()):
            self._say(f"  {device:<{width}}  {text}")

    async def _result(self, folder: Path, audit: Audit) -> Result:
        """Count from the buffer that the gateway left, and from what the receiver got."""
        from edged.buffer.log import Buffer  # as above
        from edged.config.compiled import load_compiled

        config = await asyncio.to_thread(load_compiled, self._config, folder / "state" / "cache")
        buffer = Buffer(folder / "state" / "buffer.db", config.buffer, list(config.connections), boot="demo")
        await buffer.start()
        stats = buffer.stats()
        await buffer.stop()
        (connection,) = stats.connections.values()
        lost = stats.stored - audit.readings - connection.pending - connection.dead
        return Result(
            stored=stats.stored,
            delivered=connection.delivered,
            pending=connection.pending,
            received=audit.readings,
            lost=max(lost, len(audit.missing)),
            duplicates=audit.duplicates,
            outage_seconds=round(self._outage, 1),
        )


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def embedded_broker(port: int) -> AsyncIterator[None]:
    """A broker in this process, in pure Python: enough for a demo."""
    import logging  # as above

    try:
        from amqtt.broker import Broker
    except ModuleNotFoundError as exc:
        raise click.ClickException(
            f"the embedded broker needs the Python package {exc.name!r}: pip install 'edged[demo]', "
            "or name a running broker with --broker mqtt://127.0.0.1:1883"
        ) from exc
    for name in ("amqtt", "transitions", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # it takes each cut connection for an error of its own
    broker = Broker({
        "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
        "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    })  # fmt: skip
    await broker.start()
    try:
        yield
    finally:
        await broker.shutdown()


@asynccontextmanager
async def _receiving(broker: tuple[str, int], topic: str, audit: Audit, latest: dict[str, str]) -> AsyncIterator[None]:
    """Subscribe behind the proxy, account for every data message, and keep the latest values."""
    import aiomqtt  # as above
    import orjson

    async def receive() -> None:
        async for message in receiver.messages:
            payload = orjson.loads(message.payload)
            audit.take(payload)
            if payload.get("lane") == "live":
                latest.update(_values(payload))

    async with AsyncExitStack() as stack:
        client = aiomqtt.Client(*broker, identifier=f"edged-demo-receiver-{os.getpid()}", timeout=15)
        try:
            receiver = await stack.enter_async_context(client)
            await receiver.subscribe(topic, qos=1)
        except aiomqtt.MqttError as exc:
            raise click.ClickException(f"the broker at {broker[0]}:{broker[1]} cannot be used: {exc}") from exc
        group = await stack.enter_async_context(asyncio.TaskGroup())
        task = group.create_task(receive(), name="demo receiver")
        yield
        task.cancel()


def _values(payload: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(device, its first values as text) of each sample of a message, in their order."""
    for table in payload.get("tables", ()):
        for device, row in zip(table["devices"], table["values"], strict=True):
            pairs = list(zip(table["points"], row, strict=True))[:_SHOWN]
            yield device, "  ".join(f"{name} {value:.5g}" if isinstance(value, float) else f"{name} {value}"
                                    for name, value in pairs)  # fmt: skip


@contextmanager
def _silent() -> Iterator[Callable[[Mapping[str, str]], None]]:
    yield lambda _row: None


@contextmanager
def _plain_lines() -> Iterator[Callable[[Mapping[str, str]], None]]:
    """A line every second, for a log or a pipe."""
    last = -1.0

    def show(row: Mapping[str, str]) -> None:
        nonlocal last
        if row and time.monotonic() - last >= 1:
            last = time.monotonic()
            click.echo("  ".join(f"{name} {value}" for name, value in row.items()))

    yield show


@contextmanager
def _live_table(demo: _Demo) -> Iterator[Callable[[Mapping[str, str]], None]]:
    """A table that stays in place on a terminal, with the gateway's log passing above it."""
    from rich.console import Console  # as above
    from rich.live import Live
    from rich.table import Table

    console = Console()

    def table(row: Mapping[str, str]) -> Table:
        made = Table(title="edged demo (Ctrl-C ends it)")
        for name in row:
            made.add_column(name, justify="right")
        if row:
            made.add_row(*(f"[bold red]{cell}[/]" if cell == "CUT" else cell for cell in row.values()))
        return made

    with Live(console=console, refresh_per_second=4) as live:
        demo.print_to(lambda line: live.console.print(line, highlight=False, markup=False))
        try:
            yield lambda row: live.update(table(row)) if row else None
        finally:
            demo.print_to(click.echo)
