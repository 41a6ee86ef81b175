"""Fixtures of the telemetry tests."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from forwardscope.testing import InMemoryTelemetry


@pytest.fixture
def telemetry() -> InMemoryTelemetry:
    """Return spans and metrics in memory, with a clock that advances at each reading."""
    return InMemoryTelemetry()


@pytest.fixture
def registry() -> CollectorRegistry:
    """Return an empty registry."""
    return CollectorRegistry()
