"""The wait for a last scrape: one that has all that there is to see."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Metric

from forwardscope.telemetry.endpoint import MetricsEndpoint

from .processes import get, until

InThread = Callable[[Callable[[], Any]], "Future[Any]"]


class Slow:
    """A collector that has read its values long before the scrape is over."""

    def __init__(self) -> None:
        self.read = threading.Event()
        self.go_on = threading.Event()

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> list[Metric]:
        self.read.set()
        assert self.go_on.wait(60)
        return []


@pytest.fixture
def slow() -> Slow:
    return Slow()


@pytest.fixture
def endpoint(slow: Slow) -> Iterator[MetricsEndpoint]:
    registry = CollectorRegistry()
    registry.register(slow)
    endpoint = MetricsEndpoint(registry, "127.0.0.1", 0)
    yield endpoint
    slow.go_on.set()
    endpoint.close()


def test_a_scrape_under_way_is_not_the_last(
    endpoint: MetricsEndpoint, slow: Slow, in_thread: InThread
) -> None:
    """A scrape that read its values before the wait began does not end the wait."""
    scrape = in_thread(lambda: get(endpoint.url))
    assert slow.read.wait(60)
    lingering = in_thread(lambda: endpoint.linger(1.0))
    until(lambda: endpoint._served._waiters, "linger waits")  # type: ignore[attr-defined]
    slow.go_on.set()
    scrape.result(60)
    assert endpoint.scrapes == 1
    assert lingering.result(60) is False


def test_a_scrape_after_the_end_is_the_last(
    endpoint: MetricsEndpoint, slow: Slow, in_thread: InThread
) -> None:
    """A scrape that begins while the wait goes on ends it once it is answered."""
    lingering = in_thread(lambda: endpoint.linger(60.0))
    until(lambda: endpoint._served._waiters, "linger waits")  # type: ignore[attr-defined]
    scrape = in_thread(lambda: get(endpoint.url))
    assert slow.read.wait(60)
    assert not lingering.done()
    slow.go_on.set()
    scrape.result(60)
    assert lingering.result(60) is True
