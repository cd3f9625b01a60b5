"""The process that runs payload codecs. It is started by its path (see `runner`) and imports nothing of edged.

Requests and answers are frames: four bytes of length, big-endian, a line of text, and after it a body.

    NUMBER load SCRIPT LF source          NUMBER ok LF
    NUMBER run SCRIPT FUNCTION LF JSON    NUMBER ok LF JSON, or NUMBER error|timeout|memory|size|missing|unknown LF text

Every run gets a new context, so nothing that a script does outlives the run. QuickJS stops a script after so
many seconds of CPU time as the second argument says. Some of its built-in functions (joining or reversing an
array of 2**32 elements) never look at that limit, so the kernel ends the whole process a moment later, and
the runner starts another one.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
import sys
from typing import Any

_NO_NEW_PRIVILEGES, _DUMPABLE, _PARENT_DEATH_SIGNAL = 38, 4, 1
"""prctl(2)."""
_LARGEST_FRAME = 4 << 20
_LARGEST_ANSWER = 64 << 10
"""Characters."""
_MEMORY = 32 << 20
"""Bytes for one run."""
_PROCESS_MEMORY = 160 << 20
"""Bytes of address space: what the interpreter maps, and a run. Only where the limit of a run failed is it reached."""
_STACK = 512 << 10
_MOST_SCRIPTS = 256
_FUNCTIONS = frozenset({"decodeUplink", "encodeDownlink", "decodeDownlink"})
_PRELUDE = """(function () {
  'use strict';
  const {parse, stringify} = JSON, Time = Date, Later = Promise, Mistake = TypeError, quiet = function () {};
  globalThis.console = {log: quiet, info: quiet, warn: quiet, error: quiet, debug: quiet};
  return function (codec, text, limit) {
    const input = parse(text);
    if (input.recvTime !== undefined) input.recvTime = new Time(input.recvTime);
    const output = codec(input);
    if (output instanceof Later) throw new Mistake('returns a Promise instead of the result');
    const answer = stringify(output);
    if (typeof answer !== 'string') throw new Mistake('returns nothing');
    return answer.length > limit ? '' : answer;
  };
})()"""
"""What it needs of the language it takes before a script can put something else in its place."""


def confine() -> None:
    """Give up everything that a codec has no use for: files, other processes, more memory, dumps, privileges."""
    score = os.open("/proc/self/oom_score_adj", os.O_WRONLY)  # where memory runs out, this process goes first
    os.write(score, b"500")
    os.close(score)
    libc = ctypes.CDLL(None)
    libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    libc.prctl(_DUMPABLE, 0, 0, 0, 0)
    libc.prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    for limit, most in (
        (resource.RLIMIT_AS, _PROCESS_MEMORY),
        (resource.RLIMIT_NOFILE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (most, most))


def read_exactly(count: int) -> bytes:
    """So many bytes. At the end of the requests the process ends."""
    parts = []
    while count:
        part = os.read(0, min(count, 1 << 16))
        if not part:
            os._exit(0)
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def write_all(data: bytes) -> None:
    """All of it, however small the pipe is."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(1, rest) :]


def run(engine: Any, source: str, function: str, argument: str, seconds: float) -> tuple[str, str]:
    """(Kind of answer, text) of one call."""
    if function not in _FUNCTIONS:
        return "missing", f"there is no function {function}"
    context = engine.Context()
    context.set_memory_limit(_MEMORY)
    context.set_max_stack_size(_STACK)
    context.set_time_limit(seconds)
    signal.setitimer(signal.ITIMER_PROF, 1.5 * seconds)
    try:
        call = context.eval(_PRELUDE)
        context.eval(source)
        codec = context.eval(f"typeof {function} === 'function' ? {function} : undefined")
        if codec is None:
            return "missing", f"it has no function {function}"
        answer = call(codec, argument, _LARGEST_ANSWER)
    except engine.JSException as exc:
        return _failure(str(exc))
    except MemoryError:
        return "memory", "needs too much memory"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return ("ok", answer) if answer else ("size", f"its answer is longer than {_LARGEST_ANSWER} characters")


def _failure(text: str) -> tuple[str, str]:
    said = text.partition("\n    at ")[0].strip()[:300]
    if said == "InternalError: interrupted":
        return "timeout", "ran too long and was stopped"
    if said == "null" or said.startswith("InternalError: out of memory"):  # without memory not even the error is made
        return "memory", "needs too much memory"
    return "error", said or "failed without saying why"


def answer(engine: Any, scripts: dict[str, str], request: bytes, seconds: float) -> bytes:
    """The answer to a request."""
    line, _, body = request.partition(b"\n")
    number, what, script, *rest = line.decode("ascii").split(" ")
    text = body.decode("utf-8")
    if what == "load":
        if len(scripts) >= _MOST_SCRIPTS:
            scripts.clear()
        scripts[script] = text
        kind, said = "ok", ""
    elif script not in scripts:
        kind, said = "unknown", ""
    else:
        kind, said = run(engine, scripts[script], rest[0], text, seconds)
    return f"{number} {kind}\n".encode() + said.encode("utf-8", "replace")


def main() -> None:
    """Serve requests until there are no more."""
    folder, seconds = sys.argv[1], float(sys.argv[2])
    sys.path.append(folder)
    import _quickjs  # type: ignore[import-not-found]  # noqa: PLC0415  # no types; the package around it starts a thread and loads three times as much

    confine()
    scripts: dict[str, str] = {}
    while True:
        (length,) = struct.unpack(">I", read_exactly(4))
        if length > _LARGEST_FRAME:
            os._exit(1)
        reply = answer(_quickjs, scripts, read_exactly(length), seconds)
        write_all(struct.pack(">I", len(reply)) + reply)


if __name__ == "__main__":
    main()
