"""Alerts on telemetry of suites that does not arrive, and on rules that do not run."""

from __future__ import annotations

from typing import Final

from forwardscope.dashboards.rules import Alert
from forwardscope.dashboards.suite_alert import NAME, NEWEST_RUN, SUITE, links, max_by_suite
from forwardscope.telemetry import run_names
from forwardscope.telemetry.delivery import JOB

__all__ = ["alerts"]

#: Age of the metrics file of an active run, which is written every ten seconds. It is more
#: than the usual intervals between scrapes of node_exporter.
_FILE_AGE_S: Final = 300
#: Time without a scrape after which the Pushgateway is gone.
_GATEWAY_GONE: Final = "5m"
#: Error of the start time of a process, which the kernel counts from its own boot.
_START_ERROR_S: Final = 5

_PUSHED: Final = f'push_time_seconds{{job="{JOB}"}}'
_PUSH_FAILED: Final = f'push_failure_time_seconds{{job="{JOB}"}}'
_BUILD: Final = "pushgateway_build_info"


def alerts() -> list[Alert]:
    """Return the alerts on the delivery of telemetry."""
    return [
        _push_rejected(),
        _push_lost(),
        _no_gateway(),
        _metrics_file_stale(),
        _spans_dropped(),
        _trace_write_errors(),
        _rules_failed(),
    ]


# -- Pushgateway -------------------------------------------------------------------------------


def _push_rejected() -> Alert:
    return Alert(
        "PushFailed",
        f"max by ({SUITE}) ({_PUSH_FAILED})\n> max by ({SUITE}) ({_PUSHED})",
        "1m",
        "critical",
        f"The Pushgateway rejects {NAME}",
        "The Pushgateway rejected a push at {{ $value | humanizeTimestamp }} and has accepted "
        "none since. The metrics of the suite are out of date.",
        {"reason": "rejected"},
        links(),
    )


def _push_lost() -> Alert:
    return Alert(
        "PushFailed",
        f"({_last_seen()}\n  unless ({_deleted()} == {_last_seen()}))\n"
        f"< on () group_left () {_START_ERROR_S} + max({_gateway_starts()})",
        "1m",
        "critical",
        f"The Pushgateway has lost {NAME}",
        "The Pushgateway restarted without the metrics that it had at {{ $value | "
        "humanizeTimestamp }}. No alert on the suite can fire until its next run.",
        {"reason": "lost"},
        links(),
    )


def _no_gateway() -> Alert:
    return Alert(
        "PushFailed",
        f"count(last_over_time({_BUILD}[7d]))\n"
        f"unless count(last_over_time({_BUILD}[{_GATEWAY_GONE}]))",
        "1m",
        "critical",
        "No Pushgateway is scraped",
        "Prometheus has scraped {{ $value }} Pushgateways in the past 7 days and none in the last "
        "5 minutes, so no alert on a suite that pushes can fire.",
        {"reason": "gateway"},
    )


def _last_seen() -> str:
    """Return when each suite that a gateway had within a day, and no longer has, was scraped."""
    scraped = f"max_over_time(timestamp({_PUSHED})[1d:1m])"
    return f"max by ({SUITE}) ({scraped} unless on ({SUITE}) {_PUSHED})"


def _deleted() -> str:
    """Return when each suite was scraped last before it was deleted.

    Deleted means: gone since a minute ago, with every gateway of then still the same process.
    """
    now, before = _gateway_starts(), _gateway_starts(" offset 1m")
    gone = f"timestamp({_PUSHED} offset 1m) unless {_PUSHED}"
    gone = f"{gone} unless on () ({before} unless {now} == {before})"
    return f"max by ({SUITE}) (max_over_time(({gone})[1d:1m]))"


def _gateway_starts(offset: str = "") -> str:
    return f"(process_start_time_seconds{offset} and on (job, instance) {_BUILD}{offset})"


# -- files, spans and rules --------------------------------------------------------------------


def _metrics_file_stale() -> Alert:
    written = f"{run_names.RUN_START.name} + {run_names.RUN_WALL.name}"
    return Alert(
        "MetricsFileStale",
        f"max by ({SUITE}) (\n"
        f"  time() - ({written} and {run_names.RUN_ACTIVE.name} == 1)\n"
        "  and on (job, instance) node_textfile_scrape_error\n"
        f") > {_FILE_AGE_S}",
        "1m",
        "critical",
        f"{NAME} does not write its metrics file",
        "The file says that the run is active, and was written {{ $value | humanizeDuration }} "
        "ago. The process was killed, or cannot write the file.",
        links=links(NEWEST_RUN),
    )


def _spans_dropped() -> Alert:
    return Alert(
        "SpansDropped",
        f"{max_by_suite(run_names.RUN_SPANS_DROPPED)} > 0",
        "1m",
        "warning",
        f"{NAME} has lost spans",
        "{{ $value }} spans of the newest run were not delivered. Its OpenTelemetry trace has "
        "gaps. Its results are complete.",
        links=links(NEWEST_RUN),
    )


def _trace_write_errors() -> Alert:
    return Alert(
        "TraceWriteErrors",
        f"{max_by_suite(run_names.RUN_TRACE_WRITE_ERRORS)} > 0",
        "1m",
        "warning",
        f"{NAME} has lost lines of its JSONL trace",
        "{{ $value }} lookups of the newest run are missing in its JSONL trace. Its results are "
        "complete.",
        links=links(NEWEST_RUN),
    )


def _rules_failed() -> Alert:
    failures = 'prometheus_rule_evaluation_failures_total{rule_group=~".*forwardscope-.*"}'
    return Alert(
        "RulesFailed",
        f"sum by (rule_group) (increase({failures}[15m])) > 0",
        "1m",
        "critical",
        "Prometheus cannot evaluate {{ $labels.rule_group }}",
        'In the last 15 minutes {{ printf "%.0f" $value }} evaluations of the group failed. Its '
        "alerts cannot fire. The page Rules of Prometheus has the error.",
    )
