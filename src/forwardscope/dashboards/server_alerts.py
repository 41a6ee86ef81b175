"""Alerts on the servers that hold the models of suites."""

from __future__ import annotations

from typing import Final

from forwardscope.dashboards.rules import Alert
from forwardscope.dashboards.suite_alert import NAME, NEWEST_RUN, links, max_by_suite
from forwardscope.telemetry import run_names

__all__ = ["alerts"]

#: Allowed throttled answers for each request.
_THROTTLED_SHARE: Final = 0.1


def alerts() -> list[Alert]:
    """Return the alerts on servers."""
    throttled = max_by_suite(run_names.RUN_REQUEST_THROTTLED)
    return [
        Alert(
            "ServerThrottled",
            f"{throttled} > {_THROTTLED_SHARE} * {max_by_suite(run_names.RUN_REQUESTS)}",
            "1m",
            "warning",
            f"{NAME} sends its model's server too many requests",
            "The newest run got {{ $value }} answers that there are too many requests (429), more "
            "than one for ten requests. Requests that were accepted later are complete, and took "
            "longer.",
            links=links(NEWEST_RUN, "forward-passes"),
        )
    ]
