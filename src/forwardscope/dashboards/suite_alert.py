"""What the alerts on suites have in common: their name, their gauges, and their links."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from forwardscope.telemetry import run_names
from forwardscope.telemetry.names import Metric

__all__ = [
    "FAILED_RUN",
    "NAME",
    "NEWEST_RUN",
    "SUITE",
    "dashboard",
    "links",
    "max_by_suite",
    "min_by_suite",
    "results",
]

#: Labels of a suite.
SUITE: Final = "suite, model"
#: Name of a suite in the text of an alert.
NAME: Final = "{{ $labels.suite }} on {{ $labels.model }}"

_OF_SUITE: Final = "{suite=%q, model=%q}"
#: Queries of the runs that an alert is about, for `links`.
NEWEST_RUN: Final = f"{run_names.RUN_INFO.name}{_OF_SUITE}"
FAILED_RUN: Final = (
    f"{NEWEST_RUN} and on (job, instance, suite, model) {run_names.RUN_ACTIVE.name} == 0 "
    f"unless on (job, instance, suite, model) {run_names.RUN_PASSED.name} == 1"
)


def max_by_suite(metric: Metric) -> str:
    """Return the largest value of a gauge by suite and model, of all targets that export it."""
    return f"max by ({SUITE}) ({metric.name})"


def min_by_suite(metric: Metric) -> str:
    """Return the smallest value of a gauge: 0 if one of several runs at once has 0."""
    return f"min by ({SUITE}) ({metric.name})"


def results(query: str) -> str:
    """Return the part of a template that asks for the alert's suite and model."""
    return f"query (printf `{query}` $labels.suite $labels.model)"


def links(run: str | None = None, board: str = "runs") -> dict[str, str]:
    """Return the annotations of an alert that lead to its dashboard and to its run.

    Args:
        run: Query of `forwardscope_run_info`, or of another metric with its labels;
            several runs at once are separated by spaces.
        board: The dashboard, the last part of its uid.
    """
    found = dashboard(board, {"suite": "suite", "model": "model"})
    if run is not None:
        found |= {name: _each(run, name) for name in ("run_id", "trace_id")}
    return found


def dashboard(board: str, variables: Mapping[str, str]) -> dict[str, str]:
    """Return the annotation with the path of a dashboard in Grafana.

    Args:
        board: The last part of the dashboard's uid.
        variables: The label with the value of each of the dashboard's variables.
    """
    chosen = [
        f"var-{name}={{{{ $labels.{label} | urlquery }}}}" for name, label in variables.items()
    ]
    return {"dashboard": f"/d/forwardscope-{board}?{'&'.join(chosen)}"}


def _each(query: str, label: str) -> str:
    value = f"{{{{ if $n }}}} {{{{ end }}}}{{{{ $one.Labels.{label} }}}}"
    return f"{{{{ range $n, $one := {results(query)} }}}}{value}{{{{ end }}}}"
