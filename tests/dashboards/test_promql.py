"""Queries are parsed as a dashboard has them, with its variables in them."""

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
def test_variables_are_filled_in(query: str) -> None:
    """Each stands for what its place asks: a duration, a number, a label or a metric."""
    parsed(query)


def test_a_part_of_a_name_leaves_it_open() -> None:
    """A metric whose name has a variable in it may be any."""
    tree = parsed("forwardscope_${what}_total")
    assert isinstance(tree, VectorSelector)
    assert tree.name is not None
    assert ANY in tree.name


def test_labels_values_are_left_alone() -> None:
    """A variable in quotes is no variable of PromQL."""
    tree = parsed('a{x="$y"}')
    assert isinstance(tree, VectorSelector)
    assert [one.value for one in tree.matchers.matchers] == ["$y"]


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("sum(", "unclosed left parenthesis"),
        ("a b", "invalid promql"),
        ("nosuch(a)", "unknown function"),
        ("(" * 50_000 + "a" + ")" * 50_000, "it has 100001 characters, and up to 5000"),
    ],
    ids=["open", "half", "unknown", "deep"],
)
def test_what_is_no_promql(query: str, says: str) -> None:
    """It says why; one that would overflow the parser's stack does not reach it."""
    with pytest.raises(ValueError, match=says):
        parsed(query)
