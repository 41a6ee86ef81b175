"""What a metric, a span and an attribute are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from forwardscope.text import printable

__all__ = [
    "Attribute",
    "Metric",
    "Span",
]

#: Characters of a span's name; the rest is cut.
_NAME_LENGTH: Final = 64


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric family.

    Attributes:
        name: Name in PromQL; the name of a counter ends in `_total`.
        kind: Metric type.
        unit: Unit of the values; a base unit is also part of the name.
        help: One-line description for the exposition format.
        labels: Label names, in order.
        example: PromQL query that uses the metric.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    unit: str
    help: str
    labels: tuple[str, ...]
    example: str


@dataclass(frozen=True, slots=True)
class Attribute:
    """One span attribute.

    Attributes:
        name: Attribute key.
        type: Type of the value.
        help: Description of the value.
    """

    name: str
    type: Literal["string", "int", "float", "boolean"]
    help: str


@dataclass(frozen=True, slots=True)
class Span:
    """One kind of span, with its attributes.

    Attributes:
        kind: Value of the label `span` of `forwardscope_spans_total`.
        name: Span name; a word in capitals stands for what differs.
        parent: Description of the parent span.
        help: Description of what the span measures.
        attributes: Attributes that the span can have.
    """

    kind: str
    name: str
    parent: str
    help: str
    attributes: tuple[Attribute, ...]

    def named(self, detail: str | None) -> str:
        """Return the name of one span: the kind and a detail, printable and not too long."""
        return f"{self.kind} {printable(detail)}"[:_NAME_LENGTH] if detail else self.kind
