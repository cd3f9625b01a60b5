"""The mistakes that `python -m tests.support.mutants` makes still fit the code."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.mutants import ROOT, Mutant, apply, mutants


@pytest.mark.parametrize("mutant", mutants(), ids=lambda mutant: mutant.what)
def test_a_mutant_changes_one_place(mutant: Mutant, tmp_path: Path) -> None:
    copy = tmp_path / "edged" / mutant.file
    copy.parent.mkdir(parents=True)
    shutil.copy(ROOT / "edged" / mutant.file, copy)
    apply(mutant, tmp_path)
    compile(copy.read_text(encoding="utf-8"), mutant.file, "exec")
