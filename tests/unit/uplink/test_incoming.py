"""JSON that comes from outside."""

from __future__ import annotations

import orjson
import pytest

from edged.uplink.incoming import DEEPEST, loaded


@pytest.mark.parametrize(("left", "right"), [("[", "]"), ('{"a": ', "}"), ('["[", ', "]"), ('{"b": [], "a": ', "}")])
def test_what_is_nested_too_deeply_is_refused_like_what_is_no_json(left: str, right: str) -> None:
    for depth in (1, DEEPEST - 2):
        assert loaded((left * depth + "1" + right * depth).encode())
    for depth in (DEEPEST + 1, 300, 1000, 5000):
        with pytest.raises(orjson.JSONDecodeError):
            loaded((left * depth + "1" + right * depth).encode())


def test_what_is_wide_is_not_deep() -> None:
    wide = {str(n): [{}, [n]] for n in range(1000)}
    assert loaded(orjson.dumps(wide)) == wide
    assert loaded(orjson.dumps("[{" * 1000)) == "[{" * 1000


@pytest.mark.parametrize("payload", [b"", b"{", b"NaN", b"[1e999]", b'"\xff"', b'"\\ud800"', b"9" * 400])
def test_what_is_no_json_is_refused(payload: bytes) -> None:
    with pytest.raises(orjson.JSONDecodeError):
        loaded(payload)
