"""Alerts on runs that failed, stall or are missing.

RunFailed and RunStartFailed last until a better run has ended. The others follow the
newest run, also while it is active.
"""

from __future__ import annotations

from typing import Final

from forwardscope.dashboards.rules import Alert
from forwardscope.dashboards.run_recordings import WALL, latest
from forwardscope.dashboards.suite_alert import (
    FAILED_RUN,
    NAME,
    NEWEST_RUN,
    SUITE,
    links,
    max_by_suite,
    min_by_suite,
    results,
)
from forwardscope.telemetry import run_names

__all__ = ["alerts"]

#: Time without a lookup after which an active run is stalled.
_STALLED_S: Final = 600
#: The same as a share of the wall time of the last complete run, if that is longer.
_STALLED_SHARE: Final = 0.25
#: Age of the newest run at which the next one is missing, in periods of the suite.
_LATE: Final = 1.5

_FAILED_PROBES: Final = (
    run_names.PROBE_VERDICT.name + '{suite=%q, model=%q, verdict=~"fail|error"} == 1'
)


def alerts() -> list[Alert]:
    """Return the alerts on runs."""
    return [_run_start_failed(), _run_failed(), _run_stalled(), _run_missing(), _forward_errors()]


def _run_start_failed() -> Alert:
    return Alert(
        "RunStartFailed",
        f"max by ({SUITE}) ({run_names.RUN_END.name} and {run_names.RUN_STARTED.name} == 0)",
        "1m",
        "critical",
        f"{NAME} could not start",
        "The run that ended at {{ $value | humanizeTimestamp }} has no verdict: its model or "
        "adapter could not be loaded, a file or port could not be opened, or it was stopped "
        "before that. Its output has the reason.",
        links=links(),
    )


def _run_failed() -> Alert:
    end, success = max_by_suite(run_names.RUN_END), max_by_suite(run_names.RUN_LAST_SUCCESS)
    passed = min_by_suite(run_names.RUN_PASSED)
    probes = (
        f"{{{{ with {results(_FAILED_PROBES)} }}}} Probes of the newest run:{{{{ range . }}}} "
        "{{ .Labels.probe }} ({{ .Labels.verdict }}){{ end }}.{{ end }}"
    )
    return Alert(
        "RunFailed",
        # each run by itself: another one, at the same time, may have passed or not started
        f"max by ({SUITE}) ({run_names.RUN_END.name} and {run_names.RUN_PASSED.name} == 0 "
        f"unless {run_names.RUN_STARTED.name} == 0)\n"
        f"or ({end} > {success}\nor {end} unless {success}) unless {passed}",  # older runs
        "1m",
        "critical",
        f"{NAME} did not pass",
        "The run that ended at {{ $value | humanizeTimestamp }} was interrupted, one of its probes "
        "failed or had an error, or a value of its store was wrong. Its report and the dashboard "
        "Runs have the verdicts." + probes,
        links=links(FAILED_RUN),
    )


def _run_stalled() -> Alert:
    progress, active = run_names.RUN_PROGRESS.name, run_names.RUN_ACTIVE.name
    idle = f"max by ({SUITE}) (time() - ({progress} and {active} == 1))"
    return Alert(
        "RunStalled",
        f"{idle} > {_STALLED_S}\nunless {idle} <= {_STALLED_SHARE} * {latest(WALL)}",
        "1m",
        "critical",
        f"{NAME} makes no progress",
        "The newest run is active and has completed no lookup for {{ $value | humanizeDuration }}. "
        "The process hangs, was killed, or computes a very long forward pass.",
        links=links(NEWEST_RUN),
    )


def _run_missing() -> Alert:
    started, period = max_by_suite(run_names.RUN_START), max_by_suite(run_names.RUN_PERIOD)
    return Alert(
        "RunMissing",
        f"time() - {started} > {_LATE} * {period}",
        "1m",
        "critical",
        f"{NAME} is overdue",
        "The newest run began {{ $value | humanizeDuration }} ago, which is more than "
        f"{_LATE} periods of the suite.",
        links=links(NEWEST_RUN),
    )


def _forward_errors() -> Alert:
    return Alert(
        "ForwardErrors",
        f"{max_by_suite(run_names.RUN_ERRORS)} > 0",
        "1m",
        "warning",
        f"{NAME} has failed forward passes",
        "{{ $value }} forward passes of the newest run failed. Its JSONL trace has the exceptions.",
        links=links(NEWEST_RUN, "forward-passes"),
    )
