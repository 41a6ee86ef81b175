"""Fixtures of the telemetry tests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from forwardscope.store.base import StoreStats
from forwardscope.testing import InMemoryTelemetry, MemoryStore


class CountingStore(MemoryStore):
    """A store in memory with counts that a test may change.

    Attributes:
        counts: Fields of its `StoreStats`; the others are as they are.
    """

    def __init__(self, name: str = "memory", **counts: Any) -> None:
        super().__init__(name)
        self.counts = counts

    def stats(self) -> StoreStats:
        """Return the counts of now, with those that the test has set."""
        return replace(super().stats(), **self.counts)


@pytest.fixture
def telemetry() -> InMemoryTelemetry:
    """Return spans and metrics in memory, with a clock that advances at each reading."""
    return InMemoryTelemetry()


@pytest.fixture
def registry() -> CollectorRegistry:
    """Return an empty registry."""
    return CollectorRegistry()
