"""Links from panels to other dashboards and to traces.

The addresses contain Grafana's variables: those of the dashboard, so that a link carries its
time range and choices, and those of the value that is clicked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import quote

from forwardscope.dashboards.queries import VARIABLES
from forwardscope.telemetry import names

__all__ = [
    "JAEGER_URL",
    "Link",
    "links_of_labels",
    "to_forward_passes",
    "to_runs",
    "traces_of_run",
    "traces_of_suite",
]

#: Title and address of a link.
Link = tuple[str, str]

#: Address of Jaeger's own page in the compose stack.
JAEGER_URL: Final = "http://127.0.0.1:16686"
_RUNS, _FORWARD_PASSES = "forwardscope-runs", "forwardscope-forward-passes"
_VALUE: Final = "${__value.raw}"
_VARIABLE: Final = re.compile(r"(\$\{[\w.]+\})")
_SUITE_TAG: Final = names.SUITE_NAME.name


def to_runs(title: str, **values: str) -> Link:
    """Return a link to the dashboard Runs.

    Args:
        title: Title of the link.
        **values: Values of variables; the others keep theirs.
    """
    return title, _dashboard(_RUNS, values)


def to_forward_passes(title: str, **values: str) -> Link:
    """Return a link to the dashboard Forward passes; the arguments are those of `to_runs`."""
    return title, _dashboard(_FORWARD_PASSES, values)


def links_of_labels(labels: Iterable[str]) -> list[Link]:
    """Return the links of a series with these labels, to what else is known of its values."""
    chosen = {name: f"${{__field.labels.{name}}}" for name in VARIABLES if name in labels}
    if "suite" in chosen:
        return [
            to_runs("Runs of this suite", **chosen),
            to_forward_passes("Forward passes of this suite", **chosen),
        ]
    if chosen:
        named = " and ".join(chosen)
        return [to_forward_passes(f"Forward passes of this {named}", **chosen)]
    return [to_runs("Runs"), to_forward_passes("Forward passes")]


def traces_of_run() -> list[Link]:
    """Return the links from a trace id: Grafana with Jaeger or Tempo, and Jaeger's own page."""
    return [
        ("Open in Grafana, from Jaeger", _explore("${jaeger}", {"query": _VALUE})),
        (
            "Open in Grafana, from Tempo",
            _explore("${tempo}", {"queryType": "traceql", "query": _VALUE}),
        ),
        ("Open in Jaeger", f"${{jaeger_url}}/trace/{_VALUE}"),
    ]


def traces_of_suite() -> list[Link]:
    """Return the links from the name of a suite to its traces."""
    tags = f'{_SUITE_TAG}="{_VALUE}"'
    search = {"queryType": "search", "service": names.TRACER, "tags": tags}
    traceql = {"queryType": "traceql", "query": f'{{span.{_SUITE_TAG}="{_VALUE}"}}'}
    return [
        ("Its traces, from Jaeger", _explore("${jaeger}", search)),
        ("Its traces, from Tempo", _explore("${tempo}", traceql)),
    ]


def _dashboard(uid: str, values: Mapping[str, str]) -> str:
    kept = ("datasource", *(name for name in VARIABLES if name not in values))
    parameters = [
        "${__url_time_range}",
        *(f"${{{name}:queryparam}}" for name in kept),
        *(f"var-{name}={value}" for name, value in values.items()),
    ]
    return f"/d/{uid}?{'&'.join(parameters)}"


def _explore(source: str, query: Mapping[str, str]) -> str:
    """Return the page Explore with a query; the value of `panes` is URL-escaped JSON."""
    pane = {
        "datasource": source,
        "queries": [{"refId": "A", **query}],
        "range": {"from": "${__from}", "to": "${__to}"},
    }
    panes = json.dumps({"traces": pane}, separators=(",", ":"))
    parts = _VARIABLE.split(panes)  # Grafana fills in the variables before it reads the address
    escaped = [part if _VARIABLE.fullmatch(part) else quote(part, safe=":,=") for part in parts]
    return f"/explore?schemaVersion=1&orgId=1&panes={''.join(escaped)}"
