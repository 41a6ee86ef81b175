"""Calls whose waits have an end."""

from __future__ import annotations

import threading

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
