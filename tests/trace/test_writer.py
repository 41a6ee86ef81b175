"""The writer appends whole lines, and leaves a file as it found it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

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
    """`write` returns after its append, with nothing left in a buffer."""
    writer = TraceWriter(path)
    for written in (1, 2):
        writer.write(_EVENT)
        assert path.read_bytes() == _LINE * written
        assert (writer.records, writer.write_errors) == (written, 0)
    writer.close()


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


def test_empty_batch_writes_nothing(path: Path) -> None:
    """No lookups are no lines."""
    writer = TraceWriter(path)
    writer.write_batch([])
    assert (path.read_bytes(), writer.records) == (b"", 0)
    writer.close()


def test_parent_folders_are_made(tmp_path: Path) -> None:
    """A path into folders that do not exist is no error."""
    path = tmp_path / "a" / "b" / "trace.jsonl"
    writer = TraceWriter(str(path))
    writer.write(_EVENT)
    writer.close()
    assert path.read_bytes() == _LINE


def test_existing_file_is_appended_to(path: Path) -> None:
    """Another run's records stay where they are."""
    for _ in range(2):
        writer = TraceWriter(path)
        writer.write(_EVENT)
        writer.close()
    assert path.read_bytes() == _LINE * 2


def test_line_after_a_torn_one_starts_clean(path: Path) -> None:
    """A file that a killed process left torn loses that line and no other."""
    path.write_bytes(_LINE + _LINE[:30])
    writer = TraceWriter(path)
    writer.write(_EVENT)
    writer.write(_EVENT)
    writer.close()
    assert path.read_bytes() == _LINE + _LINE[:30] + b"\n" + _LINE * 2
    assert (writer.records, writer.write_errors) == (2, 0)
    reader = TraceReader(path)
    assert (list(reader), reader.skipped) == ([_EVENT] * 3, 1)


def test_opening_a_torn_file_changes_nothing(path: Path) -> None:
    """The mending newline comes with the first record, and not before."""
    path.write_bytes(_LINE[:30])
    TraceWriter(path).close()
    assert path.read_bytes() == _LINE[:30]


def test_file_that_may_not_be_read_is_appended_to(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing can be learnt about its end, the record is written and nothing before it."""

    def forbidden(*_: object) -> None:
        raise PermissionError("append only")

    path.write_bytes(_LINE)
    monkeypatch.setattr(Path, "open", forbidden)
    writer = TraceWriter(path)
    writer.write(_EVENT)
    writer.close()
    monkeypatch.undo()
    assert path.read_bytes() == _LINE * 2


def test_no_path_is_no_trace() -> None:
    """Without a path the writer says that it is off, and does nothing."""
    writer = TraceWriter(None)
    writer.write(_EVENT)
    writer.write_batch([_EVENT])
    writer.close()
    assert (writer.path, writer.enabled) == (None, False)
    assert (writer.records, writer.write_errors) == (0, 0)


def test_close_ends_writing(path: Path) -> None:
    """It can be called twice, and a later `write` does nothing at all."""
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


def test_close_gives_the_descriptor_back(path: Path) -> None:
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
    """Its line goes where it was meant to, not into a file that has got the descriptor since."""
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
    """A pipe may take a part of a line; another thread's line comes after the rest."""
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


def test_line_after_an_interrupted_write_starts_clean(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in the middle of a write leaves a torn line, which the next write ends."""
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
    """Later records of all threads are whole; the interrupted ones are there or not."""

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


def test_pipe_is_a_trace_too(path: Path) -> None:
    """A file that is not regular has no torn end; it gets the lines and nothing else."""
    os.mkfifo(path)
    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    writer = TraceWriter(path)
    writer.write(_EVENT)
    writer.close()
    assert os.read(reading, 4096) == _LINE
    os.close(reading)


def test_new_file_is_plain(path: Path) -> None:
    """Nobody may run a trace, and only its owner may write it."""
    TraceWriter(path).close()
    assert path.stat().st_mode & 0o133 == 0


@pytest.mark.parametrize("kind", ["folder", "below a file"])
def test_path_that_cannot_be_opened_is_an_error_at_once(tmp_path: Path, kind: str) -> None:
    """A trace that could never be written is told before anything is asked."""
    (tmp_path / "file").touch()
    path = tmp_path if kind == "folder" else tmp_path / "file" / "trace.jsonl"
    with pytest.raises(OSError):
        TraceWriter(path)


def test_threads_write_whole_lines(path: Path) -> None:
    """Eight threads that share a writer never mix their lines."""
    writer, start = TraceWriter(path), threading.Barrier(8)

    def work(me: int) -> None:
        start.wait()
        for number in range(200):
            event = replace(_EVENT, view_id=f"view_{me}", ts=float(number))
            if number % 2:
                writer.write(event)
            else:
                writer.write_batch([event, event])

    workers = [threading.Thread(target=work, args=(me,)) for me in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    writer.close()
    reader = TraceReader(path)
    events = list(reader)
    assert (len(events), reader.skipped, writer.records) == (2400, 0, 2400)
    for me in range(8):
        mine = [event.ts for event in events if event.view_id == f"view_{me}"]
        assert mine == [n for n in range(200) for _ in range(1 if n % 2 else 2)]
