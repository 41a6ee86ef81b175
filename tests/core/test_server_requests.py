"""Counts of the requests to a model server."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from forwardscope.core.ledger import Exemplar
from forwardscope.core.server_requests import Exchange, ServerRequests

_ONE = Exchange("completions", 0.5, 1, 0, 200)


@pytest.fixture
def requests() -> ServerRequests:
    """Return the counts of a server without requests."""
    return ServerRequests("http://server:8000", "server", 8000)


class _Seconds(float):
    """Seconds with an addition in Python, in which threads can switch."""

    def __radd__(self, other: float) -> float:
        return float(other) + float(self)


@pytest.mark.parametrize(
    ("status", "failed", "outcome"),
    [
        (200, False, "2xx"),
        (200, True, "unusable"),
        (307, True, "3xx"),
        (429, True, "4xx"),
        (503, True, "5xx"),
        (600, True, "unusable"),
        (199, True, "unusable"),
        (None, True, "none"),
    ],
)
def test_outcomes(status: int | None, failed: bool, outcome: str) -> None:
    """They are few, whatever a server answers."""
    assert Exchange("models", 0.1, 1, 0, status, failed).outcome == outcome


def test_requests_are_counted_by_operation(requests: ServerRequests) -> None:
    """Attempts after the first are retries, however the request ends."""
    for one in (
        _ONE,
        Exchange("completions", 4.0, 3, 2, 429, True),
        Exchange("models", 1, 2, 0, 200),
    ):
        requests.add(one)
    counts = requests.snapshot()
    assert counts.outcomes == {
        ("completions", "2xx"): 1,
        ("completions", "4xx"): 1,
        ("models", "2xx"): 1,
    }
    assert counts.retries == {"completions": 2, "models": 1}
    assert counts.throttled == {"completions": 2, "models": 0}
    assert {name: (one.count, one.total) for name, one in counts.durations.items()} == {
        "completions": (2, 4.5),
        "models": (1, 1.0),
    }
    assert (counts.requests, counts.failed) == (3, 1)


def test_counts_of_completions_begin_at_zero(requests: ServerRequests) -> None:
    """A scraper sees the first request as an increase."""
    counts = requests.snapshot()
    assert counts.outcomes == {("completions", "2xx"): 0}
    assert counts.retries == counts.throttled == {"completions": 0}
    assert counts.durations["completions"].count == 0


def test_a_snapshot_stays_as_it_is(requests: ServerRequests) -> None:
    """Later requests do not change it."""
    before = requests.snapshot()
    requests.add(_ONE, Exemplar("a" * 32, 0.5, 1.0))
    assert (before.requests, before.durations["completions"].count) == (0, 0)
    assert not any(before.durations["completions"].exemplars)
    assert any(requests.snapshot().durations["completions"].exemplars)


@pytest.mark.timeout(900)
@pytest.mark.usefixtures("fast_switching")
def test_counts_are_exact_and_complete_under_threads(
    requests: ServerRequests, together: Any
) -> None:
    """No request is lost, and a snapshot has each request completely or not at all."""
    threads, each = 16, 50

    def work(_: int) -> bool:
        complete = True
        for _ in range(each):
            requests.add(Exchange("completions", _Seconds(1.0), 2, 1, 200))
            counts = requests.snapshot()
            seen = counts.durations["completions"]
            numbers = {seen.count, seen.total, counts.requests, counts.retries["completions"]}
            complete = complete and len(numbers) == 1
        return complete

    assert all(together(threads, work))
    assert requests.snapshot().requests == threads * each


def test_child_counts_while_its_parent_does(
    requests: ServerRequests, in_thread: Any, in_child: Any
) -> None:
    """A lock that another thread held at the fork is free in the child."""
    began, forked = threading.Event(), threading.Event()

    class Slow(float):
        def __radd__(self, other: float) -> float:
            began.set()
            assert forked.wait(50)
            return float(other) + float(self)

    adding = in_thread(lambda: requests.add(Exchange("completions", Slow(1.0), 1, 0, 200)))
    assert began.wait(30)
    in_child(lambda: requests.add(_ONE))
    forked.set()
    adding.result(timeout=30)
    assert requests.snapshot().requests == 1
