"""Samples of the requests to the model servers of backends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from forwardscope.core.server_requests import ServerRequests
from forwardscope.telemetry import server_names
from forwardscope.telemetry.families import add_histogram, add_sample
from forwardscope.telemetry.names import Metric

if TYPE_CHECKING:
    from prometheus_client import Metric as Family

__all__ = ["add_requests"]


def add_requests(
    families: Mapping[Metric, Family], backend: str, requests: ServerRequests | None
) -> None:
    """Add the samples of a backend's requests; none for a backend without a server.

    Args:
        families: Families by metric; the samples are added to them.
        backend: Name of the backend.
        requests: Its counts.
    """
    if requests is None:
        return
    own, counts = (backend, requests.server), requests.snapshot()
    durations = server_names.REQUEST_DURATION
    for operation, seen in counts.durations.items():
        add_histogram(families[durations], durations, (*own, operation), seen)
    for by_outcome, value in counts.outcomes.items():
        outcomes = server_names.REQUESTS
        add_sample(families[outcomes], outcomes, (*own, *by_outcome), value)
    for metric, values in (
        (server_names.REQUEST_RETRIES, counts.retries),
        (server_names.REQUEST_THROTTLED, counts.throttled),
    ):
        for operation, value in values.items():
            add_sample(families[metric], metric, (*own, operation), value)
