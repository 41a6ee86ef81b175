"""The labels that a query's result can have, and labels in the query that do not exist."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Final

from promql_parser import (
    AggModifierType,
    AggregateExpr,
    BinaryExpr,
    Call,
    Expr,
    LabelModifierType,
    Matcher,
    MatchOp,
    MatrixSelector,
    NumberLiteral,
    ParenExpr,
    StringLiteral,
    SubqueryExpr,
    UnaryExpr,
    ValueType,
    VectorMatchCardinality,
    VectorSelector,
)

from forwardscope.dashboards.promql import ANY

__all__ = ["Labels", "Walk", "did_you_mean"]

#: Labels that a series can have; None if they are unknown.
Labels = frozenset[str] | None

_NONE: Final[Labels] = frozenset()
#: Aggregations that select series and keep their labels.
_CHOOSING: Final = ("topk", "bottomk", "limitk", "limit_ratio")
_FROM_BUCKETS: Final = ("histogram_quantile", "histogram_fraction")
_SORTING: Final = ("sort_by_label", "sort_by_label_desc")
_PLAIN_CHOICE: Final = re.compile(r"[\w:]+(\|[\w:]+)*")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return the end of a message: the closest known word as a suggestion, or ""."""
    near = get_close_matches(word, sorted(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


class Walk:
    """A walk over the syntax tree of one query.

    Attributes:
        metrics: Names of the metrics in the query.
        unnamed: Selectors whose metric is unknown.
        problems: Messages about labels that do not exist.
    """

    def __init__(self, labels_of: Callable[[str], Labels]) -> None:
        self.metrics: set[str] = set()
        self.unnamed: set[str] = set()
        self.problems: list[str] = []
        self._labels_of = labels_of

    def labels(self, expr: Expr) -> Labels:
        """Return the labels that the result of an expression can have; a number has none."""
        match expr:
            case NumberLiteral() | StringLiteral():
                return _NONE
            case ParenExpr() | UnaryExpr() | SubqueryExpr():
                return self.labels(expr.expr)
            case VectorSelector():
                return self._selector(expr)
            case MatrixSelector():
                return self._selector(expr.vector_selector)
            case AggregateExpr():
                return self._aggregate(expr)
            case BinaryExpr():
                return self._binary(expr)
            case Call():
                return self._call(expr)
        return None

    def require(self, wanted: Iterable[str], given: Labels, where: str) -> None:
        """Add a problem for each wanted label that is not among the given ones."""
        for label in wanted:
            if given is None or label in given or label == "__name__" or ANY in label:
                continue
            has = f"only {', '.join(sorted(given))}" if given else "none at all"
            self.problems.append(
                f"{where}: there is no label {label}, {has}{did_you_mean(label, given)}"
            )

    def _selector(self, selector: VectorSelector) -> Labels:
        groups = [selector.matchers.matchers, *selector.matchers.or_matchers]
        matchers = [one for group in groups for one in group]
        names = [selector.name] if selector.name else _names(matchers)
        if not names:
            self.unnamed.add(str(selector))
        self.metrics.update(names)
        labels = _either(*map(self._labels_of, names)) if names else None
        self.require((one.name for one in matchers), labels, " or ".join(names))
        return labels

    def _aggregate(self, expr: AggregateExpr) -> Labels:
        inner, operation, kept = self.labels(expr.expr), str(expr.op), _NONE
        if isinstance(expr.param, Expr):
            self.labels(expr.param)
        if expr.modifier is not None:
            named, by = expr.modifier.labels, expr.modifier.type == AggModifierType.By
            where = f"{operation} {'by' if by else 'without'} ({', '.join(named)})"
            self.require(named, inner, where)
            kept = frozenset(named) if by else _without(inner, named)
        if operation in _CHOOSING:
            return inner
        if operation == "count_values" and isinstance(expr.param, StringLiteral):
            return _either(kept, frozenset({expr.param.val}))
        return kept

    def _binary(self, expr: BinaryExpr) -> Labels:
        left, right = self.labels(expr.lhs), self.labels(expr.rhs)
        if _is_number(expr.lhs) or _is_number(expr.rhs):
            return right if _is_number(expr.lhs) else left
        matched = self._matched(expr, left, right)
        match str(expr.op):
            case "or":
                return _either(left, right)
            case "and" | "unless":
                return left
        modifier = expr.modifier
        brought = frozenset((modifier and modifier.group_labels) or ())
        if modifier and modifier.card == VectorMatchCardinality.ManyToOne:
            self.require(brought, right, "group_left")
            return _either(left, brought)
        if modifier and modifier.card == VectorMatchCardinality.OneToMany:
            self.require(brought, left, "group_right")
            return _either(right, brought)
        return matched

    def _matched(self, expr: BinaryExpr, left: Labels, right: Labels) -> Labels:
        """Return the labels by which the two sides are matched."""
        matching = expr.modifier.matching if expr.modifier else None
        both = right if left is None else left if right is None else left & right
        if matching is None:
            return both
        named = ", ".join(matching.labels)
        if matching.type == LabelModifierType.Exclude:
            self.require(matching.labels, _either(left, right), f"ignoring ({named})")
            return _without(both, matching.labels)
        self.require(matching.labels, left, f"left of on ({named})")
        self.require(matching.labels, right, f"right of on ({named})")
        return frozenset(matching.labels)

    def _call(self, expr: Call) -> Labels:
        name, answers = expr.func.name, [self.labels(one) for one in expr.args]
        kinds = zip(expr.func.arg_types, answers, strict=False)
        series = [one for kind, one in kinds if kind in (ValueType.Vector, ValueType.Matrix)]
        words = [one.val for one in expr.args if isinstance(one, StringLiteral)]
        if name in ("scalar", "vector") or not series:
            return _NONE
        if name == "label_replace":
            self.require(filter(None, words[2:3]), series[0], name)
            return _either(series[0], frozenset(words[:1]))
        if name == "label_join":
            self.require(words[2:], series[0], name)
            return _either(series[0], frozenset(words[:1]))
        if name in _FROM_BUCKETS:
            self.require(["le"], series[0], name)
            return _without(series[0], ["le"])
        if name in _SORTING:
            self.require(words, series[0], name)
        return None if name == "info" else series[0]


def _names(matchers: Iterable[Matcher]) -> list[str]:
    """Return the metrics that matchers of `__name__` allow, if they list names literally."""
    for one in matchers:
        if one.name == "__name__" and one.op == MatchOp.Equal:
            return [one.value]
        if one.name == "__name__" and one.op == MatchOp.Re and _PLAIN_CHOICE.fullmatch(one.value):
            return one.value.split("|")
    return []


def _either(*sides: Labels) -> Labels:
    known = [side for side in sides if side is not None]
    return frozenset().union(*known) if len(known) == len(sides) else None


def _without(labels: Labels, some: Iterable[str]) -> Labels:
    return None if labels is None else labels.difference(some)


def _is_number(expr: Expr) -> bool:
    match expr:
        case NumberLiteral():
            return True
        case ParenExpr() | UnaryExpr():
            return _is_number(expr.expr)
        case BinaryExpr():
            return _is_number(expr.lhs) and _is_number(expr.rhs)
        case Call():
            return bool(expr.func.return_type == ValueType.Scalar)
    return False
