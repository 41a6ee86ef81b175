"""The queue of a store's writer."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from forwardscope.store.base import NewEntry
from forwardscope.store.counting import StoreCounts
from forwardscope.store.queued_writer import QueuedWriter

from .entries import WAIT_S, new


class _Writer(QueuedWriter[NewEntry, int]):
    """Notes how many entries it writes at once; the first write waits for `go`."""

    def __init__(self) -> None:
        self.counts = StoreCounts("a store")
        self.began, self.go = threading.Event(), threading.Event()
        self.batches: list[int] = []
        super().__init__(self.counts, 64, 0.1)

    def _write(self, changes: Sequence[NewEntry], used: Sequence[int]) -> None:
        del used
        self.began.set()
        assert self.go.wait(WAIT_S)
        self.batches.append(len(changes))

    def _release(self) -> None:
        pass


@pytest.fixture
def writer() -> Iterator[_Writer]:
    """A writer that is writing its first entry."""
    writer = _Writer()
    writer.put([new("first")])
    assert writer.began.wait(WAIT_S)
    yield writer
    writer.go.set()
    writer.close(WAIT_S)


def _entries(number: int, mebibytes: int) -> list[NewEntry]:
    """Return entries of a size; their arrays have one element in memory."""
    value = np.broadcast_to(np.zeros(1, np.uint8), (mebibytes << 20,))
    return [new(f"{at}", value) for at in range(number)]


def test_the_queue_is_bounded_by_bytes(writer: _Writer) -> None:
    """Values of more than 256 MiB do not wait; what does not fit is counted as dropped."""
    writer.put(_entries(3, 100))
    writer.put(_entries(1, 100))
    writer.put(_entries(1, 50))
    assert writer.counts.snapshot(0, 0, None).dropped == 2
    writer.go.set()
    assert writer.flush(WAIT_S)
    assert writer.batches == [1, 1, 1, 1]


def test_a_value_of_any_size_is_queued_alone(writer: _Writer) -> None:
    """One that is larger than the bound waits where no other does."""
    writer.put(_entries(2, 300))
    assert writer.counts.snapshot(0, 0, None).dropped == 1


def test_a_batch_is_bounded_by_bytes(writer: _Writer) -> None:
    """Values of at most 8 MiB are written at once, and all that wait are written."""
    writer.put(_entries(10, 3))
    writer.go.set()
    assert writer.flush(WAIT_S)
    assert writer.batches == [1, 2, 2, 2, 2, 2]
