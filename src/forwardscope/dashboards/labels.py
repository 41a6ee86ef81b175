"""Find the metrics and labels in a query, and labels that its metrics do not have.

The labels of a result are overestimated: they are those of all series in the query, except
where an aggregation drops them. So no correct query has a problem, but some wrong ones have
none either.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Final

import promql_parser as promql

from forwardscope.dashboards.promql import ANY

__all__ = ["Labels", "Walk", "did_you_mean"]

#: Labels that a series can have; None if they are unknown.
Labels = frozenset[str] | None

#: Aggregations that select series and keep their labels.
_SELECTING: Final = ("topk", "bottomk", "limitk", "limit_ratio")
_LIST_OF_NAMES: Final = re.compile(r"[\w:]+(\|[\w:]+)*")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return the end of a message that suggests the closest known word, or ""."""
    near = get_close_matches(word, sorted(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


class Walk:
    """A walk over the syntax tree of one query.

    Attributes:
        metrics: The metrics in the query; for a selector without a metric name, its text.
        problems: Messages about labels that do not exist.
    """

    def __init__(self, known: Mapping[str, Labels]) -> None:
        self.metrics: set[str] = set()
        self.problems: list[str] = []
        self._known = known

    def labels(self, expr: promql.Expr) -> Labels:
        """Return the labels that the result of an expression can have."""
        match expr:
            case promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
                return self.labels(expr.expr)
            case promql.VectorSelector():
                return self._selector(expr)
            case promql.MatrixSelector():
                return self._selector(expr.vector_selector)
            case promql.AggregateExpr():
                return self._aggregate(expr)
            case promql.BinaryExpr():
                return self._binary(expr)
            case promql.Call():
                labels = _union(*map(self.labels, expr.args))
                if expr.func.name == "info":  # it adds labels of another metric
                    return None
                # the first string of label_replace and label_join is the label that they add
                return _union(labels, _strings(expr.args)[:1])
        return frozenset()

    def require(self, wanted: Iterable[str], given: Labels, where: str) -> None:
        """Add a problem for each wanted label that is not among the given ones."""
        for label in wanted:
            if given is None or label in given or label == "__name__" or ANY in label:
                continue
            has = f"only {', '.join(sorted(given))}" if given else "none at all"
            self.problems.append(
                f"{where}: there is no label {label}, {has}{did_you_mean(label, given)}"
            )

    def _selector(self, selector: promql.VectorSelector) -> Labels:
        groups = [selector.matchers.matchers, *selector.matchers.or_matchers]
        matchers = [matcher for group in groups for matcher in group]
        names = [selector.name] if selector.name else _names(matchers) or [str(selector)]
        self.metrics.update(names)
        labels = _union(*map(self._known.get, names))
        self.require((matcher.name for matcher in matchers), labels, " or ".join(names))
        return labels

    def _aggregate(self, expr: promql.AggregateExpr) -> Labels:
        inner, operation, modifier = self.labels(expr.expr), str(expr.op), expr.modifier
        named = modifier.labels if modifier else []
        without = modifier is not None and modifier.type == promql.AggModifierType.Without
        where = f"{operation} {'without' if without else 'by'} ({', '.join(named)})"
        self.require(named, inner, where)
        if isinstance(expr.param, promql.Expr):
            self.labels(expr.param)
        remaining = inner if without or operation in _SELECTING else named
        return _union(remaining, _strings([expr.param]))  # the label of count_values

    def _binary(self, expr: promql.BinaryExpr) -> Labels:
        labels = _union(self.labels(expr.lhs), self.labels(expr.rhs))
        if expr.modifier is not None:
            matching = expr.modifier.matching
            named = [*(matching.labels if matching else ()), *(expr.modifier.group_labels or ())]
            self.require(named, labels, f"operands of {expr.op}")
        return labels


def _names(matchers: Iterable[promql.Matcher]) -> list[str]:
    """Return the metrics that matchers of `__name__` allow, if they list names literally."""
    for matcher in matchers:
        if matcher.name == "__name__" and matcher.op in (promql.MatchOp.Equal, promql.MatchOp.Re):
            return matcher.value.split("|") if _LIST_OF_NAMES.fullmatch(matcher.value) else []
    return []


def _strings(arguments: Iterable[object]) -> list[str]:
    return [one.val for one in arguments if isinstance(one, promql.StringLiteral)]


def _union(*sides: Iterable[str] | None) -> Labels:
    known = [side for side in sides if side is not None]
    return frozenset().union(*known) if len(known) == len(sides) else None
