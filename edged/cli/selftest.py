"""`edged selftest`: breaks the way to the broker on purpose, and counts what arrived in spite of it."""

from __future__ import annotations

import asyncio
import json
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edged.cli import EXIT_PROBLEM, NoDaemonError, client
from edged.cli.selftest_result import HEAD, Received, Row, Total
from edged.errors import ConfigError, EdgedError
from edged.supervisor import first_of

if TYPE_CHECKING:
    from edged.config.model import Config
    from edged.testing.proxy import FaultProxy
    from edged.uplink.connectors.mqtt import MqttConnection

_DEVICES, _POINTS = 20, 50
"""Simulated, each read once a second."""
_RATE = _DEVICES * _POINTS
_KILLS = 3
_CUTS = (300, 2_000, 9_000, 20_000)
"""After how many bytes of a session the link is reset."""
_PATIENCE = 60.0
"""Seconds to wait for the first message, and for the backlog after a fault."""
_QUICK = {"keepalive": 5.0, "ack_timeout": 5.0, "retry_max": 2.0}
"""No longer than this, so that the test does not take an hour."""
_RETAINED = ("status", "metadata", "health")
"""Topics below the test's own that keep their last message."""
_LONGEST = 3600.0
"""Seconds of an outage; what is read meanwhile must fit into the buffer."""
_LOG_LINES = 15


@click.command(short_help="Break the way to the broker on purpose and count what is lost.")
@click.argument("config", required=False, type=click.Path(exists=True, dir_okay=False))
@click.option("--outage", is_flag=True, help="Outages: a cut link, resets, a silent link, kill -9.")
@click.option(
    "--broker", metavar="URL", help="A broker, such as mqtt://127.0.0.1:1883, instead of CONFIG's. [default: embedded]"
)
@click.option("--for", "duration", metavar="TIME", default="10s", show_default=True, help="How long an outage lasts.")
@click.option("--topic", metavar="PREFIX", default="edged-selftest", show_default=True, help="Where to publish.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, and nothing else.")
def selftest(  # click
    config: str | None, outage: bool, broker: str | None, duration: str, topic: str, as_json: bool
) -> None:
    """Break the way to the broker on purpose and count what is lost.

    Runs a second gateway with 1,000 simulated readings a second, a scratch buffer, and the first MQTT connection of
    CONFIG, through a local proxy that misbehaves. A receiver at the same broker checks what arrives. Your devices,
    your buffer and a running gateway are not touched: topics (--topic) and client ids are the test's own. Keepalive
    and time-outs are shortened to 5 s, and nothing is given up for its age. The broker must allow the connection's user
    to publish and subscribe below --topic.

    What was read within `flush` (1 s) before a kill -9 is gone by design, and was never stored: it is not counted.
    Exit code 1 if a reading was lost, or the gateway did not recover.
    """
    from edged.config.types import Duration  # `edged --help` must not pay for it

    if not outage:
        raise click.UsageError("say what to test: --outage")
    if config and broker:
        raise click.UsageError("name a CONFIG or a --broker, not both")
    try:
        seconds = float(Duration.parse(duration))
    except ValueError as exc:
        raise click.BadParameter(str(exc), param_hint="--for") from None
    if topic.strip("/") != topic or not topic or set(topic) & set("+#{}"):
        raise click.BadParameter(f"{topic!r} is not like edged-selftest", param_hint="--topic")
    if seconds > _LONGEST:
        raise click.BadParameter(
            f"{duration} is too long to be meant: at most {Duration(_LONGEST)}", param_hint="--for"
        )
    say: Callable[[str], object] = (lambda _line: None) if as_json else click.echo
    rows, total = asyncio.run(_SelfTest(seconds, f"{topic}/{secrets.token_hex(4)}", say).run(config, broker))
    if as_json:
        click.echo(json.dumps({"cases": [asdict(row) for row in rows], **asdict(total)}))
    else:
        click.echo(total.text())
    if not total.ok or not all(row.recovered for row in rows):
        raise SystemExit(EXIT_PROBLEM)


