"""One case of the fault suite in a network of its own: `unshare -n python -m tests.support.fault_alone CASE FOLDER`."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import orjson

from tests.support.fault_cases import CASES
from tests.support.faultbench import run_here


def main(name: str, folder: Path) -> None:
    """Prints the line of the table as JSON."""
    subprocess.run(["ip", "link", "set", "lo", "up", "mtu", "1500"], check=True)
    (case,) = (case for case in CASES if case.name == name)
    row = asyncio.run(run_here(case, folder))
    print(orjson.dumps(asdict(row)).decode())


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
