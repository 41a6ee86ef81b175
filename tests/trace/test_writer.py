"""The writer appends complete lines."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from forwardscope import TraceEvent, TraceReader, TraceWriter
from forwardscope.trace.writer import line_of

_EVENT = TraceEvent(1.0, "probe", "base", "aaf4c61ddcc5", 8, "next_token_dist", 2.0, False)
_LINE = line_of(_EVENT)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trace.jsonl"


def test_record_is_in_the_file_at_once(path: Path) -> None:
    """`write` buffers nothing; folders are created, and an existing file is appended to."""
    path = path.parent / "a" / "b" / "trace.jsonl"
    for written in (1, 3):
        writer = TraceWriter(str(path))
        writer.write(_EVENT)
        assert path.read_bytes() == _LINE * written
        writer.write_batch([])
        writer.write(_EVENT)
        assert path.read_bytes() == _LINE * (written + 1)
        assert (writer.records, writer.write_errors) == (2, 0)
        writer.close()
    assert path.stat().st_mode & 0o133 == 0  # executable by no one, writable by its owner


def test_batch_is_one_append(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines of one batch reach the file together, in order, with a single write."""
    events = [replace(_EVENT, ts=float(number)) for number in range(50)]
    real, sizes = os.write, list[int]()

    def counting(fd: int, data: bytes) -> int:
        sizes.append(len(data))
        return real(fd, data)

    writer = TraceWriter(path)
    monkeypatch.setattr(os, "write", counting)
    writer.write_batch(events)
    monkeypatch.undo()
    assert sizes == [path.stat().st_size]
    assert list(TraceReader(path)) == events
    assert writer.records == 50
    writer.close()


def test_record_after_a_torn_line_begins_a_new_line(path: Path) -> None:
    """The newline is written with the record, and not when the file is opened."""
    path.write_bytes(_LINE + _LINE[:30])
    TraceWriter(path).close()
    assert path.read_bytes() == _LINE + _LINE[:30]
    writer = TraceWriter(path)
    writer.write(_EVENT)
    writer.write(_EVENT)
    writer.close()
    assert path.read_bytes() == _LINE + _LINE[:30] + b"\n" + _LINE * 2
    assert (writer.records, writer.write_errors) == (2, 0)
    reader = TraceReader(path)
    assert (list(reader), reader.skipped) == ([_EVENT] * 3, 1)


