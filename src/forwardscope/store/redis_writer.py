"""The thread that writes to a server, behind a bounded queue, and renews leases."""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Final, Protocol

from forwardscope.core.forks import reset_in_children
from forwardscope.store.base import NewEntry
from forwardscope.store.codec import UnknownValueError
from forwardscope.store.counting import StoreCounts
from forwardscope.store.redis_entries import pack
from forwardscope.store.redis_leases import RENEW_S

__all__ = ["Change", "Deletion", "Description", "RedisWriter", "Written"]

#: Changes that wait to be written; more are dropped.
_CAPACITY: Final = 1024
#: Changes of one transaction.
_BATCH: Final = 64
_ROUND_S: Final = 0.02
_IDLE_ROUNDS: Final = 100
_POLL_S: Final = 0.001
#: Uses are written so often where nothing else is.
_USES_S: Final = 1.0
_MAX_TOUCHED: Final = 65536


@dataclass(frozen=True, slots=True)
class Deletion:
    """An entry to remove."""

    digest: bytes


@dataclass(frozen=True, slots=True)
class Description:
    """What an identity is made of, as JSON."""

    identity: bytes
    info: str


@dataclass(slots=True)
class _Mark:
    """A place in the queue; `passed` when all before it is written or dropped."""

    passed: bool = False


#: An entry as (digest, packed), or another change.
Written = tuple[bytes, bytes] | Deletion | Description
Change = NewEntry | Deletion | Description


class _Server(Protocol):
    def write(self, changes: Sequence[Written], used: Sequence[bytes]) -> bool:
        """Write changes in one transaction, and note uses; return whether it succeeded."""
        ...

    def renew(self, digests: Sequence[bytes]) -> None:
        """Renew leases."""
        ...

    def release(self, digests: Sequence[bytes]) -> None:
        """Delete leases of this store."""
        ...


