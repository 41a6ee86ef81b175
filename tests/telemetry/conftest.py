"""Telemetry that only remembers, for each test its own."""

from __future__ import annotations

import pytest

from forwardscope.testing import InMemoryTelemetry


@pytest.fixture
def telemetry() -> InMemoryTelemetry:
    """Return spans and metrics in memory, timed by a clock that moves by itself."""
    return InMemoryTelemetry()
