"""Writer of JSONL traces; each lookup is one append."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import threading
import warnings
from collections.abc import Sequence
from functools import lru_cache
from math import isfinite
from os import PathLike
from pathlib import Path
from typing import Any, Final

from msgspec.structs import astuple

from forwardscope.core.forks import reset_in_children
from forwardscope.trace.record import OPTIONAL, TraceEvent

__all__ = ["TraceWriter", "line_of"]

_NEWLINE = ord("\n")


class TraceWriter:
    """Appends records to a JSONL file; without a path, does nothing.

    The records of a lookup are one append to a file opened with O_APPEND, complete
    before `write` returns. So on a local file system a killed process loses no
    record, and several processes can share a file. A failed write raises nothing: it
    is counted, the first one is a warning, and the next record begins on a new line.
    Safe under threads: one lock is held during a write.

    Args:
        path: The file; parent folders are created. None turns tracing off.

    Raises:
        OSError: The file cannot be opened for appending.
    """

    def __init__(self, path: str | PathLike[str] | None) -> None:
        self.path: Final = None if path is None else Path(path)
        self._file: _OpenFile | None = None
        self._regular = self._torn = False
        self._records = 0
        self._write_errors = 0
        self._warned = False
        self.after_fork()
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
            self._file = _OpenFile(os.open(self.path, flags, 0o666))
            self._regular = stat.S_ISREG(os.fstat(self._file.descriptor).st_mode)
            self._torn = self._regular and _ends_torn(self.path)
            reset_in_children(self)

    def after_fork(self) -> None:
        """Make a lock that no thread holds."""
        self._lock = threading.Lock()

    @property
    def enabled(self) -> bool:
        """Whether a write would reach a file."""
        return self._file is not None

    @property
    def records(self) -> int:
        """Records that are complete in the file."""
        return self._records

    @property
    def write_errors(self) -> int:
        """Records that are missing or incomplete in the file."""
        return self._write_errors

    def write(self, event: TraceEvent) -> None:
        """Append one record."""
        self.write_batch([event])

    def write_batch(self, events: Sequence[TraceEvent]) -> None:
        """Append several records with one write, in order."""
        file = self._file
        if file is None or not events:
            return
        lines = b"".join(map(line_of, events))
        with self._lock:
            torn, self._torn = self._torn, True  # an interrupt may end the write
            data = b"\n" + lines if torn else lines
            written, failure = _write(file, data)
            if written == len(data):
                self._torn = False
                self._records += len(events)
                return
            self._torn = torn
            failure = self._write_rest(file, data, written, failure)
            warned, self._warned = self._warned, self._warned or failure is not None
        if failure is not None and not warned:
            self._warn(failure)

    def close(self) -> None:
        """Close the file; may be called twice, and a later `write` does nothing.

        A write that another thread has begun is completed.
        """
        self._file = None

    def _write_rest(
        self, file: _OpenFile, data: bytes, written: int, failure: OSError | None
    ) -> OSError | None:
        """Write the rest after a partial write, and count the complete records.

        The caller holds the lock.

        Returns:
            The error that stopped the write, or None.
        """
        total, complete = _complete(data, len(data)), self._note_end(data, written)
        while failure is None and written < len(data):
            data = self._rest(data, written)
            written, failure = _write(file, data)
            added = self._note_end(data, written)
            complete += added
            stuck = added == 0 if self._regular else written == 0
            if failure is None and written < len(data) and stuck:
                failure = OSError(errno.EIO, "only a part of the record was written, twice")
        self._records += complete
        self._write_errors += total - complete
        return failure

    def _note_end(self, data: bytes, written: int) -> int:
        """Note whether the file ends in a torn line; return the number of complete records."""
        if written:
            self._torn = not data.endswith(b"\n", 0, written)
        return _complete(data, written)

    def _rest(self, data: bytes, written: int) -> bytes:
        """Return the data that is left to write.

        In a regular file a torn record is written again on a new line, because another
        process may have appended to the torn line.
        """
        cut = written > 0 and data[written - 1] != _NEWLINE and data[written] != _NEWLINE
        if not (cut and self._regular):
            return data[written:]
        return b"\n" + data[data.rfind(b"\n", 0, written) + 1 :]

    def _warn(self, failure: OSError) -> None:
        with contextlib.suppress(RuntimeWarning):  # where warnings are errors, no lookup fails
            warnings.warn(
                f"trace record not written to {self.path}: {failure}; the run goes on",
                RuntimeWarning,
                stacklevel=5,
            )


def line_of(event: TraceEvent) -> bytes:
    """Return a record as one line of ASCII JSON, as `json.dumps` would write it.

    The eight fixed keys come first, in order, and then the optional keys that apply.
    The parts that many records share are cached, which makes the line of a hit four
    times as fast.
    """
    values = astuple(event)
    key, tail = _key_part(*values[1:6]), _tail_part(*values[7:])
    return f'{{"ts": {_json(event.ts)}{key}, "wall_ms": {_json(event.wall_ms)}{tail}}}\n'.encode()


@lru_cache(maxsize=4096, typed=True)
def _key_part(*values: Any) -> str:
    names = ("probe", "view_id", "prompt_hash", "top_k", "op")
    return "".join(map(_member, names, values))


@lru_cache(maxsize=256, typed=True)
def _tail_part(hit: Any, *values: Any) -> str:
    applying = [_member(*one) for one in zip(OPTIONAL, values, strict=True) if one[1] is not None]
    return "".join([_member("hit", hit), *applying])


def _member(name: str, value: Any) -> str:
    return f', "{name}": {_json(value)}'


def _json(value: Any) -> str:
    return repr(value) if type(value) is float and isfinite(value) else _ENCODER.encode(value)


def _plain(value: Any) -> Any:
    """Return a NumPy scalar as a Python number, and any other value as text."""
    return value.item() if hasattr(value, "item") else str(value)


#: Encodes as `json.dumps` does, also values of types that a record should not have.
_ENCODER = json.JSONEncoder(default=_plain)


class _OpenFile:
    """File descriptor that is closed when no thread uses it any more."""

    __slots__ = ("descriptor",)

    def __init__(self, descriptor: int) -> None:
        self.descriptor: Final = descriptor

    def __del__(self) -> None:
        os.close(self.descriptor)


def _write(file: _OpenFile, data: bytes) -> tuple[int, OSError | None]:
    """Write once; return the number of bytes written, and the error or None."""
    try:
        return os.write(file.descriptor, data), None
    except OSError as error:
        return 0, error


def _complete(data: bytes, written: int) -> int:
    """Count the complete records in the first `written` bytes.

    A record that lacks only its newline is complete: the reader accepts it. A newline
    at the start of the data ends an earlier line.
    """
    return data.count(b"\n", data[:1] == b"\n", written + 1)


def _ends_torn(path: Path) -> bool:
    """Return whether a file lacks its last newline, because a process was killed in a write."""
    try:
        with path.open("rb") as file:
            if file.seek(0, os.SEEK_END) == 0:
                return False
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
    except OSError:  # no permission to read; the reader handles a torn line
        return False
