"""The labels that a query's answer can have, and those that it names in vain."""

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
    """Return the labels of a query's answer, in order, and the walk over it."""
    walk = Walk(_KNOWN.get)
    labels = walk.labels(parsed(query))
    return None if labels is None else " ".join(sorted(labels)), walk


@pytest.mark.parametrize(
    ("query", "labels"),
    [
        ("1", ""),
        ("time()", ""),
        ("vector(1)", ""),
        ("scalar(passes)", ""),
        ("passes", "backend job op"),
        ("-(passes)", "backend job op"),
        ("max_over_time(passes[5m:1m])", "backend job op"),
        ("rate(passes[5m]) * 1000", "backend job op"),
        ("2 * (3 + 4) * passes", "backend job op"),
        ("scalar(info) * passes", "backend job op"),
        ("time() - passes", "backend job op"),
        ("sum(passes)", ""),
        ("sum by (op, job) (passes)", "job op"),
        ("sum without (op) (passes)", "backend job"),
        ("topk by (job) (3, passes)", "backend job op"),
        ('count_values by (job) ("version", passes)', "job version"),
        ("quantile by (op) (0.5, passes)", "op"),
        ("passes / lookups", "backend job op"),
        ("passes / on (job) info", "job"),
        ("passes / ignoring (result) lookups", "backend job op"),
        ("passes / ignoring (result, op) lookups", "backend job"),
        ("passes * on (job) group_left (run_id) info", "backend job op run_id"),
        ("info * on (job) group_right (run_id) passes", "backend job op run_id"),
        ("passes and on (job) info", "backend job op"),
        ("passes unless info", "backend job op"),
        ("passes or info", "backend job op run_id"),
        ("histogram_quantile(0.9, sum by (le, op) (rate(time_bucket[5m])))", "op"),
        ('label_replace(passes, "kind", "$1", "op", "(.*)")', "backend job kind op"),
        ('label_join(info, "both", "-", "job", "run_id")', "both job run_id"),
        ('{__name__=~"passes|info", job="x"}', "backend job op run_id"),
        ('{__name__="info"}', "job run_id"),
        ("absent(info)", "job run_id"),
        ("up", None),
        ("passes or up", None),
        ("info(passes)", None),
        ("sum by (job) (up)", "job"),
        ("passes / on (job) up", "job"),
        ('{job="x"}', None),
        ('{__name__=~"pass.*"}', None),
        ("sum by (job, $by) (passes)", "__variable_by job"),
    ],
)
def test_labels_of_an_answer(query: str, labels: str | None) -> None:
    """They follow from those of the metrics, and where these are not known there is no guess."""
    found, walk = walked(query)
    assert found == labels
    assert walk.problems == []


@pytest.mark.parametrize(
    ("query", "says"),
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
        ("passes / on (run_id) info", "left of on (run_id): there is no label run_id"),
        ("info / on (op) passes", "left of on (op)"),
        ("passes and on (op) info", "right of on (op)"),
        ("passes / ignoring (run_id) lookups", "ignoring (run_id): there is no label run_id"),
        ("passes * on (job) group_left (suite) info", "group_left: there is no label suite"),
        ("info * on (job) group_right (suite) passes", "group_right: there is no label suite"),
        ('label_replace(passes, "a", "$1", "b", "(.*)")', "label_replace: there is no label b"),
        ('label_join(passes, "a", "", "b")', "label_join: there is no label b"),
        ("histogram_quantile(0.9, sum by (op) (time_bucket))", "histogram_quantile: there is no"),
        ('sort_by_label(passes, "a")', "sort_by_label: there is no label a"),
        ('topk(scalar(info{a=""}), passes)', "info: there is no label a"),
    ],
)
def test_labels_named_in_vain(query: str, says: str) -> None:
    """One complaint says where, what there is instead, and what is near."""
    (problem,) = walked(query)[1].problems
    assert says in problem


@pytest.mark.parametrize(
    "query",
    [
        'up{a="b"}',
        "sum by (a) (up)",
        "sum by (__name__, job) (passes)",
        "passes * on (job) group_left (a) up",
        'label_replace(passes, "a", "x", "", "")',
        "sum by ($a) (passes)",
    ],
)
def test_what_is_not_known_is_accepted(query: str) -> None:
    """Labels of foreign metrics, of variables, and the name itself."""
    assert walked(query)[1].problems == []


def test_metrics_are_told() -> None:
    """All that a query asks for, and the selectors that name none."""
    walk = walked('sum(passes) / on () (up{a="b"} or {job="x"}) or {__name__=~"info|passes"}')[1]
    assert walk.metrics == {"passes", "up", "info"}
    assert walk.unnamed == {'{job="x"}'}