class _SelfTest:
    """One run."""

    proxy: FaultProxy
    received: Received

    def __init__(self, seconds: float, topic: str, say: Callable[[str], object]) -> None:
        self._seconds = seconds
        self._topic = topic
        self._say = say
        self._log: list[str] = []
        self._process: asyncio.subprocess.Process | None = None

    async def run(self, path: str | None, url: str | None) -> tuple[list[Row], Total]:
        """All outages, one after the other. Raises ConfigError, ClickException."""
        from edged.testing.audit import Audit  # `edged --help` must not pay for what a command needs
        from edged.testing.proxy import FaultProxy
        from edged.uplink.brokers import Endpoint

        async with AsyncExitStack() as stack:
            self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edged-selftest-")))
            self._base, config, name = await self._configuration(stack, path, url)
            connection: MqttConnection = config.connections[name]  # type: ignore[assignment]  # chosen by its class
            endpoint = Endpoint.parse(connection.url)
            self._say(f"{_RATE:,} simulated readings a second to {connection.url}, topics {self._topic}/…")
            self.proxy = await stack.enter_async_context(FaultProxy(endpoint.host, endpoint.port))
            self._config = _scratch(config, name, connection, self._topic, self.proxy.port)
            self.received = Received(Audit())
            await stack.enter_async_context(self._receiving(connection))
            stack.push_async_callback(self._kill)
            await self._start()
            await self._first_message()
            self._say(HEAD)
            rows = [await self._case(case, act) for case, act in self._cases()]
            await self._stop()
            await asyncio.sleep(0.5)  # what is on its way from the broker to the receiver
            return rows, await self._total()

    # -- the parts -----------------------------------------------------------------------------------------------

    async def _configuration(
        self, stack: AsyncExitStack, path: str | None, url: str | None
    ) -> tuple[Path, Config, str]:
        """(folder for secrets, configuration, name of the connection)."""
        from edged.config.compiled import load_compiled  # as above
        from edged.config.model import BufferConfig, Config, ControlConfig, GatewayConfig
        from edged.uplink.connectors.mqtt import MqttConnection

        if path:
            config = await asyncio.to_thread(load_compiled, Path(path), self._folder / "cache")
            for name, one in config.connections.items():
                if isinstance(one, MqttConnection) and one.enabled:
                    return Path(path).parent.absolute(), config, name
            raise ConfigError(f"{path} has no connection with `connector: mqtt` that is enabled")
        if url:
            try:
                connection = MqttConnection(connector="mqtt", url=url)
            except ValueError as exc:
                raise click.BadParameter(str(exc), param_hint="--broker") from None
        else:
            from edged.cli.demo import embedded_broker, free_port  # only without a broker

            port = free_port()
            await stack.enter_async_context(embedded_broker(port))
            # It answers MQTT 5 with silence.
            connection = MqttConnection(connector="mqtt", url=f"mqtt://127.0.0.1:{port}", protocol="3.1.1")
        gateway = GatewayConfig(id="selftest")  # type: ignore[arg-type]  # a name, plainly
        parts: dict[str, Any] = {"buses": {}, "devices": {}, "connections": {"cloud": connection}}
        return Path.cwd(), Config(gateway=gateway, buffer=BufferConfig(), control=ControlConfig(), **parts), "cloud"

    @asynccontextmanager
    async def _receiving(self, connection: MqttConnection) -> AsyncIterator[None]:
        """Subscribe at the broker itself, not through the proxy, and account for every message of readings."""
        import aiomqtt  # as above
        import orjson

        from edged.config.secrets import resolve
        from edged.uplink.brokers import Endpoint
        from edged.uplink.links.tls import Tls, make_context

        endpoint, password = Endpoint.parse(connection.url), connection.password
        tls = Tls(
            ca=connection.ca, certificate=connection.certificate, key=connection.key, alpn=tuple(connection.alpn),
            server_name=connection.server_name, insecure=connection.insecure,
        )  # fmt: skip
        web = endpoint.scheme.startswith("ws")
        receiver = aiomqtt.Client(
            endpoint.host, endpoint.port, identifier=f"edged-selftest-receiver-{secrets.token_hex(4)}",
            username=connection.username, password=resolve(password, base=self._base) if password else None,
            protocol=aiomqtt.ProtocolVersion.V5 if connection.protocol == "5" else aiomqtt.ProtocolVersion.V311,
            tls_context=make_context(tls) if endpoint.tls else None,
            transport="websockets" if web else "tcp", websocket_path=endpoint.path if web else None,
        )  # fmt: skip

        async def receive() -> None:
            async for message in receiver.messages:
                self.received.take(orjson.loads(message.payload))

        try:
            async with receiver:
                await receiver.subscribe(f"{self._topic}/data", qos=1)
                try:
                    async with asyncio.TaskGroup() as group:
                        task = group.create_task(receive(), name="selftest receiver")
                        try:
                            yield
                        finally:
                            task.cancel()
                except ExceptionGroup as several:
                    raise first_of(several) from several
                finally:
                    for topic in _RETAINED:  # leave nothing behind
                        with suppress(aiomqtt.MqttError):
                            await receiver.publish(f"{self._topic}/{topic}", b"", qos=1, retain=True)
        except (aiomqtt.MqttError, OSError) as exc:
            raise EdgedError(
                f"the receiver's own connection to {connection.url} failed ({exc}): is the broker "
                f"up, may this user subscribe to {self._topic}/data? (--topic)"
            ) from None

    # -- the gateway ---------------------------------------------------------------------------------------------

    async def _start(self) -> None:
        from edged.config.compiled import compiled  # as above
        from edged.config.inputs import Inputs

        process = self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-c", "from edged.cli.selftest import gateway; gateway()",
            str(self._folder), str(self._base), stdin=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # so that Ctrl-C reaches us alone
        )  # fmt: skip
        self._reader = asyncio.create_task(self._read_log(process), name="gateway log")
        if process.stdin is not None:
            process.stdin.write(compiled(self._config, Inputs()))
            process.stdin.close()

    async def _read_log(self, process: asyncio.subprocess.Process) -> None:
        if process.stderr is not None:
            async for line in process.stderr:
                self._log.append("  " + line.decode(errors="replace").rstrip())

    async def _kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        await self._reader

    async def _stop(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(20):
                await self._process.wait()

    async def _pending(self) -> int | None:
        """Readings that wait in the scratch buffer; None while the gateway does not answer."""
        if self._process is None or self._process.returncode is not None:
            raise click.ClickException("the gateway ended by itself:\n" + "\n".join(self._log[-_LOG_LINES:]))
        try:
            status = await asyncio.to_thread(client.call, self._folder / "edged.sock", "/v1/status", timeout=5)
        except (NoDaemonError, OSError):
            return None
        (connection,) = status["buffer"]["connections"].values()
        return int(connection["pending"] + status["buffer"]["waiting"])

    async def _first_message(self) -> None:
        if not await self._until_fresh(0):
            why = "\n".join(self._log[-_LOG_LINES:])
            raise click.ClickException(f"nothing arrived at {self._topic}/data within {_PATIENCE:.0f} s:\n{why}")

    async def _until_fresh(self, since: int) -> bool:
        """Wait until something read after `since` has arrived, and all before it; False if that takes too long."""
        try:
            async with asyncio.timeout(_PATIENCE + self._seconds):
                while True:
                    pending = await self._pending()
                    settled = pending is not None and pending <= 2 * _RATE
                    if settled and self.received.newest > since and not self.received.lost():
                        return True
                    await asyncio.sleep(0.1)  # two processes know it, so there is no event to wait for
        except TimeoutError:
            return False

    # -- the outages ---------------------------------------------------------------------------------------------

    def _cases(self) -> list[tuple[str, Callable[[], Awaitable[None]]]]:
        return [
            (f"link cut for {self._seconds:g} s", self._cut),
            (f"link reset mid-publish, {len(_CUTS)} times", self._reset),
            (f"link silent for {self._seconds:g} s", self._silence),
            (f"kill -9, {_KILLS} times", self._kill_often),
        ]

    async def _case(self, case: str, act: Callable[[], Awaitable[None]]) -> Row:
        audit = self.received.audit
        before = audit.readings, audit.duplicates, audit.out_of_order
        await act()
        healed, began = time.time_ns() // 1000, time.monotonic()
        recovered = await self._until_fresh(healed)
        row = Row(
            case, audit.readings - before[0], self.received.lost(), audit.duplicates - before[1],
            audit.out_of_order - before[2], round(time.monotonic() - began, 1), recovered,
        )  # fmt: skip
        self._say(row.text())
        if not recovered:
            self._say("\n".join(self._log[-_LOG_LINES:]))
        return row

    async def _cut(self) -> None:
        await self.proxy.refuse()
        await asyncio.sleep(self._seconds)
        await self.proxy.restore()

    async def _reset(self) -> None:
        for size in _CUTS:
            before = self.proxy.resets
            self.proxy.reset()
            self.proxy.reset_after(up=size)
            async with asyncio.timeout(_PATIENCE):
                while self.proxy.resets == before:  # noqa: ASYNC110  # the proxy has no event for it
                    await asyncio.sleep(0.05)

    async def _silence(self) -> None:
        self.proxy.blackhole()
        await asyncio.sleep(self._seconds)
        await self.proxy.restore()

    async def _kill_often(self) -> None:
        for n in range(_KILLS):
            await asyncio.sleep(0.3 + 0.4 * n)
            await self._kill()
            await self._start()
            await self._until_fresh(time.time_ns() // 1000)

    async def _total(self) -> Total:
        """Count from the scratch buffer that the gateway left, and from what the receiver got."""
        from edged.buffer.log import Buffer  # as above

        buffer = Buffer(
            self._folder / "buffer.db", self._config.buffer, list(self._config.connections), boot="selftest"
        )
        await buffer.start()
        stats = buffer.stats()
        await buffer.stop()
        (connection,) = stats.connections.values()
        audit = self.received.audit
        # What is pending may have arrived, without the gateway having heard so.
        lost = max(0, stats.stored - audit.readings - connection.pending)
        return Total(
            stats.stored, audit.readings, connection.pending, max(lost, self.received.lost()), audit.duplicates
        )


def _scratch(config: Config, name: str, connection: MqttConnection, topic: str, port: int) -> Config:
    """The configuration to run: nothing in common with the real gateway but the way to the broker."""
    from edged.adapter import load_adapter  # as above
    from edged.config.model import BackupConfig, ClockConfig, ControlConfig
    from edged.config.plain import build
    from edged.config.types import Duration
    from edged.uplink.brokers import Endpoint

    endpoint = Endpoint.parse(connection.url)
    path = endpoint.path if endpoint.scheme.startswith("ws") else ""
    quick: dict[str, Any] = {
        key: type(getattr(connection, key))(min(getattr(connection, key), limit)) for key, limit in _QUICK.items()
    }
    cloud = replace(
        connection, url=f"{endpoint.scheme}://127.0.0.1:{port}{path}",
        server_name=(connection.server_name or endpoint.host) if endpoint.tls else "",
        client_id=f"edged-selftest-{secrets.token_hex(4)}", topic=f"{topic}/data", status_topic=f"{topic}/status",
        metadata_topic=f"{topic}/metadata", health_topic=f"{topic}/health", monitor_topic=f"{topic}/monitor",
        command_topic=f"{topic}/command", result_topic=f"{topic}/result", commands=False, max_age=Duration(0),
        layout="columns", compression="none", **quick,
    )  # fmt: skip
    adapter = load_adapter("sim")
    points = {f"p{i}": {"low": i, "high": 1000 + i} for i in range(_POINTS)}
    device = {"bus": "selftest", "every": 1.0, "points": points}
    return replace(
        config,
        buses={"selftest": build(adapter.bus_config, {"adapter": "sim"})},
        devices={f"d{i}": build(adapter.device_config, device) for i in range(_DEVICES)},
        connections={name: cloud},
        flows={},
        buffer=replace(config.buffer, path="", max_age=Duration(0), retention=Duration(0)),
        backup=BackupConfig(),
        clock=ClockConfig(),
        control=ControlConfig(),
    )


def gateway() -> None:
    """The gateway under test, in a process of its own: arguments are its folder and that of the secrets."""
    from edged import logs  # as above
    from edged.config.compiled import restore
    from edged.daemon import Places, run_daemon

    logs.set_up("info")
    folder, base = map(Path, sys.argv[1:])
    run_daemon(restore(sys.stdin.buffer.read()), Places(base, folder, folder / "edged.sock"))
