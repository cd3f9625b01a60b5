"""The table of the fault suite, for the terminal and for docs/explanation/faults.md.

The tests of `make soak` keep what they found with `keep`; `python -m tests.support.faultpage` makes the page of it.
"""

from __future__ import annotations

import datetime as dt
import os
import platform
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from edged import __version__
from tests.support.faultbench import WINDOW, Row

_ROOT = Path(__file__).parents[2]
PAGE = _ROOT / "docs/explanation/faults.md"
_FOUND = _ROOT / ".build/soak"
_CASES = "cases"
_OTHERS = ("power-cut", "sync", "day", "sessions")
CRASHED = (0, 1)
"""The seeds of the records whose crash points are tried."""

_HEAD = (
    "| case | readings | faults | lost | not flushed | destroyed by the disk | repeated messages "
    "| out of order | wrong | counters | live again, s | caught up, s |\n"
    "|---|--:|--:|--:|--:|--:|--:|--:|--:|---|--:|--:|"
)

_TEXT = """\
# What happens to readings when things break

<!-- Written by `make soak`. Run it instead of changing this page. -->

Each line is a gateway that reads {rate} a second from simulated Modbus devices and forwards them to a real
broker (mosquitto), while something breaks. A receiver behind the broker holds every value that arrived against what
the devices say they served, and looks for gaps and repetitions by `epoch`, `seq` and `prev` alone.

One device in twenty has `priority: high`.

Run on {date} with edged {version}, Linux {kernel}, Python {python} on {cores} cores, by `make soak`. These cases
took {minutes:.0f} minutes, {at_once} at a time beside the other tests, so that the times of recovery include
the wait for each other.

{table}

- **lost**: readings that were flushed to the disk, or read while no stop was near, and never arrived. It is to be 0.
- **not flushed**: what was read in the last `flush` (1 s) before a kill -9. It is gone, as promised.{each}
  At a SIGTERM: an answer that was on its way when the gateway stopped asking.
- **destroyed by the disk**: what stood on damaged pages of the buffer's file. The log says so, and how much was saved.
  A file that was deleted, zeroed or cut off takes with it all that waited in it. If nothing is left of the buffer, not
  even its `.lock`, only the receiver can tell, by the new epoch.
- **repeated messages**: the receiver recognises them by `epoch` and `seq`. At most {window} for each fault.
- **out of order**: within one lane of one device.
- **live again**: from the end of a fault until something read after it arrived, the longest of the case.
- **caught up**: likewise, until everything read before the end of the fault had arrived.

What a stopped process (SIGSTOP) does not read is not in the table: it was never a reading.

{left_out}
The packets are dropped by nftables in a network namespace, the delays are a proxy's, the failing writes are strace's,
and the clock is libfaketime's. The disk that becomes read-only is an ext4 with `errors=remount-ro`, in which the kernel
is made to find an error. (`mount -o remount,ro` refuses as long as the gateway has its buffer open.)

## Without the load

{others}
"""


def table(rows: Sequence[Row]) -> str:
    """In Markdown."""
    return "\n".join([_HEAD, *map(_line, rows)])


def _line(row: Row) -> str:
    unflushed = f"{row.unflushed:,} (≤ {row.allowed:,})" if row.allowed else f"{row.unflushed:,}"
    cells = [
        row.case, f"{row.readings:,}", row.faults, f"{row.lost:,}", unflushed, f"{row.destroyed:,}",
        row.duplicates, row.out_of_order, row.wrong, "add up" if row.adds_up else "DO NOT ADD UP",
        f"{row.live_again:.1f}", f"{max(0.0, row.caught_up):.1f}",
    ]  # fmt: skip
    return f"| {' | '.join(map(str, cells))} |"


def keep(name: str, text: str) -> None:
    """Put down what a test of `make soak` has found, for the page."""
    _FOUND.mkdir(parents=True, exist_ok=True)
    (_FOUND / f"{name}.md").write_text(text, "utf-8")


def keep_cases(rows: Sequence[Row], left_out: Mapping[str, str], elapsed: float, at_once: int) -> None:
    """Put down the table, and what is said around it."""
    missing = "".join(f"- {name}: {why}\n" for name, why in left_out.items())
    text = _TEXT.format(
        rate="1,000 readings",
        date=dt.datetime.now(dt.UTC).strftime("%Y-%m-%d"),
        version=__version__,
        kernel=platform.release().split("-")[0],
        python=platform.python_version(),
        cores=os.cpu_count(),
        minutes=elapsed / 60,
        at_once=at_once,
        table=table(rows),
        window=WINDOW,
        each=_each_kill(rows),
        left_out=f"Not run:\n\n{missing}" if missing else "",
        others="{others}",
    )
    keep(_CASES, text)


def _each_kill(rows: Sequence[Row]) -> str:
    """What a kill -9 cost on average. At 1,000 readings a second, so many milliseconds."""
    killed = [row for row in rows if row.case.startswith("kill -9")]
    kills = sum(row.faults for row in killed)
    if not kills:
        return ""
    cost = sum(row.unflushed for row in killed) / kills
    return (
        f"\n  At {kills} kills that were {cost:.0f} ms of readings each on average. (It is so little because one with "
        "priority\n  is flushed at once, with all that waits.)"
    )


def keep_crash_points(seed: int, images: int, points: int) -> None:
    """Put down how many images of how many points of one record were opened."""
    keep(f"crash-points-{seed}", f"{images} {points}")


def _crash_points() -> str:
    found = [map(int, (_FOUND / f"crash-points-{seed}.md").read_text("utf-8").split()) for seed in CRASHED]
    images, points = map(sum, zip(*found, strict=True))
    return (
        "A buffer at work (storing, settling, evicting, copying itself, closing and opening) was stopped at each of "
        f"{points:,} points: after every write and sync of every file. {images:,} images of the disk, with all, none "
        "or some of what had not been synced, some of that torn, were opened: nothing promised was gone, no number "
        "went back, and all counters added up."
    )


def _item(text: str) -> str:
    return textwrap.fill(f"- {text}", 120, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False)


def main() -> None:
    """Write the page of what all tests have kept."""
    others = [*((_FOUND / f"{name}.md").read_text("utf-8") for name in _OTHERS), _crash_points()]
    text = (_FOUND / f"{_CASES}.md").read_text("utf-8")
    PAGE.write_text(text.replace("{others}", "\n".join(map(_item, others))), "utf-8")


if __name__ == "__main__":
    main()
