"""Queries with the variables of dashboards are parsed."""

from __future__ import annotations

import pytest
from promql_parser import VectorSelector

from forwardscope.dashboards.promql import ANY, parsed


@pytest.mark.parametrize(
    "query",
    [
        "rate(a[$__rate_interval])",
        "max_over_time(a[$__range:$__interval])",
        "increase(a[${__range_s}s])",
        "a offset $back",
        'a{x=~"$y", z=~"${w:regex}"} * ${__interval_ms}',
        "quantile(${q}, sum by ($group, le) (a))",
        "topk($n, a) / on (${key}) group_left ($extra) b",
        "sum by (x) ($metric)",
        "rate($metric[5m])",
        '$metric{x="1"}',
        "label_replace(a, '$', \"$1\", `$x`, '(.*)')",
    ],
)
def test_variables_are_replaced(query: str) -> None:
    """A duration, a number, a label or a metric replaces each variable, as its context needs."""
    parsed(query)


def test_a_variable_in_a_name() -> None:
    """The name of the metric is marked as unknown."""
    tree = parsed("forwardscope_${what}_total")
    assert isinstance(tree, VectorSelector)
    assert tree.name is not None
    assert ANY in tree.name


def test_a_variable_in_a_label_value() -> None:
    """A string is not changed."""
    tree = parsed('a{x="$y"}')
    assert isinstance(tree, VectorSelector)
    assert [one.value for one in tree.matchers.matchers] == ["$y"]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("sum(", "unclosed left parenthesis"),
        ("a b", "invalid promql"),
        ("nosuch(a)", "unknown function"),
        ("(" * 50_000 + "a" + ")" * 50_000, "it has 100001 characters, more than 5000"),
    ],
    ids=["open", "half", "unknown", "deep"],
)
def test_an_invalid_query(query: str, message: str) -> None:
    """The error has the reason; a query that is too long is not parsed."""
    with pytest.raises(ValueError, match=message):
        parsed(query)
