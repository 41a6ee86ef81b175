"""Any file gives plausible records and a number of skipped lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from forwardscope import TraceEvent, TraceReader
from forwardscope.trace.record import MAX_COUNT, MAX_TS, MAX_WALL_MS, OPTIONAL
from forwardscope.trace.writer import line_of

_EVENT = TraceEvent(1.0, "probe", "base", "aaf4c61ddcc5", 8, "next_token_dist", 2.0, False)
_LINE = line_of(_EVENT)
_TIMES = {"ts": MAX_TS, "wall_ms": MAX_WALL_MS}
_COUNTS = ("top_k", "batch", "tokens", "tokens_reused")
_KEYS = [*_EVENT.to_dict(), *OPTIONAL]

any_text = st.text(st.characters(exclude_categories=()), max_size=20)
any_number = st.integers() | st.floats() | st.sampled_from([10**400, -(10**400), 1e308, 2**63])
any_value = st.recursive(
    st.none() | st.booleans() | any_number | any_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("traces") / "trace.jsonl"


def _read(path: Path, *lines: bytes) -> tuple[list[TraceEvent], int]:
    """Write lines; return the events, which must be plausible, and the number of skipped lines."""
    path.write_bytes(b"".join(lines))
    reader = TraceReader(path)
    events = list(reader)
    for event in events:
        assert all(0 <= getattr(event, key) <= bound for key, bound in _TIMES.items())
        assert all(0 <= (getattr(event, key) or 0) <= MAX_COUNT for key in _COUNTS)
        "".join(map(str, event.to_dict().values())).encode()
    return events, reader.skipped


@pytest.mark.parametrize(
    ("key", "bound"), [*_TIMES.items(), *((key, MAX_COUNT) for key in _COUNTS)]
)
@pytest.mark.parametrize("other", [b"", b"foreign\n"], ids=["block", "line by line"])
def test_bounds(path: Path, key: str, bound: float, other: bytes) -> None:
    """They are those of the record, whether lines are decoded together or one by one."""
    for value, count in ((0, 1), (bound, 1), (-1, 0), (bound * 1.001 // 1 + 1, 0)):
        as_type = float(value) if key in _TIMES else int(value)
        line = json.dumps(_EVENT.to_dict() | {key: as_type}).encode() + b"\n"
        assert (len(_read(path, line, other)[0]), value) == (count, value)


@given(st.dictionaries(st.sampled_from(_KEYS), any_value))
def test_any_value_of_any_key(path: Path, changes: dict[str, Any]) -> None:
    """A record is an event or one skipped line, and the records around it are read."""
    line = json.dumps(_EVENT.to_dict() | changes).encode() + b"\n"
    events, skipped = _read(path, _LINE, line, _LINE)
    assert (events[0], events[-1], len(events) + skipped) == (_EVENT, _EVENT, 3)


@settings(max_examples=200)
@given(
    st.lists(
        st.binary(max_size=40)
        | st.sampled_from([_LINE, b"\n", b"\xef\xbb\xbf", _LINE.decode().encode("utf-16")])
        | st.integers(1, len(_LINE)).map(lambda cut: _LINE[:cut])
    )
)
def test_any_bytes(path: Path, parts: list[bytes]) -> None:
    """Torn, foreign and binary lines are skipped; no line is counted twice."""
    events, skipped = _read(path, *parts, b"\n", _LINE)
    assert events[-1] == _EVENT
    assert skipped <= b"".join(parts).count(b"\n") + 1


def test_a_file_that_shrinks_while_it_is_read(path: Path) -> None:
    """The records up to the new end are returned."""
    path.write_bytes(_LINE * 10_000)
    events = iter(TraceReader(path))
    assert next(events) == _EVENT
    path.write_bytes(b"")
    assert len(list(events)) < 10_000
