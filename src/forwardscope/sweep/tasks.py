"""What a sweep gives its workers and gets back: text and numbers alone, so that it can travel."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Measured", "Task"]


@dataclass(frozen=True, slots=True)
class Task:
    """One adapter to measure.

    Attributes:
        index: Its position in the sweep.
        adapter: Folder or hub id.
        label: Its short name, unique in the sweep.
        key: Digest of all that determines its result; a finished result of this key is kept.
        trace: File to which each lookup appends a line; on the machine of the worker.
    """

    index: int
    adapter: str
    label: str
    key: str
    trace: str


@dataclass(frozen=True, slots=True)
class Measured:
    """What became of a task.

    Attributes:
        index: Position of the adapter in the sweep.
        result: The run's `SuiteResult`, as JSON; None if it could not run.
        error: Why it could not run, in one sentence; None if it did.
        error_type: Class of that error.
        worker: Name of the worker.
        notes: What a reader of the sweep should know beside the result.
    """

    index: int
    result: str | None = None
    error: str | None = None
    error_type: str | None = None
    worker: str = ""
    notes: tuple[str, ...] = ()
