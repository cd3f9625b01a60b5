"""The process that runs codecs: what it returns, and what it does with scripts that mean no good."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edged.adapter import ConfigError, FileName, Name
from edged_mqtt.codecs.runner import CodecError, Output, Runner, Script, find
from edged_mqtt.config import MqttDevice
from edged_mqtt.decoding import STRIKES, Codecs, Suspension

pytest.importorskip("_quickjs", reason="pip install 'edged[codecs]'")

GOOD = "function decodeUplink(input) { return {data: {n: input.bytes.length}}; }"


@dataclass
class Bench:
    folder: Path
    runner: Runner
    count: int = 0

    def script(self, source: str) -> Script:
        self.count += 1
        file = self.folder / f"{self.count}.js"
        file.write_text(source)
        return Script(file, self.count)

    async def run(self, source: str, function: str = "decodeUplink", **given: Any) -> Output:
        return await self.runner.run(self.script(source), function, {"bytes": [1, 2], "fPort": 1, **given})


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    runner = Runner()
    yield Bench(tmp_path, runner)
    await runner.close()
    assert runner.pid is None


async def test_what_a_codec_gets_and_returns(bench: Bench) -> None:
    source = """const decodeUplink = ({bytes, fPort, recvTime, variables}) => ({
        data: {sum: bytes.reduce((a, b) => a + b), fPort, hour: recvTime.getUTCHours(), date: recvTime instanceof Date,
               offset: variables.offset, nothing: undefined, never: NaN, at: recvTime},
        warnings: ['low battery'],
    });"""
    output = await bench.run(source, recvTime="2026-03-01T23:30:00.000Z", variables={"offset": "2"})
    assert output == Output(
        {
            "sum": 3,
            "fPort": 1,
            "hour": 23,
            "date": True,
            "offset": "2",
            "never": None,
            "at": "2026-03-01T23:30:00.000Z",
        },
        warnings=("low battery",),
    )


async def test_downlinks(bench: Bench) -> None:
    source = """function encodeDownlink(input) { return {bytes: [input.data.level, 255], fPort: 10}; }
        function decodeDownlink(input) { return {data: {level: input.bytes[0]}}; }"""
    encoded = await bench.run(source, "encodeDownlink", data={"level": 7})
    assert (encoded.frame, encoded.port) == (b"\x07\xff", 10)
    assert (await bench.run(source, "decodeDownlink")).data == {"level": 1}


@pytest.mark.parametrize(("source", "said"), [
    ("function (", "SyntaxError"),
    ("var nothing = 1;", "has no function decodeUplink"),
    ("function decodeUplink() {}", "returns nothing"),
    ("function decodeUplink() { return null; }", "does not return an object"),
    ("function decodeUplink() { return {}; }", "neither `data` nor `errors`"),
    ("function decodeUplink() { throw new Error('bad length'); }", "bad length"),
    ("function decodeUplink() { throw 'bad length'; }", "bad length"),
    ("async function decodeUplink() { return {data: 1}; }", "Promise"),
    ("function decodeUplink() { return import('os'); }", "Promise"),
    ("function decodeUplink() { return {data: require('fs')}; }", "require"),
    ("function decodeUplink() { let a = {}; a.a = a; return {data: a}; }", "circular"),
    ("function decodeUplink() { return {data: 1, fPort: 'x'}; }", "fPort"),
    ("function decodeUplink() { return {bytes: [256]}; }", "0 to 255"),
    ("function decodeUplink() { return {data: '\\ud800'}; }", "no proper JSON"),
    ("function decodeUplink() { Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0); }", "cannot block"),
])  # fmt: skip
async def test_a_codec_that_is_wrong_says_how(bench: Bench, source: str, said: str) -> None:
    with pytest.raises(CodecError, match=said) as caught:
        await bench.run(source)
    assert not caught.value.fatal
    assert bench.runner.starts == 1


HOSTILE = {
    "an endless loop": "function decodeUplink() { for (;;); }",
    "a loop on loading": "for (;;);",
    "a loop that catches everything": "function decodeUplink() { for (;;) { try { for (;;); } catch (e) {} } }",
    "a memory bomb": "function decodeUplink() { let a = []; for (;;) a.push(new Array(1000).fill(1)); }",
    "a string bomb": "function decodeUplink() { let a = ['x'.repeat(1e6)]; for (;;) a.push(a[0] + a.length); }",
    "a regex bomb": "function decodeUplink() { return {data: /^(a+)+$/.test('a'.repeat(40) + 'b')}; }",
    "a getter": "function decodeUplink() { return {data: {get a() { for (;;); }}}; }",
    "toJSON": "function decodeUplink() { return {data: {toJSON() { for (;;); }}}; }",
    "a proxy": "function decodeUplink() { return new Proxy({}, {ownKeys() { for (;;); }}); }",
    "an error that cannot be told": "function decodeUplink() { throw {toString() { for (;;); }}; }",
    "a join that the engine never interrupts": "function decodeUplink() { return new Array(4294967295).join('x'); }",
    "a reversal that it never interrupts": "function decodeUplink() { new Array(2 ** 32 - 1).reverse(); }",
    "a huge answer": "function decodeUplink() { return {data: 'x'.repeat(1e6)}; }",
}


@pytest.mark.parametrize("source", HOSTILE.values(), ids=HOSTILE.keys())
async def test_a_hostile_script_is_stopped_and_the_next_one_runs(bench: Bench, source: str) -> None:
    bench.runner.seconds = 0.1
    assert (await bench.run(GOOD)).data == {"n": 2}
    before = os.times().children_user
    with pytest.raises(CodecError) as caught:
        await bench.run(source)
    assert caught.value.fatal
    assert (await bench.run(GOOD)).data == {"n": 2}
    await bench.runner.close()
    assert os.times().children_user - before < 1.0, "seconds of CPU time, which no busy machine prolongs"


async def test_the_usual_limit_is_below_a_second(bench: Bench) -> None:
    before = os.times().children_user
    with pytest.raises(CodecError, match="ran too long and was stopped"):
        await bench.run(HOSTILE["a join that the engine never interrupts"])
    await bench.runner.close()
    assert 0.2 < os.times().children_user - before < 1.0


async def test_deep_recursion_is_an_error_of_the_script(bench: Bench) -> None:
    deep = "function decodeUplink() { let o = {}; for (let i = 0; i < 1e5; i++) o = {o}; return {data: o}; }"
    for source in ("function decodeUplink() { return decodeUplink(); }", deep):
        with pytest.raises(CodecError, match="call stack"):
            await bench.run(source)


async def test_nothing_outlives_a_run(bench: Bench) -> None:
    script = bench.script("""var count = 0;
        function decodeUplink() {
          count += 1; globalThis.seen = (globalThis.seen || 0) + 1;
          const before = [count, seen, [].leak === undefined, JSON.stringify({}) === '{}'];
          Array.prototype.leak = 1; Object.prototype.data = {x: 1}; JSON.stringify = () => '"no"'; JSON.parse = null;
          Date = null; Promise = null; TypeError = null;
          return {data: before};
        }""")
    for _ in range(3):
        assert (await bench.runner.run(script, "decodeUplink", {"bytes": []})).data == [1, 1, True, True]
    assert (await bench.run(GOOD)).data == {"n": 2}


async def test_the_process_has_nothing_to_harm_with(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGED_SECRET_CLOUD", "hidden")
    await bench.run(GOOD)
    process = Path(f"/proc/{bench.runner.pid}")
    status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines() if ":\t" in line)
    limits = {line[:25].strip(): line[26:].split()[:2] for line in (process / "limits").read_text().splitlines()[1:]}
    assert status["NoNewPrivs"] == "1"
    assert status["Threads"] == "1"
    for name in ("Max open files", "Max file size", "Max processes", "Max core file size"):
        assert limits[name] == ["0", "0"], name
    assert int(limits["Max address space"][0]) < 200 << 20
    assert (process / "oom_score_adj").read_text() == "500\n"
    assert b"hidden" not in (process / "environ").read_bytes()


async def test_it_is_started_again_when_it_was_killed(bench: Bench) -> None:
    await bench.run(GOOD)
    assert bench.runner.pid is not None
    os.kill(bench.runner.pid, signal.SIGKILL)
    with pytest.raises(CodecError, match="ended the process"):
        await bench.run(GOOD)
    assert (await bench.run(GOOD)).data == {"n": 2}


@pytest.mark.parametrize(("reply", "said"), [
    ("b'1 ok\\n{\"data\":1}'", "no answer"),
    ("b'nonsense'", "no answer"),
    ("b'x' * (2 << 20)", "no answer"),
    ("None", "did not answer within 0.5 s"),
])  # fmt: skip
async def test_a_process_that_answers_something_else_is_believed_in_nothing(
    bench: Bench, tmp_path: Path, reply: str, said: str
) -> None:
    """It answers the first request, and then says this: an answer to what was asked before, for instance."""
    program = tmp_path / "other.py"
    program.write_text(f"""
