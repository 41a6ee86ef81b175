"""What Prometheus is told to record and to watch, as plain data, and its YAML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import yaml

__all__ = ["RUNBOOK", "Alert", "Group", "Recording", "as_yaml"]

#: Where each alert has a heading of its own name.
RUNBOOK: Final = "https://github.com/forwardscope/forwardscope/blob/main/docs/runbook.md"

_HEAD = "# Written by `make dashboards` from src/forwardscope/dashboards; edit it there.\n"


@dataclass(frozen=True, slots=True)
class Recording:
    """A query that is kept under a name.

    Attributes:
        record: Its name, level:metric:operation.
        expr: The query.
    """

    record: str
    expr: str

    def as_dict(self) -> dict[str, Any]:
        """Return it as Prometheus reads it."""
        return {"record": self.record, "expr": self.expr}


@dataclass(frozen=True, slots=True)
class Alert:
    """A query that should have no answer.

    Attributes:
        name: Of the alert, and of its heading in the runbook.
        expr: The query.
        lasting: How long it must have an answer before anybody is told.
        severity: `critical` where results are missing, `warning` where they are dear or
            not all of them can be seen.
        summary: One line; it may name labels.
        description: A sentence with the value, and the next step.
        labels: More of them.
    """

    name: str
    expr: str
    lasting: str
    severity: Literal["critical", "warning"]
    summary: str
    description: str
    labels: Mapping[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return it as Prometheus reads it."""
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
    """Rules that are evaluated one after the other, later ones seeing the values of earlier ones.

    Attributes:
        name: Its name.
        rules: In order.
        interval: How often it is evaluated; None is as often as all others.
    """

    name: str
    rules: Sequence[Recording | Alert]
    interval: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it as Prometheus reads it."""
        pace = {} if self.interval is None else {"interval": self.interval}
        return {"name": self.name, **pace, "rules": [rule.as_dict() for rule in self.rules]}


def as_yaml(*groups: Group) -> str:
    """Return the text of a rule file."""
    content = {"groups": [group.as_dict() for group in groups]}
    return _HEAD + yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=10_000)


class _Dumper(yaml.SafeDumper):
    """Writes what has several lines as it is read."""


def _literal(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _literal)
