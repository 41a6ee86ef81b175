"""A full disk loses records but fails no lookup; each lost record is counted."""

from __future__ import annotations

import errno
import os
import resource
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from forwardscope import TraceEvent, TraceReader, TraceWriter
from forwardscope.trace.writer import line_of

_EVENT = TraceEvent(1.0, "probe", "base", "aaf4c61ddcc5", 8, "next_token_dist", 2.0, False)
_SIZE = len(line_of(_EVENT))
_WARNING = "^trace record not written to .*; the run goes on$"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trace.jsonl"


def _event(serial: int) -> TraceEvent:
    """Return an event with a line of the same length for each number."""
    return replace(_EVENT, ts=float(serial))


def _serials(path: Path) -> tuple[list[int], int]:
    """Return the numbers of the events in a file, and how many lines are skipped."""
    reader = TraceReader(path)
    return [int(event.ts) for event in reader], reader.skipped


def test_full_device() -> None:
    """Each record counts as an error, nothing is raised, and there is one warning."""
    writer = TraceWriter("/dev/full")
    with pytest.warns(RuntimeWarning, match=_WARNING) as caught:
        writer.write(_EVENT)
        writer.write_batch([_EVENT, _EVENT])
        writer.write(_EVENT)
    assert len(caught) == 1
    assert "/dev/full" in str(caught[0].message)
    assert "No space left on device" in str(caught[0].message)
    assert (writer.records, writer.write_errors) == (0, 4)
    assert writer.enabled
    writer.close()


def test_nothing_is_raised_where_warnings_are_errors() -> None:
    """No lookup fails where warnings are errors."""
    writer = TraceWriter("/dev/full")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        writer.write(_EVENT)
    assert writer.write_errors == 1
    writer.close()


@pytest.fixture
def full_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let the disk accept a number of bytes, in one short write, and then be full."""
    real = os.write

    def arm(room: int) -> None:
        left = [room]

        def write(fd: int, data: bytes) -> int:
            if not left[0]:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            written = real(fd, data[: left[0]])
            left[0] -= written
            return written

        monkeypatch.setattr(os, "write", write)

    return arm


@pytest.mark.filterwarnings("ignore:trace record not written:RuntimeWarning")
@pytest.mark.parametrize("torn", [False, True], ids=["clean file", "torn file"])
def test_disk_that_fills_up_at_each_byte(
    path: Path,
    full_after: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
    torn: bool,
) -> None:
    """The records that count as written are complete in the file, and no others.

    A second failure follows. Then there is room again, and the next record begins on
    a new line.
    """
    for room in range(3 * _SIZE + torn):
        path.write_bytes(b'{"torn' if torn else b"")
        writer = TraceWriter(path)
        full_after(room)
        writer.write_batch([_event(1), _event(2), _event(3)])
        full_after(0)
        writer.write(_event(4))
        monkeypatch.undo()
        complete = max(0, room - torn + 1) // _SIZE  # a newline is not part of the record
        assert (writer.records, writer.write_errors) == (complete, 4 - complete)
        writer.write(_event(5))
        writer.write(_event(6))
        writer.close()
        assert (writer.records, writer.write_errors) == (complete + 2, 4 - complete)
        serials, skipped = _serials(path)
        assert serials == [*range(1, complete + 1), 5, 6]
        assert b"\n\n" not in b"\n" + path.read_bytes(), "no newline after a complete line"
        cut_inside = (room - torn) % _SIZE not in (0, _SIZE - 1) and room > torn
        assert skipped == torn + cut_inside


def test_partly_written_record_is_written_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record of another process may follow its first part; none is lost."""
    real, turns = os.write, iter(range(10))

    def half(fd: int, data: bytes) -> int:
        if next(turns) % 2:
            return real(fd, data)
        written = real(fd, data[: len(data) // 2])
        real(fd, line_of(_event(9)))
        return written

    monkeypatch.setattr(os, "write", half)
    writer = TraceWriter(path)
    writer.write(_event(1))
    writer.write_batch([_event(2), _event(3), _event(4)])
    writer.close()
    assert (writer.records, writer.write_errors) == (4, 0)
    serials, skipped = _serials(path)
    assert (serials, skipped) == ([9, 1, 2, 9, 3, 4], 2)


@pytest.mark.filterwarnings("ignore:trace record not written:RuntimeWarning")
def test_writes_that_are_always_partial(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer gives up after the second one, with an error."""
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:7]))
    writer = TraceWriter(path)
    with pytest.warns(RuntimeWarning, match="only a part of the record was written, twice"):
        writer.write(_event(1))
    monkeypatch.undo()
    writer.write(_event(2))
    writer.close()
    assert (writer.records, writer.write_errors) == (1, 1)
    assert _serials(path)[0] == [2]


@contextmanager
def _room_for(size: int) -> Iterator[None]:
    """Limit the size of files of this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", [0, 1, _SIZE - 1, _SIZE, _SIZE + 1, 2 * _SIZE - 2])
def test_file_size_limit(path: Path, room: int) -> None:
    """The kernel writes a part of a record (RLIMIT_FSIZE), as on a full disk."""
    writer = TraceWriter(path)
    writer.write(_event(1))
    with _room_for(_SIZE + room), pytest.warns(RuntimeWarning, match=_WARNING) as caught:
        for serial in (2, 3, 4):
            writer.write(_event(serial))
    assert len(caught) == 1
    assert path.stat().st_size == _SIZE + room
    writer.write(_event(5))
    writer.close()
    complete = 1 + (room + 1) // _SIZE
    serials, skipped = _serials(path)
    assert serials == [*range(1, complete + 1), 5]
    assert (writer.records, writer.write_errors) == (complete + 1, 4 - complete)
    assert skipped == (room % _SIZE not in (0, _SIZE - 1))
