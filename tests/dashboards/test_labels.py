"""Metrics and labels are found in a query, and labels that its metrics do not have."""

from __future__ import annotations

import pytest

from forwardscope.dashboards.labels import Walk
from forwardscope.dashboards.promql import parsed

_KNOWN = {
    "passes": frozenset({"job", "backend", "op"}),
    "lookups": frozenset({"job", "backend", "op", "result"}),
    "info": frozenset({"job", "run_id"}),
    "time_bucket": frozenset({"job", "op", "le"}),
}


def walked(query: str) -> tuple[str | None, Walk]:
    """Return the labels of a query's result, sorted, and the walk over the query."""
    walk = Walk(_KNOWN)
    labels = walk.labels(parsed(query))
    return None if labels is None else " ".join(sorted(labels)), walk


@pytest.mark.parametrize(
    ("query", "labels"),
    [
        ("1", ""),
        ("vector(time())", ""),
        ("passes", "backend job op"),
        ("-(passes)", "backend job op"),
        ("max_over_time(passes[5m:1m])", "backend job op"),
        ("rate(passes[5m]) * 1000", "backend job op"),
        ("sum(passes)", ""),
        ("sum by (op, job) (passes)", "job op"),
        ("sum without (op) (passes)", "backend job op"),
        ("topk by (job) (3, passes)", "backend job op"),
        ('count_values by (job) ("version", passes)', "job version"),
        ("quantile by (op) (0.5, passes)", "op"),
        ("passes / ignoring (result) lookups", "backend job op result"),
        ("passes * on (job) group_left (run_id) info", "backend job op run_id"),
        ("info * on (job) group_right (run_id) passes", "backend job op run_id"),
        ("passes or info", "backend job op run_id"),
        ("histogram_quantile(0.9, sum by (le, op) (rate(time_bucket[5m])))", "le op"),
        ('label_replace(passes, "kind", "$1", "op", "(.*)")', "backend job kind op"),
        ('label_join(info, "both", "-", "job", "run_id")', "both job run_id"),
        ('{__name__=~"passes|info", job="x"}', "backend job op run_id"),
        ('{__name__="info"}', "job run_id"),
        ("up", None),
        ("passes or up", None),
        ("info(passes)", None),
        ("sum by (job) (up)", "job"),
        ('{job="x"}', None),
        ('{__name__=~"pass.*"}', None),
        ("sum by (job, $by) (passes)", "__variable_by job"),
    ],
)
def test_labels_of_a_result(query: str, labels: str | None) -> None:
    """The labels of a result derive from those of its metrics; None if those are unknown."""
    found, walk = walked(query)
    assert found == labels
    assert walk.problems == []


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ('passes{result="hit"}', "passes: there is no label result, only backend, job, op"),
        ('passes{bakend!=""}', "did you mean backend?"),
        ('{__name__=~"passes|info", rsult=""}', "passes or info: there is no label rsult"),
        ('passes{job="x" or rsult="y"}', "there is no label rsult"),
        ("sum by (result) (passes)", "sum by (result): there is no label result"),
        ("sum without (result) (passes)", "sum without (result): there is no label result"),
        ("topk by (result) (3, passes)", "topk by (result): there is no label result"),
        ("max by (op) (sum by (job) (passes))", "there is no label op, only job"),
        ("max by (op) (sum(passes))", "there is no label op, none at all"),
        ("passes / on (result) info", "operands of /: there is no label result"),
        ("passes / ignoring (run_id) lookups", "operands of /: there is no label run_id"),
        ("passes * on (job) group_left (suite) info", "operands of *: there is no label suite"),
        ("info * on (job) group_right (suite) passes", "operands of *: there is no label suite"),
        ('topk(scalar(info{a=""}), passes)', "info: there is no label a"),
    ],
)
def test_a_label_that_does_not_exist(query: str, message: str) -> None:
    """The message has the place, the labels that exist and the closest one."""
    (problem,) = walked(query)[1].problems
    assert message in problem


@pytest.mark.parametrize(
    "query",
    [
        'up{a="b"}',
        "sum by (a) (up)",
        "sum by (__name__, job) (passes)",
        "passes * on (job) group_left (a) up",
        'sum by (a) (label_replace(passes, "a", "x", "", ""))',
        "sum by ($a) (passes)",
    ],
)
def test_no_false_alarm(query: str) -> None:
    """Labels of other programs' metrics, of variables and of functions are accepted."""
    assert walked(query)[1].problems == []


def test_metrics() -> None:
    """A walk collects the metrics of a query, and its selectors without a name."""
    walk = walked('sum(passes) / on () (up{a="b"} or {job="x"}) or {__name__=~"info|passes"}')[1]
    assert walk.metrics == {"passes", "up", "info", '{job="x"}'}
