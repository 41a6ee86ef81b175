"""Appending to a trace, one write a lookup."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
import warnings
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Final

from forwardscope.core.tally import new_tally, seen_of
from forwardscope.trace.record import TraceEvent

__all__ = ["TraceWriter"]

_NEWLINE = ord("\n")


class TraceWriter:
    """Appends records to a JSONL file; with no path, does nothing.

    A record is one append to a file opened with O_APPEND, done before `write`
    returns: on a local file system a killed process loses no record that it
    had written, and several processes can share a file. A write that fails
    never raises; it is counted, warned of once, and the next line starts clean.
    Safe under threads. The lines of two threads cannot mix, since the system
    does each append in one; a lock is taken where that is not enough: after a
    write that was cut short, and for what is no regular file.

    Args:
        path: Where to append; parent folders are made. None turns tracing off.

    Raises:
        OSError: The file cannot be opened for appending.
    """

    def __init__(self, path: str | PathLike[str] | None) -> None:
        self.path: Final = None if path is None else Path(path)
        self._lock = threading.Lock()
        self._file: _OpenFile | None = None
        self._regular = self._torn = False
        self._quick = new_tally()
        self._records = 0
        self._write_errors = 0
        self._warned = False
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
            self._file = _OpenFile(os.open(self.path, flags, 0o644))
            self._regular = stat.S_ISREG(os.fstat(self._file.descriptor).st_mode)
            self._torn = self._regular and _ends_torn(self.path)

    @property
    def enabled(self) -> bool:
        """Whether a write would reach a file."""
        return self._file is not None

    @property
    def records(self) -> int:
        """Records that are whole in the file."""
        return self._records + seen_of(self._quick)

    @property
    def write_errors(self) -> int:
        """Records that could not be written, or not whole."""
        return self._write_errors

    def write(self, event: TraceEvent) -> None:
        """Append one record."""
        if self._file is not None:
            self.append(event.to_line())

    def write_batch(self, events: Sequence[TraceEvent]) -> None:
        """Append several records with one write, in order."""
        if self._file is not None and events:
            self.write_lines(b"".join(event.to_line() for event in events), len(events))

    def append(self, line: bytes) -> None:
        """Append one record that is a line already, its newline included."""
        file, failure = self._file, None
        if file is None:
            return
        if self._torn or not self._regular:
            self.write_lines(line, 1)
            return
        try:
            written = os.write(file.descriptor, line)
        except OSError as error:
            written, failure = 0, error
        if written == len(line):
            next(self._quick)
        else:
            with self._lock:
                warn = self._mend(file, line, written, failure)
            self._warn(warn)

    def write_lines(self, lines: bytes, count: int) -> None:
        """Append `count` records that are lines already, in one write."""
        file, failure = self._file, None
        if file is None:
            return
        with self._lock:
            data = b"\n" + lines if self._torn else lines
            try:
                written = os.write(file.descriptor, data)
            except OSError as error:
                written, failure = 0, error
            if written == len(data):
                self._torn = False
                self._records += count
                return
            warn = self._mend(file, data, written, failure)
        self._warn(warn)

    def close(self) -> None:
        """Close the file; may be called twice, and a later `write` does nothing.

        What another thread is just writing still goes there.
        """
        self._file = None

    def _mend(
        self, file: _OpenFile, data: bytes, written: int, failure: OSError | None
    ) -> OSError | None:
        """Write the rest of what was written in part, and count what is whole in the file.

        The lock is held.

        Returns:
            What stopped it, the first time that anything did.
        """
        asked, whole = _whole(data, len(data)), self._took(data, written)
        while failure is None and written < len(data):
            data = self._rest(data, written)
            try:
                written = os.write(file.descriptor, data)
            except OSError as error:
                written, failure = 0, error
            got = self._took(data, written)
            whole += got
            stuck = got == 0 if self._regular else written == 0
            if failure is None and written < len(data) and stuck:
                failure = OSError(errno.EIO, "only a part of it was taken, twice")
        self._records += whole
        self._write_errors += asked - whole
        warned, self._warned = self._warned, self._warned or failure is not None
        return None if warned else failure

    def _took(self, data: bytes, written: int) -> int:
        """Note how the file ends now; return how many records are whole in what was written."""
        if written:
            self._torn = not data.endswith(b"\n", 0, written)
        return _whole(data, written)

    def _rest(self, data: bytes, written: int) -> bytes:
        """Return what is left to write.

        In a regular file a line that was cut begins anew, on a line of its own: another
        thread or process may have appended to the part.
        """
        cut = written > 0 and data[written - 1] != _NEWLINE and data[written] != _NEWLINE
        if not (cut and self._regular):
            return data[written:]
        return b"\n" + data[data.rfind(b"\n", 0, written) + 1 :]

    def _warn(self, failure: OSError | None) -> None:
        if failure is not None:
            # where warnings are errors it is still only counted: a lookup never fails for its trace
            with contextlib.suppress(RuntimeWarning):
                warnings.warn(
                    f"trace record not written to {self.path}: {failure}; the run goes on",
                    RuntimeWarning,
                    stacklevel=5,
                )


class _OpenFile:
    """A descriptor that is closed when the last thread that uses it lets go of it."""

    __slots__ = ("descriptor",)

    def __init__(self, descriptor: int) -> None:
        self.descriptor: Final = descriptor

    def __del__(self) -> None:
        os.close(self.descriptor)


def _whole(data: bytes, written: int) -> int:
    """Count the records in the part that was written; one that lacks its newline alone is whole.

    The reader takes it. A newline at the very begin ends what was there before.
    """
    return data.count(b"\n", data[:1] == b"\n", written + 1)


def _ends_torn(path: Path) -> bool:
    """Whether a regular file lacks its last newline: a process was killed in a write."""
    try:
        with path.open("rb") as file:
            if file.seek(0, os.SEEK_END) == 0:
                return False
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
    except OSError:  # append-only permission: nothing to be learnt, the reader copes
        return False
