"""Example queries of docs/telemetry.md that are meant for alerts, as promtool evaluates them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from forwardscope.telemetry import run_names

from .processes import program

_LABELS = '{suite="s", model="m"}'


def test_forward_passes_alert_after_a_run_that_needs_more(tmp_path: Path) -> None:
    """The example is not true during a first run or after it, but after a run of more passes."""
    passes, complete = run_names.RUN_FORWARD_PASSES, run_names.RUN_COMPLETE
    rule = {"alert": "Passes", "expr": passes.example}
    series = {  # a run of 100 passes, and an hour later one of 200, each scraped five times
        passes.name: "0 25 50 75 100x55 0 50 100 150 200x56",
        complete.name: "0 0 0 0 1x55 0 0 0 0 1x56",
    }
    expected = {f"{minute}m": [] for minute in (1, 2, 3, 4, 5, 30, 60, 61, 63)}
    expected["64m"] = [{"exp_labels": {"suite": "s", "model": "m"}}]
    tests = {
        "rule_files": ["rules.json"],
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    {"series": name + _LABELS, "values": values} for name, values in series.items()
                ],
                "alert_rule_test": [
                    {"eval_time": at, "alertname": "Passes", "exp_alerts": alerts}
                    for at, alerts in expected.items()
                ],
            }
        ],
    }
    groups = {"groups": [{"name": "example", "rules": [rule]}]}
    (tmp_path / "rules.json").write_text(json.dumps(groups))  # JSON is YAML
    (tmp_path / "tests.json").write_text(json.dumps(tests))
    command = [program("promtool"), "test", "rules", tmp_path / "tests.json"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