def test_file_that_cannot_be_read_is_appended_to(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its end is unknown, and no newline is written before the record."""

    def forbidden(*_: object) -> None:
        raise PermissionError("append only")

    path.write_bytes(_LINE)
    monkeypatch.setattr(Path, "open", forbidden)
    writer = TraceWriter(path)
    writer.write(_EVENT)
    writer.close()
    monkeypatch.undo()
    assert path.read_bytes() == _LINE * 2


def test_writer_without_a_path() -> None:
    """It is not enabled, and does nothing."""
    writer = TraceWriter(None)
    writer.write(_EVENT)
    writer.write_batch([_EVENT])
    writer.close()
    assert (writer.path, writer.enabled) == (None, False)
    assert (writer.records, writer.write_errors) == (0, 0)


def test_close_ends_writing(path: Path) -> None:
    """It can be called twice, and a later `write` does nothing."""
    writer = TraceWriter(path)
    enabled = [writer.enabled]
    writer.write(_EVENT)
    writer.close()
    writer.close()
    writer.write(_EVENT)
    writer.write_batch([_EVENT])
    enabled.append(writer.enabled)
    assert enabled == [True, False]
    assert path.read_bytes() == _LINE
    assert (writer.records, writer.write_errors) == (1, 0)


def test_close_frees_the_descriptor(path: Path) -> None:
    """The first `close` frees it, and the second does not close a file opened since."""
    free = os.open(path, os.O_RDONLY | os.O_CREAT)
    os.close(free)
    writer = TraceWriter(path)
    writer.close()
    other = os.open(path, os.O_RDONLY)
    assert other == free
    writer.close()
    assert os.fstat(other).st_size == 0
    os.close(other)


def test_close_while_another_thread_writes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line is written to the trace, and not to a file that is opened later."""
    real, writer = os.write, TraceWriter(path)
    others: list[int] = []

    def late(fd: int, data: bytes) -> int:
        writer.close()
        others.append(os.open(path.with_name("other"), os.O_WRONLY | os.O_CREAT))
        return real(fd, data)

    monkeypatch.setattr(os, "write", late)
    writer.write(_EVENT)
    os.close(others[0])
    assert (path.read_bytes(), path.with_name("other").read_bytes()) == (_LINE, b"")


def test_no_line_comes_between_the_parts_of_another(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe may accept a part of a line; the line of another thread comes after the rest."""
    os.mkfifo(path)
    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    writer, real, partial = TraceWriter(path), os.write, threading.Event()

    def write(fd: int, data: bytes) -> int:
        taken = real(fd, data[:50])
        partial.set()
        time.sleep(0.001)
        return taken

    monkeypatch.setattr(os, "write", write)
    first = threading.Thread(target=writer.write, args=(_EVENT,))
    first.start()
    assert partial.wait(60)
    writer.write_batch([_EVENT, _EVENT])
    first.join()
    monkeypatch.undo()
    assert (os.read(reading, 4096), writer.records) == (_LINE * 3, 3)
    writer.close()
    os.close(reading)


def test_record_after_an_interrupted_write_begins_a_new_line(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupt during a write leaves a torn line, which the next write ends."""
    writer, real = TraceWriter(path), os.write

    def interrupted(fd: int, data: bytes) -> int:
        real(fd, data[:20])
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        writer.write(_EVENT)
    monkeypatch.undo()
    writer.write(_EVENT)
    writer.close()
    assert path.read_bytes() == _LINE[:20] + b"\n" + _LINE
    reader = TraceReader(path)
    assert (list(reader), reader.skipped) == ([_EVENT], 1)


def test_interrupt_at_any_moment_of_a_write(
    path: Path, at_moment: Callable[[int, Callable[[], None], Callable[[], object]], bool]
) -> None:
    """Later records of all threads are complete; the interrupted ones are all there or missing."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    def interrupt_at(moment: int) -> bool:
        path.unlink(missing_ok=True)
        writer = TraceWriter(path)
        events = [replace(_EVENT, ts=float(number)) for number in range(4)]
        came = at_moment(moment, interrupt, lambda: writer.write_batch(events[:2]))
        other = threading.Thread(target=writer.write, args=(events[2],), daemon=True)
        other.start()
        other.join(60)
        assert not other.is_alive()
        writer.write(events[3])
        writer.close()
        reader = TraceReader(path)
        assert list(reader) in (events, events[2:])
        assert (reader.skipped, writer.write_errors) == (0, 0)
        return came

    moment = 0
    while interrupt_at(moment):
        moment += 1
    assert moment > 5


@pytest.mark.parametrize("kind", ["folder", "below a file"])
def test_path_that_cannot_be_opened_is_an_error(tmp_path: Path, kind: str) -> None:
    """The constructor raises."""
    (tmp_path / "file").touch()
    path = tmp_path if kind == "folder" else tmp_path / "file" / "trace.jsonl"
    with pytest.raises(OSError):
        TraceWriter(path)


def test_threads_write_complete_lines(path: Path, together: Any) -> None:
    """Eight threads that share a writer never mix their lines."""
    writer = TraceWriter(path)

    def work(me: int) -> None:
        for number in range(200):
            event = replace(_EVENT, view_id=f"view_{me}", ts=float(number))
            writer.write_batch([event] * (1 + number % 2))

    together(8, work)
    writer.close()
    reader = TraceReader(path)
    events = list(reader)
    assert (len(events), reader.skipped, writer.records) == (2400, 0, 2400)
    for me in range(8):
        mine = [event.ts for event in events if event.view_id == f"view_{me}"]
        assert mine == [n for n in range(200) for _ in range(1 + n % 2)]