class RedisWriter:
    """Writes entries in a thread of its own, and keeps leases while their values are computed.

    The thread starts with the first change or lease and ends when there are none for a
    while. What a failed transaction had is counted as dropped. A forked child begins with
    an empty queue and no leases. At the end of the program the queue is written, unless it
    was closed before.

    Args:
        server: What is written to.
        counts: Where losses are counted.
    """

    def __init__(self, server: _Server, counts: StoreCounts) -> None:
        self._server = server
        self._counts = counts
        self._closed = False
        self.after_fork()
        self._exit_hook = _exit_hook(weakref.ref(self))
        atexit.register(self._exit_hook)
        reset_in_children(self)

    def after_fork(self) -> None:
        """Begin with an empty queue, no thread and no leases."""
        self._lock = threading.RLock()
        self._writing = threading.RLock()
        self._queue: deque[Change | _Mark] = deque()
        self._touched: deque[bytes] = deque(maxlen=_MAX_TOUCHED)
        self._leases: dict[bytes, bool] = {}
        self._renewed = self._uses_written = time.monotonic()
        self._hurry: SimpleQueue[None] = SimpleQueue()
        self._worker: threading.Thread | None = None
        self._flushes = 0

    def is_awaited(self) -> bool:
        """Return whether a flush waits for what is written now."""
        return self._flushes > 0

    def put(self, changes: Sequence[Change]) -> None:
        """Queue changes, or count those that do not fit as dropped."""
        with self._lock:
            closed = self._closed or self._counts.unavailable
            room = 0 if closed else max(0, _CAPACITY - len(self._queue))
            self._queue.extend(changes[:room])
            for change in changes[:room]:
                if isinstance(change, NewEntry) and change.digest in self._leases:
                    self._leases[change.digest] = True
        if lost := changes[room:]:
            self._counts.add("dropped", _entries_in(lost))
        self._ensure_worker()

    def touch(self, digests: Sequence[bytes]) -> None:
        """Note that entries were used, in this order."""
        self._touched.extend(digests)
        self._ensure_worker()

    def hold(self, digests: Sequence[bytes]) -> None:
        """Renew the leases of entries from now on, until they are stored or given up."""
        with self._lock:
            self._leases |= dict.fromkeys(digests, False)
        self._ensure_worker()

    def forget_leases(self, digests: Sequence[bytes]) -> list[bytes]:
        """Renew leases no longer, unless their entries are queued; return them."""
        with self._lock:
            ended = [one for one in digests if self._leases.get(one) is False]
            for one in ended:
                del self._leases[one]
        return ended

    def flush(self, timeout_s: float) -> bool:
        """Wait until all changes and uses so far are written; return whether they are."""
        due = time.monotonic() + timeout_s
        mark = _Mark()
        with self._lock:
            self._queue.append(mark)
            self._flushes += 1
        try:
            return self._wait(mark, due)
        finally:
            with self._lock:
                self._flushes -= 1

    def _wait(self, mark: _Mark, due: float) -> bool:
        self._ensure_worker()
        self._hurry.put(None)
        while not mark.passed:
            if time.monotonic() >= due:
                return False
            if self._worker is None:  # no thread can be started at the end of the program
                self._write_round()
            else:
                time.sleep(_POLL_S)
        return True

    def close(self, timeout_s: float) -> None:
        """Write what is queued, and drop the rest at the timeout; may be called twice."""
        with self._lock:
            closed, self._closed = self._closed, True
        if closed:
            return
        atexit.unregister(self._exit_hook)
        self.flush(timeout_s)
        rest, _ = self._take(2 * _CAPACITY)  # marks too
        self._counts.add("dropped", _entries_in(rest))
        with self._lock:
            held, self._leases = list(self._leases), {}
        if held:
            self._server.release(held)

    def _ensure_worker(self) -> None:
        """Start the thread, unless it runs."""
        if self._worker is not None or self._closed:
            return
        worker = threading.Thread(target=self._work, name="forwardscope-store", daemon=True)
        with self._lock, suppress(RuntimeError):  # too many threads, or the program ends
            if self._worker is None:
                worker.start()
                self._worker = worker

    def _work(self) -> None:
        idle = number = 0
        while True:
            if number < _BATCH:  # else more may wait
                with suppress(Empty):
                    self._hurry.get(timeout=_ROUND_S)
            number = self._write_round()
            self._renew()
            idle = 0 if number or self._leases else idle + 1
            with self._lock:
                is_idle = idle > _IDLE_ROUNDS and not self._leases  # one may be new
                if not self._queue and (is_idle or self._closed):
                    self._worker = None
                    break

    def _write_round(self) -> int:
        """Write changes that wait, and uses; return the number of changes and marks."""
        with self._writing:
            changes, marks = self._take(_BATCH)
            waiting = len(self._touched) if changes or marks or self._uses_are_due() else 0
            used = [self._touched.popleft() for _ in range(waiting)]
            try:
                if changes or used:
                    self._write(changes, used)
            finally:
                for mark in marks:
                    mark.passed = True
        return len(changes) + len(marks)

    def _uses_are_due(self) -> bool:
        """Return whether uses have waited long enough; each write of them takes time from gets."""
        now = time.monotonic()
        due = now - self._uses_written >= _USES_S
        if due:
            self._uses_written = now
        return due

    def _take(self, most: int) -> tuple[list[Change], list[_Mark]]:
        """Take changes and marks from the queue."""
        with self._lock:
            taken = [self._queue.popleft() for _ in range(min(most, len(self._queue)))]
        marks = [one for one in taken if isinstance(one, _Mark)]
        return [one for one in taken if not isinstance(one, _Mark)], marks

    def _write(self, changes: Sequence[Change], used: Sequence[bytes]) -> None:
        """Write a batch; the entries of a failed one are dropped."""
        written = [one for change in changes if (one := self._packed(change)) is not None]
        done = self._server.write(written, used)
        if not done:
            self._counts.add("dropped", sum(isinstance(one, tuple) for one in written))
        stored = {one[0] for one in written if isinstance(one, tuple)} if done else set()
        self._end_leases([one.digest for one in changes if isinstance(one, NewEntry)], stored)

    def _end_leases(self, digests: Sequence[bytes], stored: set[bytes]) -> None:
        """Hold the leases of written entries no longer; release those of entries that are lost."""
        with self._lock:
            held = [one for one in digests if self._leases.pop(one, None) is not None]
        if lost := [one for one in held if one not in stored]:
            self._server.release(lost)

    def _packed(self, change: Change) -> Written | None:
        """Return a change as it is written; None for a value that cannot be, which is counted."""
        if not isinstance(change, NewEntry):
            return change
        try:
            return change.digest, pack(change)
        except UnknownValueError:
            self._counts.add("unsupported")
        except Exception as error:  # noqa: BLE001 - a foreign value may raise anything
            self._counts.add("unsupported")
            self._counts.failed("put", type(error).__name__, "a value cannot be encoded")
        return None

    def _renew(self) -> None:
        with self._lock:
            held = list(self._leases)
        now = time.monotonic()
        if not held:
            self._renewed = now
        elif now - self._renewed >= RENEW_S:
            self._renewed = now
            self._server.renew(held)


def _entries_in(changes: Sequence[Change]) -> int:
    return sum(isinstance(change, NewEntry) for change in changes)


def _exit_hook(writer: weakref.ref[RedisWriter]) -> Callable[[], None]:
    def close() -> None:
        alive = writer()
        if alive is not None:
            alive.close(1.0)

    return close
