"""Recording rules and alerts for Prometheus, and their YAML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import yaml

__all__ = ["RUNBOOK", "Alert", "Group", "Recording", "as_yaml"]

#: Page with a section for each alert.
RUNBOOK: Final = "https://github.com/forwardscope/forwardscope/blob/main/docs/runbook.md"

_HEADER = "# Written by `make dashboards` from src/forwardscope/dashboards; edit it there.\n"


@dataclass(frozen=True, slots=True)
class Recording:
    """A query whose result Prometheus stores under a new metric name.

    Attributes:
        record: The new name, as level:metric:operation.
        expr: The query.
    """

    record: str
    expr: str

    def as_dict(self) -> dict[str, Any]:
        """Return the fields of a Prometheus rule file."""
        return {"record": self.record, "expr": self.expr}


@dataclass(frozen=True, slots=True)
class Alert:
    """A query that has a result while something is wrong.

    Attributes:
        name: Name of the alert and of its section in the runbook.
        expr: The query.
        pending: How long the query must have a result before the alert fires. A minute, or
            at least ten: after a restart Prometheus continues the latter where they were, and
            with the former the alert is back before Alertmanager takes it for resolved.
        severity: `critical`: a run failed, stalls, is missing or cannot report, or values are
            wrong. `warning`: it cost too much, had errors or lost telemetry.
        summary: One line, which may contain labels.
        description: A sentence with the value; it may add the next step.
        labels: Additional labels.
        links: Additional annotations, by name: where to look.
        hold: How long it fires on after its query has no result, so that half a minute
            without the gateway, a target or Prometheus ends no alert.
    """

    name: str
    expr: str
    pending: str
    severity: Literal["critical", "warning"]
    summary: str
    description: str
    labels: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    hold: str = "5m"

    def as_dict(self) -> dict[str, Any]:
        """Return the fields of a Prometheus rule file."""
        return {
            "alert": self.name,
            "expr": self.expr,
            "for": self.pending,
            "keep_firing_for": self.hold,
            "labels": {"severity": self.severity, **self.labels},
            "annotations": {
                "summary": self.summary,
                "description": self.description,
                "runbook_url": f"{RUNBOOK}#{self.name.lower()}",
                **self.links,
            },
        }


@dataclass(frozen=True, slots=True)
class Group:
    """Rules that Prometheus evaluates in order; a rule may use the results of earlier ones.

    Attributes:
        name: Name of the group.
        rules: The rules, in order.
        interval: Evaluation interval; None is the global one.
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
