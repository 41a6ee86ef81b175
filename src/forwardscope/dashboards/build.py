"""Write the dashboards and rules: python -m forwardscope.dashboards.build FOLDER."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from forwardscope.dashboards import (
    cost_alerts,
    delivery_alerts,
    run_alerts,
    run_recordings,
    server_alerts,
    service_rules,
    store_alerts,
)
from forwardscope.dashboards.forward_passes import forward_passes
from forwardscope.dashboards.overview import overview
from forwardscope.dashboards.rules import Group, as_yaml
from forwardscope.dashboards.runs import runs
from forwardscope.dashboards.sdk import JSONEncoder
from forwardscope.dashboards.sweep import sweep

__all__ = ["generated"]


def generated() -> dict[str, str]:
    """Return the text of each generated file by its path under `dashboards/`."""
    return _dashboards() | _rules()


def _dashboards() -> dict[str, str]:
    models = {
        "overview": overview(),
        "forward-passes": forward_passes(),
        "runs": runs(),
        "sweep": sweep(),
    }
    return {
        f"grafana/{name}.json": json.dumps(model, cls=JSONEncoder, indent=2, sort_keys=True) + "\n"
        for name, model in models.items()
    }


def _rules() -> dict[str, str]:
    """Return the rule files. The alerts on suites and those on services are separate."""
    on_runs = [
        alert
        for rules in (cost_alerts, run_alerts, server_alerts, store_alerts, delivery_alerts)
        for alert in rules.alerts()
    ]
    files = {
        "recording": as_yaml(
            Group("forwardscope-runs", run_recordings.recordings(), interval="30s"),
            Group("forwardscope-services", service_rules.recordings(), interval="1m"),
        ),
        "alerts-runs": as_yaml(Group("forwardscope-run-alerts", on_runs)),
        "alerts-services": as_yaml(Group("forwardscope-service-alerts", service_rules.alerts())),
    }
    return {f"prometheus/{name}.yml": text for name, text in files.items()}


def _write(folder: Path) -> None:
    for name, text in generated().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    _write(Path(sys.argv[1]))
