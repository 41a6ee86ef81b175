"""Check that this version exports each metric and label that dashboards and rules use.

Needs the extra `dashboards`: pip install 'forwardscope[dashboards]'.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from forwardscope.dashboards.reading import Query
from forwardscope.errors import MissingExtraError
from forwardscope.telemetry.names import METRICS, TRACER, Metric

if importlib.util.find_spec("promql_parser") is None:
    raise MissingExtraError("promql-parser", "dashboards")

from forwardscope.dashboards.labels import Labels, Walk, did_you_mean
from forwardscope.dashboards.promql import ANY, parsed

__all__ = ["Finding", "Report", "check"]

#: Labels that Prometheus adds to each scraped series.
_SCRAPED: Final = ("job", "instance")
#: Prefix of the names of forwardscope's metrics; names of recorded metrics contain it.
_OURS: Final = f"{TRACER}_"
#: Similarity to a known name from which an unknown name counts as misspelt.
_SLIP: Final = 0.9


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem in a query.

    Attributes:
        query: The query.
        says: The problem, in one sentence.
    """

    query: Query
    says: str


@dataclass(frozen=True, slots=True)
class Report:
    """The queries that were checked, and the problems in them.

    Attributes:
        queries: All queries, in order.
        metrics: Metrics in the queries that this version exports.
        recorded: Metrics in the queries that rules record.
        foreign: Metrics in the queries that belong to other programs and are not checked.
        findings: The problems, in the order of the queries.
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
        queries: The queries to check; each may use the names that rules among them record.
        recorded: Rules to assume as loaded if none of the queries records anything.
        added: Labels that every series has in addition to `job` and `instance`.
        version: The version of forwardscope, for the findings.
    """
    ours = [query for query in queries if query.record]
    catalogue = _Catalogue(ours or [query for query in recorded if query.record], added)
    asked: set[str] = set()
    unnamed: set[str] = set()
    findings: list[Finding] = []
    for query in queries:
        walk, problems = catalogue.walk(query)
        for name in sorted(walk.metrics):
            if catalogue.misses(name):
                absent = f"not exported by forwardscope {version}"
                absent = "recorded by no rule" if ":" in name else absent
                problems.append(f"{name} is {absent}{did_you_mean(name, catalogue.known)}")
        asked |= {name for name in walk.metrics if ANY not in name}
        unnamed |= walk.unnamed
        findings.extend(Finding(query, says) for says in dict.fromkeys(problems))
    return Report(
        queries,
        metrics=frozenset(asked & catalogue.exported),
        recorded=frozenset(asked & catalogue.recorded),
        foreign=frozenset(unnamed.union(filter(catalogue.is_foreign, asked))),
        findings=findings,
    )


class _Catalogue:
    """All known metrics, with their labels."""

    def __init__(self, rules: Iterable[Query], added: Iterable[str]) -> None:
        everywhere = frozenset((*_SCRAPED, *added))
        self._labels: dict[str, Labels] = {
            name: everywhere.union(labels)
            for metric in METRICS
            for name, labels in _series(metric).items()
        }
        self._rules: dict[str, list[Query]] = {}
        for rule in rules:
            self._rules.setdefault(rule.record, []).append(rule)
        self.exported, self.recorded = frozenset(self._labels), frozenset(self._rules)
        self.known = self.exported | self.recorded

    def walk(self, query: Query) -> tuple[Walk, list[str]]:
        """Return the walk over a query, and the problems in it."""
        walk = Walk(self.labels_of)
        try:
            walk.require(query.shown, walk.labels(parsed(query.text)), "legend or text")
        except ValueError as error:
            return walk, [f"it is no PromQL: {error}" if query.text else "it has no expr"]
        except RecursionError:
            return walk, ["it is nested too deeply to be looked at"]
        return walk, walk.problems

    def labels_of(self, name: str) -> Labels:
        """Return the labels of a metric; for a recorded one, those of its rule's result."""
        if name not in self._labels and name in self._rules:
            self._labels[name] = None  # ends the recursion of a rule that uses its own name
            self._labels[name] = self._run_data(self._rules[name])
        return self._labels.get(name)

    def misses(self, name: str) -> bool:
        """Return whether a name resembles those of forwardscope but is unknown."""
        if name in self.known or ANY in name:
            return False
        return _OURS in name or bool(get_close_matches(name, self.known, n=1, cutoff=_SLIP))

    def is_foreign(self, name: str) -> bool:
        """Return whether a metric belongs to another program."""
        return name not in self.known and not self.misses(name)

    def _run_data(self, rules: Iterable[Query]) -> Labels:
        found: frozenset[str] = frozenset()
        for rule in rules:
            try:
                labels = Walk(self.labels_of).labels(parsed(rule.text))
            except (ValueError, RecursionError):  # reported for the rule itself
                return None
            if labels is None:
                return None
            found |= labels.union(rule.adds)
        return found


def _series(metric: Metric) -> dict[str, tuple[str, ...]]:
    """Return the labels of each series of a metric, by the series' name in PromQL."""
    if metric.kind != "histogram":
        return {metric.name: metric.labels}
    return {
        f"{metric.name}_sum": metric.labels,
        f"{metric.name}_count": metric.labels,
        f"{metric.name}_bucket": (*metric.labels, "le"),
    }
