"""Ask whether anything in requirements.lock has a known vulnerability: `audit.py`. Fails if so.

The database is OSV (https://osv.dev), which has PyPI's advisories; the whole lock is one question. Where it cannot be
reached, this says so and does not fail: a build must not depend on somebody else's server. `EDGED_OSV` names another.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

from sbom import locked, purl

_OSV = "https://api.osv.dev"
_SECONDS = 10.0
_ACCEPTED: dict[str, str] = {}
"""Advisory → why it does not concern edged."""


def ask(url: str, packages: list[tuple[str, str]]) -> list[list[str]]:
    """The advisories of each package. Raises OSError, ValueError."""
    if urlsplit(url).scheme not in ("http", "https"):
        raise ValueError(f"{url} is no address of a server")
    question = {"queries": [{"package": {"purl": purl(*package)}} for package in packages]}
    request = urllib.request.Request(  # noqa: S310  # http or https, as checked above: no file:
        f"{url}/v1/querybatch", json.dumps(question).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=_SECONDS) as reply:  # noqa: S310  # http or https, as checked above: no file:
        answer: dict[str, Any] = json.load(reply)
    results = answer.get("results", [])
    if len(results) != len(packages):
        raise ValueError(f"{len(packages)} packages asked for, {len(results)} answered")
    return [[one["id"] for one in result.get("vulns", [])] for result in results]


def main() -> int:
    """Ask and tell; the exit code."""
    url = os.environ.get("EDGED_OSV", _OSV)
    packages = sorted(locked().items())
    try:
        found = ask(url, packages)
    except (OSError, ValueError, KeyError, urllib.error.URLError) as exc:
        print(f"audit: NOT DONE, {urlsplit(url).netloc} cannot be asked: {exc}")
        return 0
    bad = 0
    for (name, version), advisories in zip(packages, found, strict=True):
        for advisory in advisories:
            reason = _ACCEPTED.get(advisory, "")
            bad += not reason
            print(f"{name} {version}: {advisory}{f' (accepted: {reason})' if reason else ''}")
    print(f"audit: {len(packages)} packages asked for, {bad} advisories that concern edged")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