import os, struct, time
count = 0
while True:
    (length,) = struct.unpack(">I", os.read(0, 4))
    os.read(0, length)
    count += 1
    reply = f"{{count}} ok\\n".encode() if count == 1 else {reply}
    if reply is None:
        time.sleep(30)
    os.write(1, struct.pack(">I", len(reply)) + reply)
""")
    bench.runner.program, bench.runner.wall = program, 0.5
    with pytest.raises(CodecError, match=said) as caught:
        await bench.run(GOOD)
    assert caught.value.fatal
    assert bench.runner.pid is None
    bench.runner.program, bench.runner.wall = Runner().program, Runner().wall
    assert (await bench.run(GOOD)).data == {"n": 2}


async def test_a_script_is_read_anew_when_it_changes(bench: Bench) -> None:
    script = bench.script(GOOD)
    assert (await bench.runner.run(script, "decodeUplink", {"bytes": [1]})).data == {"n": 1}
    script.file.write_text("function decodeUplink() { return {data: 'another'}; }")
    assert (await bench.runner.run(script, "decodeUplink", {"bytes": [1]})).data == "another"
    script.file.unlink()
    with pytest.raises(ConfigError, match="cannot be read"):
        await bench.runner.run(script, "decodeUplink", {"bytes": [1]})


async def test_more_scripts_than_it_remembers(bench: Bench) -> None:
    scripts = [bench.script(f"function decodeUplink() {{ return {{data: {i}}}; }}") for i in range(260)]
    for i, script in enumerate([*scripts, *scripts[:3]]):
        assert (await bench.runner.run(script, "decodeUplink", {})).data == i % 260


async def test_a_codec_that_had_to_be_stopped_is_left_alone_and_others_are_not(tmp_path: Path) -> None:
    (tmp_path / "bad.js").write_text(HOSTILE["a memory bomb"])
    (tmp_path / "good.js").write_text(GOOD)
    devices = {name: MqttDevice(bus=Name("b"), codec=FileName(tmp_path / f"{name}.js")) for name in ("bad", "good")}
    codecs = Codecs(devices)
    said = []
    try:
        for _ in range(STRIKES + 2):
            with pytest.raises(CodecError) as caught:
                await codecs.decode("bad", b"\x01", 1, time.time_ns() // 1000)
            said.append(str(caught.value))
            assert (await codecs.decode("good", b"\x01", 1, time.time_ns() // 1000)).data == {"n": 1}
    finally:
        await codecs.close()
    assert ["left alone" in text for text in said] == [False, False, True, True, True]


def test_suspensions_grow_and_end() -> None:
    one = Suspension()
    assert [one.stopped(now) for now in (0, 1, 2)] == [False, False, True]
    assert (one.left(2), one.left(61), one.left(62)) == (60, 1, 0)
    assert one.stopped(62)
    assert one.left(62) == 120
    one.ran()
    assert not one.stopped(63)


def test_where_codecs_are_looked_for(tmp_path: Path) -> None:
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles/mine.js").write_text(GOOD)
    assert find(FileName(tmp_path / "mine.js")) == tmp_path / "profiles/mine.js"
    (tmp_path / "mine.js").write_text(GOOD)
    assert find(FileName(tmp_path / "mine.js")) == tmp_path / "mine.js"
    assert find(FileName(tmp_path / "cayenne-lpp.js")).parent.name == "profiles"
    with pytest.raises(ConfigError, match=r"there is no codec none\.js"):
        find(FileName(tmp_path / "none.js"))
