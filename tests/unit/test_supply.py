"""The bill of materials names what the lock names; the audit tells what the database says, or that it says nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCK = dict(re.findall(r"^([a-z0-9.-]+)==([^ ;\\]+)", (ROOT / "requirements.lock").read_text("utf-8"), re.MULTILINE))


def run(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / ".ci" / script, *arguments],
        check=False, capture_output=True, text=True, timeout=50, env={**os.environ, **environment},
    )  # fmt: skip


def test_the_bill_of_materials_is_that_of_the_lock_and_the_same_each_time(tmp_path: Path) -> None:
    first, second = (run("sbom.py", SOURCE_DATE_EPOCH="1800000000").stdout for _ in range(2))
    assert first == second
    bill = json.loads(first)
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert {one["name"]: one["version"] for one in bill["components"]} == LOCK
    assert len({one["bom-ref"] for one in bill["components"]}) == len(LOCK)
    scopes = {one["name"]: one["scope"] for one in bill["components"]}
    assert scopes["pymodbus"] == "required"
    assert scopes["pytest"] == "excluded"
    assert scopes["pyric"] == "excluded", "it is copyleft, and never shipped"
    run("sbom.py", str(tmp_path / "new/bill.json"))
    assert json.loads((tmp_path / "new/bill.json").read_text())["components"] == bill["components"]


@contextmanager
def database(advisories: Mapping[str, list[str]]) -> Iterator[str]:
    """A server that speaks as OSV does: package → its advisories."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["queries"]
            names = [re.sub(r".*/(.*)@.*", r"\1", query["package"]["purl"]) for query in asked]
            found = [[{"id": one} for one in advisories.get(name, [])] for name in names]
            body = json.dumps({"results": [{"vulns": one} if one else {} for one in found]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_a_known_vulnerability_fails_the_audit_and_is_named() -> None:
    with database({"click": ["GHSA-xxxx-yyyy-zzzz"]}) as url:
        done = run("audit.py", EDGED_OSV=url)
    assert done.returncode == 1
    assert f"click {LOCK['click']}: GHSA-xxxx-yyyy-zzzz" in done.stdout


def test_nothing_known_passes_the_audit() -> None:
    with database({}) as url:
        done = run("audit.py", EDGED_OSV=url)
    assert done.returncode == 0
    assert f"{len(LOCK)} packages asked for, 0 advisories" in done.stdout


def test_a_database_that_cannot_be_reached_is_told_and_fails_nothing() -> None:
    done = run("audit.py", EDGED_OSV="http://127.0.0.1:9")
    assert done.returncode == 0
    assert "NOT DONE, 127.0.0.1:9 cannot be asked" in done.stdout
