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
            f"{NAME} asks its model's server too often",
            "{{ $value }} answers to the newest run were that the server is asked too often, more "
            "than one for each ten requests. What was asked again and answered is complete, and "
            "took longer.",
            links=links(NEWEST_RUN, "forward-passes"),
        )
    ]
