"""Appending to a trace, one write a lookup."""

from __future__ import annotations

import contextlib
import os
import stat
import threading
import warnings
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Final

from forwardscope.trace.record import TraceEvent

__all__ = ["TraceWriter"]


class TraceWriter:
    """Appends records to a JSONL file; with no path, does nothing.

    A record is one append to a file opened with O_APPEND, done before `write`
    returns: on a local file system a killed process loses no record that it
    had written, and several processes can share a file. A write that fails
    never raises; it is counted, warned of once, and the next line starts clean.
    Safe under threads.

    Args:
        path: Where to append; parent folders are made. None turns tracing off.

    Raises:
        OSError: The file cannot be opened for appending.
    """

    def __init__(self, path: str | PathLike[str] | None) -> None:
        self.path: Final = None if path is None else Path(path)
        self._lock = threading.Lock()
        self._fd = -1
        self._torn = False
        self._records = 0
        self._write_errors = 0
        self._warned = False
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
            self._fd = os.open(self.path, flags, 0o644)
            self._torn = _ends_torn(self.path)

    @property
    def enabled(self) -> bool:
        """Whether a write would reach a file."""
        return self._fd >= 0

    @property
    def records(self) -> int:
        """Records that are whole in the file."""
        return self._records

    @property
    def write_errors(self) -> int:
        """Records that could not be written, or not whole."""
        return self._write_errors

    def write(self, event: TraceEvent) -> None:
        """Append one record."""
        if self._fd >= 0:
            self.write_lines(event.to_line(), 1)

    def write_batch(self, events: Sequence[TraceEvent]) -> None:
        """Append several records with one write, in order."""
        if self._fd >= 0 and events:
            self.write_lines(b"".join(event.to_line() for event in events), len(events))

    def write_lines(self, lines: bytes, count: int) -> None:
        """Append `count` records that are lines already, each with its newline, in one write."""
        with self._lock:
            if self._fd < 0:
                return
            data = b"\n" + lines if self._torn else lines
            try:
                written, failure = os.write(self._fd, data), None
            except OSError as error:
                written, failure = 0, error
            if written == len(data):
                self._torn = False
                self._records += count
                return
            warn = self._mend(data, written, failure)
        if warn is not None:
            # where warnings are errors it is still only counted: a lookup never fails for its trace
            with contextlib.suppress(RuntimeWarning):
                warnings.warn(
                    f"trace record not written to {self.path}: {warn}; the run goes on",
                    RuntimeWarning,
                    stacklevel=5,
                )

    def close(self) -> None:
        """Close the file; may be called twice, and a later `write` does nothing."""
        with self._lock:
            fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _mend(self, data: bytes, written: int, failure: OSError | None) -> OSError | None:
        """Write the rest of what was written in part, and count what is whole in the file.

        Returns:
            What stopped it, the first time that anything did.
        """
        while failure is None and written < len(data):
            try:
                written += os.write(self._fd, data[written:])
            except OSError as error:
                failure = error
        first = int(self._torn)  # the newline that ends the torn line
        if written:
            self._torn = not data.endswith(b"\n", 0, written)
        # a record that lacks its newline alone is whole: the reader takes it
        whole = data.count(b"\n", first, written + 1)
        self._records += whole
        self._write_errors += data.count(b"\n", first) - whole
        warned, self._warned = self._warned, self._warned or failure is not None
        return None if warned else failure


def _ends_torn(path: Path) -> bool:
    """Whether a regular file lacks its last newline: a process was killed in a write."""
    if not stat.S_ISREG(path.stat().st_mode):
        return False
    try:
        with path.open("rb") as file:
            if file.seek(0, os.SEEK_END) == 0:
                return False
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
    except OSError:  # append-only permission: nothing to be learnt, the reader copes
        return False
