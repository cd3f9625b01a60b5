"""Whatever a hand at the keyboard does to a configuration: it still loads, or the place of a mistake is named."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from edged.config.load import load
from tests.unit.config.test_shipped import CONFIG, with_examples

TEXT = with_examples((CONFIG / "edged.yaml").read_text(encoding="utf-8")).replace("include: sites/*.yaml", "")
SLIPS = [
    "", " ", "  ", "\t", "\n", ":", ": ", "-", "- ", "#", "'", '"', "{", "}", "[", "]", ",", "&", "*", "!", "|", ">",
    "%", "@", "`", "\\", "\0", "\x07", "\u2028", "\ufeff", "${", "${X}", "!secret ", "null", "true", "no", "1", "0x1F",
    "1e999", ".nan", '"\\UFFFFFFFF"', "---\n", "%YAML 1.1\n", "<<: ", "*a", "&a ", "9" * 200, "\ud800",
]  # fmt: skip


@st.composite
def mutated(draw: Any) -> str:
    """The default configuration after one to three slips: something typed, deleted, replaced, a line moved."""
    text = TEXT
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(text) - 1))
        match draw(st.sampled_from(["type", "delete", "replace", "line", "indent"])):
            case "type":
                text = text[:at] + draw(st.sampled_from(SLIPS)) + text[at:]
            case "delete":
                text = text[:at] + text[at + draw(st.integers(1, 6)) :]
            case "replace":
                text = text[:at] + draw(st.sampled_from(SLIPS)) + text[at + 1 :]
            case "line":
                lines = text.split("\n")
                lines.insert(draw(st.integers(0, len(lines))), lines[draw(st.integers(0, len(lines) - 1))])
                text = "\n".join(lines)
            case _:
                lines = text.split("\n")
                which = draw(st.integers(0, len(lines) - 1))
                lines[which] = " " * draw(st.integers(0, 8)) + lines[which].lstrip()
                text = "\n".join(lines)
    return text


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(mutated())
@example(TEXT.replace("host:", "host"))
@example(TEXT.replace("every:", "evry:"))
@example(TEXT.replace("unit: 12", "unit: twelve"))
@example(TEXT.replace("  ", "\t"))
def test_a_slip_never_ends_in_a_traceback(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "edged.yaml"
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
        result = load(path, environ={})
        assert result.config is not None or any(problem.severity == "error" for problem in result.problems)
        for problem in result.problems:
            assert problem.render().isprintable() or "\n" in problem.render()
            mark = problem.mark
            assert Path(mark.file.name).exists()
            assert 1 <= mark.line <= len(mark.file.lines) or not mark.file.lines
            assert 1 <= mark.column <= len(mark.text) + 1
