"""Check that this version exports the metrics and labels in dashboards and rules.

It needs the extra `dashboards`.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from forwardscope.dashboards.reading import Query
from forwardscope.errors import MissingExtraError
from forwardscope.telemetry.names import METRICS, TRACER

if importlib.util.find_spec("promql_parser") is None:
    raise MissingExtraError("promql-parser", "dashboards")

from forwardscope.dashboards.labels import Labels, Walk, did_you_mean
from forwardscope.dashboards.promql import ANY, parsed

__all__ = ["Finding", "Report", "check"]

#: Labels that Prometheus adds to each scraped series.
_SCRAPED: Final = ("job", "instance")
#: Matches metrics of forwardscope, and metrics recorded from them.
_OWN_METRIC: Final = re.compile(rf"[\w:]*{TRACER}_")


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem in a query, with a message of one sentence."""

    query: Query
    message: str


@dataclass(frozen=True, slots=True)
class Report:
    """The queries that were checked, and the problems in them.

    Attributes:
        queries: All queries, in order.
        metrics: Metrics in the queries that this version exports.
        recorded: Metrics in the queries that rules record; their labels are not checked.
        foreign: Metrics in the queries that belong to other programs and are not checked.
        findings: The problems, in order of the queries.
    """

    queries: Sequence[Query]
    metrics: frozenset[str]
    recorded: frozenset[str]
    foreign: frozenset[str]
    findings: Sequence[Finding]


def check(
    queries: Sequence[Query],
    *,
    recorded: Iterable[Query] = (),
    added: Iterable[str] = (),
    version: str,
) -> Report:
    """Compare queries with the metrics that this version exports.

    Args:
        queries: The queries to check; each may use the metrics that rules among them record.
        recorded: Rules that are assumed to be loaded if no query is a recording rule.
        added: Labels that every series has in addition to `job` and `instance`.
        version: The version of forwardscope in messages.
    """
    exported = _exported(added)
    from_rules = {query.record for query in queries if query.record}
    from_rules = from_rules or {query.record for query in recorded if query.record}
    known = exported.keys() | from_rules
    used: set[str] = set()
    findings: list[Finding] = []
    for query in queries:
        walk = _walk(query, exported)
        for name in sorted(name for name in walk.metrics if ANY not in name):
            if name not in known and _OWN_METRIC.match(name):
                absent = f"not exported by forwardscope {version}"
                absent = "recorded by no rule" if ":" in name else absent
                walk.problems.append(f"{name} is {absent}{did_you_mean(name, known)}")
            else:
                used.add(name)
        findings.extend(Finding(query, problem) for problem in dict.fromkeys(walk.problems))
    return Report(
        queries,
        metrics=frozenset(used & exported.keys()),
        recorded=frozenset(used & from_rules),
        foreign=frozenset(used - known),
        findings=findings,
    )


def _exported(added: Iterable[str]) -> dict[str, Labels]:
    """Return the labels of each metric that this version exports, by its name in PromQL."""
    everywhere = frozenset((*_SCRAPED, *added))
    found: dict[str, Labels] = {}
    for metric in METRICS:
        labels = everywhere.union(metric.labels)
        if metric.kind == "histogram":
            found |= {f"{metric.name}_sum": labels, f"{metric.name}_count": labels}
            found[f"{metric.name}_bucket"] = labels | {"le"}
        else:
            found[metric.name] = labels
    return found


def _walk(query: Query, exported: Mapping[str, Labels]) -> Walk:
    walk = Walk(exported)
    try:
        walk.require(query.displayed, walk.labels(parsed(query.text)), "legend or text")
    except ValueError as error:
        walk.problems = [f"it is not PromQL: {error}" if query.text else "it has no expr"]
    except RecursionError:
        walk.problems = ["it is nested too deeply to be checked"]
    return walk
