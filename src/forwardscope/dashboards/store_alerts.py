"""Alerts on the stores of suites: values that were found wrong, and failures."""

from __future__ import annotations

from forwardscope.dashboards.rules import Alert
from forwardscope.dashboards.suite_alert import NAME, NEWEST_RUN, links, max_by_suite
from forwardscope.telemetry import run_names

__all__ = ["alerts"]


def alerts() -> list[Alert]:
    """Return the alerts on stores."""
    return [_stored_value_mismatch(), _store_errors()]


def _stored_value_mismatch() -> Alert:
    return Alert(
        "StoredValueMismatch",
        f"{max_by_suite(run_names.RUN_STORE_MISMATCHES)} > 0",
        "1m",
        "critical",
        f"{NAME} has found wrong values in its store",
        "{{ $value }} stored values of the newest run did not agree when they were computed "
        "again, so the run used the computed ones. It verifies a share alone: others that it used "
        "may be wrong.",
        links=links(NEWEST_RUN),
    )


def _store_errors() -> Alert:
    errors, corrupt = (
        max_by_suite(run_names.RUN_STORE_ERRORS),
        max_by_suite(run_names.RUN_STORE_CORRUPT),
    )
    return Alert(
        "StoreErrors",
        f"{errors} + {corrupt} > 0",
        "1m",
        "warning",
        f"{NAME} has a store that fails",
        "{{ $value }} operations of the newest run on its store failed or found a damaged entry. "
        "What the store could not answer was computed, so the results are complete.",
        links=links(NEWEST_RUN),
    )
