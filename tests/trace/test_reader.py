"""The reader streams what is good, and says how much was not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from forwardscope import TraceEvent, TraceReader
from forwardscope.trace.reader import MAX_LINE_BYTES
from forwardscope.trace.writer import line_of

_DATA = Path(__file__).parents[1] / "data"
_EVENT = TraceEvent(1.0, "probe", "base", "aaf4c61ddcc5", 8, "next_token_dist", 2.0, False)
_LINE = line_of(_EVENT)


def _read(path: Path, *lines: bytes) -> tuple[list[TraceEvent], int]:
    """Write the lines as they are; return what is read, and how many were skipped."""
    path.write_bytes(b"".join(lines))
    reader = TraceReader(path)
    return list(reader), reader.skipped


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trace.jsonl"


def test_records_come_in_the_order_of_the_file(path: Path) -> None:
    """Each line is one event."""
    events = [replace(_EVENT, ts=float(number)) for number in range(5)]
    assert _read(path, *(line_of(event) for event in events)) == (events, 0)


def test_empty_file_has_no_records(path: Path) -> None:
    """Nothing is read and nothing was skipped."""
    assert _read(path, b"") == ([], 0)


def test_last_line_may_lack_its_newline(path: Path) -> None:
    """A record that is whole counts, though its line was not ended."""
    assert _read(path, _LINE, _LINE.rstrip()) == ([_EVENT, _EVENT], 0)


@pytest.mark.parametrize("cut", [1, 2, len(_LINE) // 2, len(_LINE) - 2])
def test_torn_last_line_is_skipped(path: Path, cut: int) -> None:
    """Wherever a killed process stopped inside a record, the one before is read."""
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
        _LINE.replace(b'"top_k": 8', b'"top_k": ' + b"9" * 5000),
        b"[" * 100_000 + b"\n",
        b'{"a":' * 100_000 + b"\n",
    ],
    ids=lambda line: line[:24].decode("latin-1"),
)
def test_foreign_line_is_skipped(path: Path, line: bytes) -> None:
    """What is no record of the eight keys is passed by, and the records around it are read."""
    assert _read(path, _LINE, line, _LINE) == ([_EVENT, _EVENT], 1)


def test_records_behind_a_torn_one_are_read(path: Path) -> None:
    """Who shared the file with the one who left it torn loses nothing by it."""
    assert _read(path, _LINE, _LINE[:40] + _LINE + _LINE) == ([_EVENT] * 3, 1)
    assert _read(path, _LINE[:40] + _LINE[:30] + _LINE.rstrip() + _LINE) == ([_EVENT] * 2, 1)
    assert _read(path, _LINE.rstrip() + _LINE) == ([_EVENT] * 2, 0)


def test_blank_lines_are_passed_over(path: Path) -> None:
    """They are no records and no damage; a writer leaves one when it mends a torn line."""
    assert _read(path, b"\n", _LINE, b"\n  \t\r\n", _LINE, b"\n\n") == ([_EVENT, _EVENT], 0)


def test_foreign_line_ends_are_taken(path: Path) -> None:
    """A file that went through Windows is the same file."""
    crlf = _LINE.replace(b"\n", b"\r\n")
    assert _read(path, crlf, crlf) == ([_EVENT, _EVENT], 0)


def test_foreign_spacing_and_order_are_taken(path: Path) -> None:
    """JSON is JSON, however another tool writes it."""
    keys = dict(reversed(_EVENT.to_dict().items()))
    line = json.dumps({"extra": "é", **keys}, separators=(",", ":"), ensure_ascii=False)
    assert _read(path, line.encode() + b"\n") == ([_EVENT], 0)


def _padded(size: int) -> bytes:
    """A record whose line has a given length, newline included."""
    head = _LINE[:-2] + b', "padding": "'
    return head + b"x" * (size - len(head) - 3) + b'"}\n'


def test_longest_line_is_read(path: Path) -> None:
    """A line of exactly `MAX_LINE_BYTES` is still a record."""
    assert len(_padded(MAX_LINE_BYTES)) == MAX_LINE_BYTES
    assert _read(path, _LINE, _padded(MAX_LINE_BYTES), _LINE) == ([_EVENT] * 3, 0)


@pytest.mark.parametrize("size", [MAX_LINE_BYTES + 1, MAX_LINE_BYTES * 2, MAX_LINE_BYTES * 3 + 7])
def test_oversized_line_is_skipped_once(path: Path, size: int) -> None:
    """However many blocks it fills, it is one skipped line, and the next one is read whole."""
    assert _read(path, _LINE, _padded(size), _LINE) == ([_EVENT, _EVENT], 1)


def test_oversized_last_line_is_skipped_once(path: Path) -> None:
    """It is one skipped line without its newline, too."""
    assert _read(path, _LINE, b"x" * (MAX_LINE_BYTES * 2 + 5)) == ([_EVENT], 1)


def test_each_reading_starts_anew(path: Path) -> None:
    """A second iteration reads the file again, and counts its skipped lines again."""
    path.write_bytes(_LINE + b"foreign\n" + _LINE)
    reader = TraceReader(path)
    assert list(reader) == list(reader) == [_EVENT, _EVENT]
    assert reader.skipped == 1


def test_reader_streams(path: Path) -> None:
    """An event comes out before what follows it was looked at."""
    path.write_bytes(_LINE + b"foreign\n")
    reader = TraceReader(path)
    assert reader.skipped == 0
    events = iter(reader)
    assert (next(events), reader.skipped) == (_EVENT, 0)
    assert list(events) == []
    assert reader.skipped == 1


def test_path_may_be_text(path: Path) -> None:
    """A string is a path as good as any."""
    path.write_bytes(_LINE)
    assert list(TraceReader(str(path))) == [_EVENT]


def test_missing_file_is_an_error_of_the_iteration(path: Path) -> None:
    """It is raised when the file is read, by its own name."""
    reader = TraceReader(path)
    with pytest.raises(FileNotFoundError, match=r"trace\.jsonl"):
        list(reader)


def test_trace_of_another_tool_is_read_whole() -> None:
    """A real file that dlm-sway wrote has 114 records, and none is skipped."""
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
