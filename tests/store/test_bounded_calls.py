"""Calls whose waits have an end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from forwardscope.store.bounded_calls import BoundedCalls

_WAIT_S = 60.0


def test_a_call_has_its_result() -> None:
    """What a call returns or raises comes to the caller."""
    calls = BoundedCalls()
    assert calls.run(lambda: 1, _WAIT_S) == 1
    with pytest.raises(ZeroDivisionError):
        calls.run(lambda: 1 // 0, _WAIT_S)


def test_a_wait_ends_before_its_call() -> None:
    """A call that does not end costs its timeout; later calls have threads of their own."""
    calls, go = BoundedCalls(), threading.Event()
    with pytest.raises(TimeoutError):
        calls.run(lambda: go.wait(_WAIT_S), 0.01)
    assert calls.run(lambda: 1, _WAIT_S) == 1
    go.set()


def test_a_late_result_is_dropped() -> None:
    """The result of a call that was not waited for is in no other call."""
    calls, go, ended = BoundedCalls(), threading.Event(), threading.Event()

    def late() -> str:
        assert go.wait(_WAIT_S)
        ended.set()
        return "late"

    with pytest.raises(TimeoutError):
        calls.run(late, 0.01)
    go.set()
    assert ended.wait(_WAIT_S)
    assert [calls.run(lambda n=n: n, _WAIT_S) for n in range(20)] == list(range(20))  # type: ignore[misc]


def test_calls_share_threads() -> None:
    """Calls one after another need one thread; calls at once have one each."""
    calls = BoundedCalls()
    assert len({calls.run(threading.get_ident, _WAIT_S) for _ in range(20)}) == 1
    assert calls.run(lambda: calls.run(threading.get_ident, _WAIT_S), _WAIT_S) != calls.run(
        threading.get_ident, _WAIT_S
    )


def test_an_interrupted_call_leaves_no_thread(at_moment: Callable[..., bool]) -> None:
    """After Ctrl-C at any moment of a call, its thread ends as any other."""

    def stop() -> None:
        raise KeyboardInterrupt

    before = _running()
    calls, moment, more = BoundedCalls(idle_s=0.2), 0, True
    while more:
        assert calls.run(lambda: 1, _WAIT_S) == 1
        more = at_moment(moment, stop, lambda: calls.run(lambda: 1, _WAIT_S))
        moment += 1
    assert calls.run(lambda: 2, _WAIT_S) == 2
    due = time.monotonic() + _WAIT_S
    while _running() - before and time.monotonic() < due:
        time.sleep(0.05)
    assert not _running() - before


def _running() -> set[threading.Thread]:
    """Return the threads that have started and not ended."""
    return {one for one in threading.enumerate() if one.is_alive()}
