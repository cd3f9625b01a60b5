"""The table of the fault suite, for the terminal and for docs/explanation/faults.md."""

from __future__ import annotations

import datetime as dt
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

from edged import __version__
from tests.support.faultbench import WINDOW, Row

PAGE = Path(__file__).parents[2] / "docs/explanation/faults.md"

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

Run on {date} with edged {version}, Linux {kernel}, Python {python} on {cores} cores, in {minutes:.0f} minutes, by the
command that `make soak` begins with, `EDGED_SOAK=1 EDGED_SOAK_AT_ONCE={at_once} python -m pytest -s
tests/system/test_faults.py`. So many cases run at a time that the times of recovery include the wait for each other.

{table}

- **lost**: readings that were flushed to the disk, or read while no stop was near, and never arrived. It is to be 0.
- **not flushed**: what was read in the last `flush` (1 s) before a kill -9. It is gone, as promised. At a SIGTERM: an
  answer that was on its way when the gateway stopped asking.
- **destroyed by the disk**: what stood on damaged pages of the buffer's file. The log says so, and how much was saved.
  A file that was deleted, zeroed or cut off takes with it all that waited in it. If nothing is left of the buffer, not
  even its `.lock`, only the receiver can tell, by the new epoch.
- **repeated messages**: the receiver recognises them by `epoch` and `seq`. At most {window} for each fault.
- **live again**: from the end of a fault until something read after it arrived, the longest of the case.
- **caught up**: likewise, until everything read before the end of the fault had arrived.

What a stopped process (SIGSTOP) does not read is not in the table: it was never a reading.

{left_out}
Refusals by the broker, limits of window and packet size, and lost sessions are tested without a table, in
`tests/system/test_mqtt_link.py` and `test_mqtt_forwarder.py`; every crash point of the buffer in `tests/unit/buffer`; a
power cut in `tests/system/test_power_cut.py`.
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


def page(rows: Sequence[Row], left_out: Mapping[str, str], elapsed: float, at_once: int) -> str:
    """The whole page."""
    missing = "".join(f"- {name}: {why}\n" for name, why in left_out.items())
    return _TEXT.format(
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
        left_out=f"Not run:\n\n- 1 % packet loss: no kernel with netem was at hand\n{missing}",
    )
