"""A flight is current while its compute runs, and keeps the token counts of its prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextvars import ContextVar
from typing import Any

import numpy as np
import pytest

from forwardscope.core.single_flight import Flight

InThread = Callable[[Callable[[], Any]], "Future[Any]"]

_setting: ContextVar[str] = ContextVar("setting", default="outside")


def test_a_new_flight_has_computed_nothing() -> None:
    """Its lock is free, and it has neither keys nor times."""
    flight = Flight(3)
    assert not flight.lock.locked()
    assert (flight.generation, flight.entries, flight.waiters) == (3, {}, 0)
    assert (list(flight.keys), flight.start_ns, flight.end_ns) == ([], 0, 0)
    assert (flight.error, flight.trace_id, flight.token_counts()) == (None, None, [])


def test_current_flight_is_the_innermost() -> None:
    """Inside of nested computes it is the inner one, and the outer one again after it."""
    outer, inner = Flight(0), Flight(0)
    assert Flight.current() is None
    seen = outer.run(lambda: (Flight.current(), inner.run(Flight.current), Flight.current()))
    assert seen == (outer, inner, outer)
    assert Flight.current() is None


def test_current_flight_after_an_exception() -> None:
    """It ends with the compute however that ends, and the exception comes out unchanged."""
    outer, raised = Flight(0), KeyboardInterrupt()

    def fail() -> None:
        raise raised

    def compute() -> Flight | None:
        with pytest.raises(KeyboardInterrupt) as caught:
            Flight(0).run(fail)
        assert caught.value is raised
        return Flight.current()

    assert outer.run(compute) is outer
    assert Flight.current() is None


def test_current_flight_is_of_one_thread(in_thread: InThread) -> None:
    """A thread that a compute starts is not inside of it."""
    seen = Flight(0).run(lambda: in_thread(Flight.current).result(timeout=30))
    assert seen is None


@pytest.mark.parametrize("fails", [False, True])
def test_compute_runs_in_a_copy_of_the_context(fails: bool) -> None:
    """It sees what its caller has set, and what it sets itself ends with it."""
    seen = []

    def compute() -> str:
        seen.append(_setting.get())
        _setting.set("inside")
        if fails:
            raise ZeroDivisionError
        return _setting.get()

    token = _setting.set("caller's")
    try:
        if fails:
            with pytest.raises(ZeroDivisionError):
                Flight(0).run(compute)
        else:
            assert Flight(0).run(compute) == "inside"
        assert (seen, _setting.get()) == (["caller's"], "caller's")
    finally:
        _setting.reset(token)


def _counts(tokens: Any, reused: Any = None, size: int = 2) -> list[tuple[int | None, int | None]]:
    flight = Flight(0)
    flight.keys, flight.tokens, flight.reused = range(size), tokens, reused
    return flight.token_counts()


def _failing() -> Iterable[int]:
    yield 1
    raise OSError("a device is gone")


def test_without_a_report_there_are_no_counts() -> None:
    """Each prompt has neither tokens nor reused tokens, also where only these were reported."""
    assert _counts(None) == [(None, None)] * 2
    assert _counts(None, [1, 2]) == [(None, None)] * 2


@pytest.mark.parametrize("kind", [list, tuple, iter, np.array, lambda each: map(np.int64, each)])
def test_counts_of_any_kind_are_read(kind: Callable[[list[int]], Any]) -> None:
    """Sequences, iterators, arrays and their scalars become integers of Python."""
    counts = _counts(kind([5, 7]), kind([0, 3]))
    assert counts == [(5, 0), (7, 3)]
    assert all(type(count) is int for both in counts for count in both)
    assert _counts(kind([5, 7])) == [(5, None), (7, None)]


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ([], [None, None]),
        ([5], [5, None]),
        ([5, 7, 9], [5, 7]),
        ([-1, 7], [0, 7]),
        ([5.9, True], [5, 1]),
        ([5, None], [None, None]),
        ([5, object()], [None, None]),
        ([float("nan"), 7], [None, None]),
        (object(), [None, None]),
        (3, [None, None]),
        (np.array(3), [None, None]),
        (np.zeros((2, 2)), [None, None]),
    ],
)
def test_counts_that_do_not_fit(tokens: Any, expected: list[int | None]) -> None:
    """Missing ones are None, surplus ones ignored, negative ones 0; garbage makes all None."""
    assert [count for count, _ in _counts(tokens)] == expected
    assert [count for _, count in _counts([1, 1], tokens)] == expected


def test_counts_that_fail_while_they_are_read() -> None:
    """An exception of what was reported fails no lookup."""
    assert _counts(_failing()) == [(None, None)] * 2
    assert _counts([1, 2], _failing()) == [(1, None), (2, None)]
