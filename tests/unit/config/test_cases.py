"""Golden folders: a broken configuration, and word for word what `edged check` says about it.

After a deliberate change of words: `EDGED_UPDATE_CASES=1 pytest tests/unit/config/test_cases.py`, then read the diff.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from edged.cli.check import check

ROOT = Path(__file__).parents[3]
CASES = ROOT / "tests" / "cases" / "config"


@pytest.mark.parametrize("case", sorted(path.name for path in CASES.iterdir()))
def test_check_says_what_the_case_expects(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CASES / case)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    for secrets in (CASES / case).glob("secrets.env"):
        secrets.chmod(0o644)  # whatever the checkout's umask was
    result = CliRunner().invoke(check, ["edged.yaml"])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    said = f"{result.stderr.replace(str(ROOT), '<root>')}exit code {result.exit_code}\n"
    expected = CASES / case / "error.txt"
    if os.environ.get("EDGED_UPDATE_CASES"):
        expected.write_text(said, encoding="utf-8")
    assert said == expected.read_text(encoding="utf-8")
