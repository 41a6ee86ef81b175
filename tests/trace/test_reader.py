"""The reader streams records, and counts the lines that it skips."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest

from forwardscope import TraceEvent, TraceReader
from forwardscope.trace.reader import MAX_LINE_BYTES
from forwardscope.trace.writer import line_of

_DATA = Path(__file__).parents[1] / "data"
_EVENT = TraceEvent(1.0, "probe", "base", "aaf4c61ddcc5", 8, "next_token_dist", 2.0, False)
_LINE = line_of(_EVENT)


def _read(path: Path, *lines: bytes) -> tuple[list[TraceEvent], int]:
    """Write lines; return the events, and the number of skipped lines."""
    path.write_bytes(b"".join(lines))
    reader = TraceReader(path)
    return list(reader), reader.skipped


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trace.jsonl"


@pytest.mark.parametrize(
    ("content", "records", "skipped"),
    [
        (b"", 0, 0),
        (_LINE + _LINE.rstrip(), 2, 0),  # no newline at the end
        (b"\n" + _LINE + b"\n  \t\r\n" + _LINE + b"\n\n", 2, 0),  # blank lines
        (_LINE.replace(b"\n", b"\r\n") * 2, 2, 0),
        (_LINE + _LINE[:40] + _LINE + _LINE, 3, 1),  # torn, then complete records
        (_LINE[:40] + _LINE[:30] + _LINE.rstrip() + _LINE, 2, 1),
        (_LINE.rstrip() + _LINE, 2, 0),
    ],
)
def test_line_ends(path: Path, content: bytes, records: int, skipped: int) -> None:
    """Blank lines are ignored, and complete records after a torn one are read."""
    assert _read(path, content) == ([_EVENT] * records, skipped)


@pytest.mark.parametrize("cut", [1, 2, len(_LINE) // 2, len(_LINE) - 2])
def test_torn_last_line_is_skipped(path: Path, cut: int) -> None:
    """A record that a killed process wrote in part is skipped; the one before is read."""
    assert _read(path, _LINE, _LINE[:cut]) == ([_EVENT], 1)


@pytest.mark.parametrize(
    "line",
    [
        b"not json\n",
        b"{\n",
        b"null\n",
        b"[]\n",
        b'"text"\n',
        b"{}\n",
        b'{"ts": 1.0}\n',
        b"\xff\xfe\xfa\n",
        b'{"ts": \xff}\n',
        b"\x00\x00\x00\x00\n",
        _LINE[:40],
        _LINE[:40] + _LINE[:60],
        _LINE.replace(b'"hit": false', b'"hit": 0'),
        _LINE.replace(b'"top_k": 8', b'"top_k": true'),
        _LINE.replace(b'"wall_ms": 2.0', b'"wall_ms": NaN'),
        _LINE.replace(b'"wall_ms": 2.0', b'"wall_ms": Infinity'),
        _LINE.replace(b'"wall_ms": 2.0', b'"wall_ms": 1e999'),
        _LINE.replace(b'"wall_ms": 2.0', b'"wall_ms": ' + b"9" * 400),
        _LINE.replace(b'"wall_ms": 2.0', b'"wall_ms": 1e308'),
        _LINE.replace(b'"wall_ms": 2.0', b'"wall_ms": -2.0'),
        _LINE.replace(b'"ts": 1.0', b'"ts": 1e308'),
        _LINE.replace(b'"ts": 1.0', b'"ts": -1.0'),
        _LINE.replace(b'"top_k": 8', b'"top_k": -8'),
        _LINE.replace(b'"hit": false', b'"hit": false, "batch": 1' + b"0" * 400),
        _LINE.replace(b'"hit": false', b'"hit": false, "tokens": -1'),
        _LINE.replace(b'"top_k": 8', b'"top_k": ' + b"9" * 5000),
        b"[" * 100_000 + b"\n",
        b'{"a":' * 100_000 + b"\n",
    ],
    ids=lambda line: line[:24].decode("latin-1"),
)
def test_foreign_line_is_skipped(path: Path, line: bytes) -> None:
    """A line without the eight keys is skipped; the records around it are read."""
    assert _read(path, _LINE, line, _LINE) == ([_EVENT, _EVENT], 1)


def test_spacing_and_order_of_keys_may_differ(path: Path) -> None:
    """Any JSON object with the eight keys is a record."""
    keys = dict(reversed(_EVENT.to_dict().items()))
    line = json.dumps({"extra": "é", **keys}, separators=(",", ":"), ensure_ascii=False)
    assert _read(path, line.encode() + b"\n") == ([_EVENT], 0)


def _padded(size: int) -> bytes:
    """Return a record with a line of a given length, newline included."""
    head = _LINE[:-2] + b', "padding": "'
    return head + b"x" * (size - len(head) - 3) + b'"}\n'


@pytest.mark.parametrize(
    ("size", "skipped"), [(0, 0), (1, 1), (MAX_LINE_BYTES, 1), (2 * MAX_LINE_BYTES + 7, 1)]
)
def test_line_longer_than_the_limit_is_skipped(path: Path, size: int, skipped: int) -> None:
    """It counts once, however many blocks it fills, and the next line is read completely."""
    line = _padded(MAX_LINE_BYTES + size)
    assert len(line) == MAX_LINE_BYTES + size
    assert _read(path, _LINE, line, _LINE) == ([_EVENT] * (3 - skipped), skipped)
    assert _read(path, _LINE, line[:-2]) == ([_EVENT], 1)


def test_memory_is_bounded(path: Path) -> None:
    """A line of any length is never in memory completely."""
    path.write_bytes(_LINE + b"x" * (16 * MAX_LINE_BYTES) + b"\n" + _LINE)
    reader = TraceReader(path)
    tracemalloc.start()
    try:
        assert (list(reader), reader.skipped) == ([_EVENT, _EVENT], 1)
        assert tracemalloc.get_traced_memory()[1] < 4 * MAX_LINE_BYTES
    finally:
        tracemalloc.stop()


def test_second_iteration_reads_the_file_again(path: Path) -> None:
    """It counts the skipped lines again; the path may be a string."""
    path.write_bytes(_LINE + b"foreign\n" + _LINE)
    reader = TraceReader(str(path))
    assert list(reader) == list(reader) == [_EVENT, _EVENT]
    assert reader.skipped == 1


def test_reader_streams(path: Path) -> None:
    """An event is returned before the next line is read; a missing file fails on iteration."""
    reader = TraceReader(path)
    with pytest.raises(FileNotFoundError, match=r"trace\.jsonl"):
        list(reader)
    path.write_bytes(_LINE + b"foreign\n")
    events = iter(reader)
    assert (next(events), reader.skipped) == (_EVENT, 0)
    assert list(events) == []
    assert reader.skipped == 1


def test_trace_of_another_tool() -> None:
    """All 114 records of a file that dlm-sway wrote are read, and written unchanged."""
    reader = TraceReader(_DATA / "dlm_sway_trace.jsonl")
    events = list(reader)
    assert (len(events), reader.skipped) == (114, 0)
    assert events[0] == TraceEvent(
        ts=1795406197.3149176,
        probe=None,
        view_id="base",
        prompt_hash="aaf4c61ddcc5",
        top_k=8,
        op="next_token_dist",
        wall_ms=1304.4485669997812,
        hit=False,
    )
    lines = (_DATA / "dlm_sway_trace.jsonl").read_bytes().splitlines(keepends=True)
    assert [line_of(event) for event in events] == lines
