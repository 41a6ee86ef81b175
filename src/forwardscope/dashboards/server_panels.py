"""Panels of the requests to the servers that hold models."""

from __future__ import annotations

from typing import Final

from forwardscope.dashboards.panels import Panel, Thresholds, line_panel, stat_panel
from forwardscope.dashboards.queries import ESTIMATED, RANGE, quantile, rate
from forwardscope.dashboards.run_queries import WHOLE_RUNS, counted
from forwardscope.telemetry import run_names, server_names

__all__ = ["server"]

_DELAY: Final[Thresholds] = ((None, "green"), (1, "yellow"))
_OPERATION: Final = "server, operation"
_NAME: Final = "{{server}} {{operation}}"
#: Why the panels are empty.
_LOCAL: Final = "A model that is in the process has none."


def server() -> tuple[Panel, ...]:
    """Return the panels."""
    return (
        *(requests(), retries(), throttled(), p99_request()),
        *(durations(), outcomes(), repeated()),
    )


# -- in the time range -----------------------------------------------------------------------


def requests() -> Panel:
    """Number of requests."""
    return stat_panel(
        "Requests to the server",
        "Requests in the time range to the servers that hold the models, of all operations. A "
        f"forward call is one request or several of up to 32 prompts. {_LOCAL} {WHOLE_RUNS}",
        counted(run_names.RUN_REQUESTS, server_names.REQUESTS),
        "locale",
        width=6,
    )


def retries() -> Panel:
    """Number of retries."""
    return stat_panel(
        "Retries",
        "Attempts in the time range to send a request again, because the server was busy, failed "
        f"or closed the connection. {WHOLE_RUNS}",
        counted(run_names.RUN_REQUEST_RETRIES, server_names.REQUEST_RETRIES),
        "locale",
        thresholds=_DELAY,
        width=6,
    )


def throttled() -> Panel:
    """Number of throttled answers."""
    return stat_panel(
        "Throttled answers",
        "Answers in the time range that refuse a request because there are too many (429). A "
        f"lower `model.concurrency` has fewer of them. {WHOLE_RUNS}",
        counted(run_names.RUN_REQUEST_THROTTLED, server_names.REQUEST_THROTTLED),
        "locale",
        thresholds=_DELAY,
        width=6,
    )


def p99_request() -> Panel:
    """99th percentile of the duration of a request."""
    return stat_panel(
        "99th percentile of a request",
        "One in a hundred requests in the time range was slower, of all operations. The value is "
        f"interpolated within a bucket. {ESTIMATED}",
        quantile(0.99, server_names.REQUEST_DURATION, RANGE),
        "s",
        width=6,
    )


# -- over time -------------------------------------------------------------------------------


def durations() -> Panel:
    """Quantiles of the duration of a request, by operation."""
    duration = server_names.REQUEST_DURATION
    return line_panel(
        "Duration of a request, by operation",
        "From the first attempt of a request to its last answer, waits before retries included. "
        "completions: the forward passes. tokenize: the tokens of a prompt. "
        "load_lora_adapter: a scaled or random adapter. The values are interpolated within a "
        "bucket. A diamond is one request, with a link to the trace of its forward call.",
        {
            f"{_NAME}: median": quantile(0.5, duration, by=_OPERATION),
            f"{_NAME}: 99 %": quantile(0.99, duration, by=_OPERATION),
        },
        "s",
        width=8,
        exemplars=True,
    )


def outcomes() -> Panel:
    """Requests per second, by operation and outcome."""
    return line_panel(
        "Requests per second, by outcome",
        "Requests by the class of the last status. 4xx: the server refused it, which is how its "
        "limits are found before a run. 5xx: it failed, or stayed busy. unusable: the answer "
        "was too long, compressed or too slow. none: no whole answer.",
        {"{{operation}}: {{outcome}}": rate(server_names.REQUESTS, by="operation, outcome")},
        "suffix:/s",
        width=8,
    )


def repeated() -> Panel:
    """Retries and throttled answers per second, by server."""
    return line_panel(
        "Retries and throttled answers per second",
        "Retries: attempts to send a request again. Throttled: requests that are refused because "
        "there are too many. Retries without throttled answers are of a server that is busy, "
        "fails, restarts or loses connections.",
        {
            "{{server}}: retries": rate(server_names.REQUEST_RETRIES, by="server"),
            "{{server}}: throttled": rate(server_names.REQUEST_THROTTLED, by="server"),
        },
        "suffix:/s",
        width=8,
    )
