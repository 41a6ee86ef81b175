"""The folder of a sweep: its report, and a folder with result and trace for each adapter.

    sweep.json, report.html, store.db
    runs/LABEL/result.json, key, trace.jsonl, report.html

A result counts as finished where the file `key` beside it has the key of the task and the digest
of the result. Both are written atomically and the key last, so that a torn, changed or foreign
file is never taken for a result.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from forwardscope.backends.model_paths import local_path
from forwardscope.errors import OutputError
from forwardscope.files import check_outputs, unwritable, write_file
from forwardscope.suite.result import SuiteResult
from forwardscope.sweep.adapters import Adapters
from forwardscope.sweep.tasks import Task
from forwardscope.text import shown

__all__ = ["SweepFolder"]

#: Maximum bytes of a result, enough for half a million prompts.
_MAX_RESULT: Final = 32 << 20
_MAX_KEY: Final = 1 << 10


class SweepFolder:
    """The folder of a sweep.

    Args:
        path: The folder; made when something is written.

    Attributes:
        path: The folder.
        result: The sweep's result.
        report: Its report, in HTML.
        store: Values that its adapters share, where no other store is named.
    """

    def __init__(self, path: Path) -> None:
        self.path: Final = path
        self.result: Final = path / "sweep.json"
        self.report: Final = path / "report.html"
        self.store: Final = path / "store.db"

    def check(self, adapters: Adapters) -> None:
        """Check that the folder can be written and has no other report, nor an adapter.

        Raises:
            OutputError: It cannot, or it has one.
        """
        if os.path.exists(self.path) and not os.path.isdir(self.path):  # noqa: PTH110, PTH112 - false for a name too long
            raise OutputError(f"{self.path} is not a folder; choose another with -o")
        if os.path.isfile(self.report) and not os.path.isfile(self.result):  # noqa: PTH113 - as above
            raise OutputError(
                f"{shown(str(self.report))} is the report of something else; choose another folder "
                "with -o"
            )
        check_outputs({"sweep": self.result, "report": self.report})
        local = [local_path(place) for place in adapters.places]
        inputs = {os.path.realpath(one) for one in local if one is not None}
        for folder in (self.path, *map(self.of, adapters.labels)):
            if os.path.realpath(folder) in inputs:
                raise OutputError(
                    f"the sweep would be written into the adapter {shown(str(folder))}; choose "
                    "another folder with -o"
                )

    @contextmanager
    def held(self) -> Iterator[None]:
        """Make the folder, and hold it for one sweep until the block ends.

        The system releases the lock of a killed process. Where it locks no folders, nothing is
        locked.

        Raises:
            OutputError: It cannot be made, or another sweep holds it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable("sweep", self.path, error) from error
        with ExitStack() as closing:
            with suppress(OSError, ImportError):
                folder = os.open(self.path, os.O_RDONLY)
                closing.callback(os.close, folder)
                self._lock(folder)
            yield

    def _lock(self, folder: int) -> None:
        import fcntl  # noqa: PLC0415 - not on Windows

        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(
                f"another sweep is writing to {shown(str(self.path))}; wait for its end, or choose "
                "another folder with -o"
            ) from None

    def of(self, label: str) -> Path:
        """Return the folder of an adapter."""
        return self.path / "runs" / label

    def relative(self, label: str) -> str:
        """Return the folder of an adapter as a path inside this one."""
        return self.of(label).relative_to(self.path).as_posix()

    def result_of(self, label: str) -> Path:
        """Return the result of an adapter."""
        return self.of(label) / "result.json"

    def report_of(self, label: str) -> Path:
        """Return the report of an adapter, in HTML."""
        return self.of(label) / "report.html"

    def trace(self, label: str) -> Path:
        """Return the trace of an adapter."""
        return self.of(label) / "trace.jsonl"

    def begin(self, task: Task) -> None:
        """Remove what an earlier run of an adapter left.

        Raises:
            OutputError: It cannot be removed.
        """
        self.discard(task)
        _remove(Path(task.trace))

    def discard(self, task: Task) -> None:
        """Remove an adapter's result, but not its trace.

        Raises:
            OutputError: It cannot be removed.
        """
        for path in (self._key, self.result_of, self.report_of):
            _remove(path(task.label))

    def keep(self, task: Task, result: str, *, finished: bool) -> None:
        """Write the result of an adapter, and then its key if it is finished.

        Raises:
            OutputError: They cannot be written.
        """
        data = result.encode("utf-8", "backslashreplace")
        write_file("result", self.result_of(task.label), data)
        if finished:
            write_file("key", self._key(task.label), f"{task.key} {_digest(data)}\n")

    def finished(self, task: Task) -> SuiteResult | None:
        """Return the finished result of an adapter; None if there is none of this key."""
        try:
            key = _read(self._key(task.label), _MAX_KEY)
            data = _read(self.result_of(task.label), _MAX_RESULT)
            if key.split() != [task.key.encode(), _digest(data).encode()]:
                return None
            return SuiteResult.model_validate_json(data)
        except (OSError, ValueError, ValidationError):  # none, or no result that is whole
            return None

    def _key(self, label: str) -> Path:
        return self.of(label) / "key"


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except NotADirectoryError:
        return
    except OSError as error:
        raise unwritable("sweep", path, error) from error


def _read(path: Path, most: int) -> bytes:
    if not path.is_file():  # a pipe would wait
        raise FileNotFoundError(path)
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"larger than {most} bytes")
    return data


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=32).hexdigest()
