"""What slow answers and failures of a server may cost, by a clock that the tests move."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator

import pytest

from forwardscope.store.counting import StoreCounts
from forwardscope.store.redis_faults import BUDGET_S, Breaker


class _Server:
    """Answers each operation after a given time, with so many values."""

    def __init__(self) -> None:
        self.now = 0.0
        self.counts = StoreCounts("redis://server")
        reason = "TimeoutError", "the server answers too slowly"
        self.breaker = Breaker(self.counts, lambda _: reason, clock=lambda: self.now)

    def get(self, seconds: float, values: int = 0) -> None:
        def answer() -> list[bytes | None]:
            self.now += seconds
            return [b""] * values + [None]

        self.breaker.run("get", answer)

    def fail(self, seconds: float) -> None:
        def answer() -> None:
            self.now += seconds
            raise OSError

        self.breaker.run("get", answer)

    def cost(self, step: Callable[[], None], most: int = 1000) -> float:
        """Return the time until the server is given up; inf for never."""
        for _ in range(most):
            if self.counts.unavailable:
                return self.now
            step()
        return float("inf")


@pytest.fixture
def server() -> Iterator[_Server]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        yield _Server()


@pytest.mark.parametrize("seconds", [0.041, 0.05, 0.15, 0.75])
def test_slow_answers_cost_the_budget(server: _Server, seconds: float) -> None:
    """However slow, they cost no more than the budget and the last answer."""
    assert server.cost(lambda: server.get(seconds)) < BUDGET_S + seconds


@pytest.mark.parametrize("seconds", [0.0, 0.05])
def test_failures_cost_the_budget(server: _Server, seconds: float) -> None:
    """Also a server that fails at once is given up."""
    assert server.cost(lambda: server.fail(seconds)) < BUDGET_S


@pytest.mark.parametrize(("seconds", "values"), [(0.02, 0), (0.039, 0), (0.09, 8), (0.5, 64)])
def test_answers_in_time_cost_nothing(server: _Server, seconds: float, values: int) -> None:
    """A far server is not given up, nor one whose answers take long as they bring values."""
    assert server.cost(lambda: server.get(seconds, values)) == float("inf")


def test_rare_stalls_do_not_add_up(server: _Server) -> None:
    """One slow answer in a hundred is forgiven; one in four is not."""

    def answers(fast: int) -> None:
        server.get(0.1)
        for _ in range(fast):
            server.get(0.001)

    assert server.cost(lambda: answers(99), 100) == float("inf")
    server.now = 0.0
    assert server.cost(lambda: answers(3)) < 1.5 * BUDGET_S


def test_what_the_run_does_not_wait_for_is_free(server: _Server) -> None:
    """A slow write behind the run costs nothing; one that it waits for does."""

    def write() -> None:
        server.now += 0.5

    for _ in range(100):
        server.breaker.run("put", write, is_awaited=lambda: False)
    assert not server.counts.unavailable
    assert server.cost(lambda: server.breaker.run("put", write), 10) < float("inf")


def test_a_decisive_failure_gives_the_server_up(server: _Server) -> None:
    """The first failure ends it; what follows is not tried."""
    assert server.breaker.run("get", lambda: 1 // 0, is_decisive=True) is None
    assert server.breaker.run("get", lambda: 1) is None
    assert server.breaker.is_open
