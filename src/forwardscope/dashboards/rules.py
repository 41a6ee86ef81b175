"""Recording rules and alerts of Prometheus as plain data, and their YAML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import yaml

__all__ = ["RUNBOOK", "Alert", "Group", "Recording", "as_yaml"]

#: The document that has a heading for each alert.
RUNBOOK: Final = "https://github.com/forwardscope/forwardscope/blob/main/docs/runbook.md"

_HEADER = "# Written by `make dashboards` from src/forwardscope/dashboards; edit it there.\n"


@dataclass(frozen=True, slots=True)
class Recording:
    """A query whose result Prometheus records under a name.

    Attributes:
        record: The name, as level:metric:operation.
        expr: The query.
    """

    record: str
    expr: str

    def as_dict(self) -> dict[str, Any]:
        """Return the fields of a Prometheus rule file."""
        return {"record": self.record, "expr": self.expr}


@dataclass(frozen=True, slots=True)
class Alert:
    """A query that has a result if something is wrong.

    Attributes:
        name: Name of the alert, and of its heading in the runbook.
        expr: The query.
        lasting: How long the query must have a result before the alert fires.
        severity: `critical` if results are missing, `warning` if they are expensive or
            incomplete in the telemetry.
        summary: One line; it may contain labels.
        description: A sentence with the value, and the next step.
        labels: Additional labels.
    """

    name: str
    expr: str
    lasting: str
    severity: Literal["critical", "warning"]
    summary: str
    description: str
    labels: Mapping[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields of a Prometheus rule file."""
        return {
            "alert": self.name,
            "expr": self.expr,
            "for": self.lasting,
            "labels": {"severity": self.severity, **self.labels},
            "annotations": {
                "summary": self.summary,
                "description": self.description,
                "runbook_url": f"{RUNBOOK}#{self.name.lower()}",
            },
        }


@dataclass(frozen=True, slots=True)
class Group:
    """Rules that Prometheus evaluates in order; later rules see the values of earlier ones.

    Attributes:
        name: Name of the group.
        rules: The rules, in order.
        interval: Evaluation interval; None uses the global one.
    """

    name: str
    rules: Sequence[Recording | Alert]
    interval: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields of a Prometheus rule file."""
        interval = {} if self.interval is None else {"interval": self.interval}
        return {"name": self.name, **interval, "rules": [rule.as_dict() for rule in self.rules]}


def as_yaml(*groups: Group) -> str:
    """Return the text of a rule file."""
    content = {"groups": [group.as_dict() for group in groups]}
    return _HEADER + yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=10_000)


class _Dumper(yaml.SafeDumper):
    """A YAML dumper that writes strings of several lines as literal blocks."""


def _literal(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _literal)
