"""`python -m tests.fuzz [--seconds N] [--seed N] [TARGET …]`: hostile input for each target, and what came of it."""

from __future__ import annotations

import argparse
import sys
import time

from tests.fuzz.fuzz import fuzz
from tests.fuzz.targets import targets


def main() -> int:
    """The exit code: 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20, help="for each target [default: 20]")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="the same inputs again")
    parser.add_argument("target", nargs="*", help="those whose name contains this [default: all]")
    given = parser.parse_args()
    failed = False
    for target in targets():
        if given.target and not any(word in target.name for word in given.target):
            continue
        done, found = fuzz(target, given.seed, seconds=given.seconds)
        print(f"{target.name:30} {done:9,} inputs  {len(found)} findings  (--seed {given.seed})", flush=True)
        for finding in found.values():
            failed = True
            print(f"  {finding}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
