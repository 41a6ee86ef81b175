"""The rules follow the conventions of Prometheus; alerts have test cases and runbook sections."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from forwardscope.dashboards import forward_passes, overview, runs
from forwardscope.dashboards.build import generated
from forwardscope.dashboards.rules import RUNBOOK
from forwardscope.telemetry import run_names
from forwardscope.telemetry.names import BACKEND_METRICS, METRICS
from forwardscope.telemetry.run_names import RUN_METRICS

_ROOT = Path(__file__).parents[2]
_FILES = {name: yaml.safe_load(text) for name, text in generated().items() if name.endswith(".yml")}
_RULES = [
    (name, rule)
    for name, file in _FILES.items()
    for group in file["groups"]
    for rule in group["rules"]
]
_ALERTS = [(name, rule) for name, rule in _RULES if "alert" in rule]
_BOARDS = {one().uid for one in (overview.overview, forward_passes.forward_passes, runs.runs)}
_RECORDED = [rule["record"] for _, rule in _RULES if "record" in rule]


def _identity(rule: dict[str, Any]) -> str:
    return f"{rule['alert']} {rule['labels'].get('reason', '')}".strip()


on_each_alert = pytest.mark.parametrize(
    "rule", [pytest.param(rule, id=_identity(rule)) for _, rule in _ALERTS]
)


def test_alerts() -> None:
    """There are sixteen alerts on suites and seven on services, in separate files, each once."""
    suites = [rule for name, rule in _ALERTS if name == "prometheus/alerts-runs.yml"]
    services = [rule for name, rule in _ALERTS if name == "prometheus/alerts-services.yml"]
    assert {rule["alert"] for rule in suites} == {
        "ForwardPassRegression",
        "ForwardLatencyRegression",
        "CacheHitRateDrop",
        "ForwardErrors",
        "RunStartFailed",
        "RunFailed",
        "RunStalled",
        "RunMissing",
        "SpansDropped",
        "TraceWriteErrors",
        "ServerThrottled",
        "StoredValueMismatch",
        "StoreErrors",
        "PushFailed",
        "MetricsFileStale",
        "RulesFailed",
    }
    assert all(rule["alert"].startswith("Service") for rule in services)
    assert len(services) == 7
    identities = [_identity(rule) for _, rule in _ALERTS]
    assert len(set(identities)) == len(identities) == len(suites) + len(services)


@on_each_alert
def test_alerts_are_described(rule: dict[str, Any]) -> None:
    """Each alert has a severity, a pending period, a summary, its value, and a runbook."""
    assert rule["labels"]["severity"] in {"critical", "warning"}
    annotations = rule["annotations"]
    assert annotations.keys() >= {"summary", "description", "runbook_url"}
    assert not annotations["summary"].endswith(".")
    assert annotations["description"].endswith((".", ".{{ end }}"))
    valued = "$value" in annotations["description"]
    assert valued or rule["expr"].startswith("absent("), "absent() is always 1"


@on_each_alert
def test_alerts_are_continued_after_a_restart(rule: dict[str, Any]) -> None:
    """Prometheus restores alerts pending for ten minutes or more; others are back in a minute."""
    minutes = int(rule["for"].removesuffix("m"))
    assert minutes == 1 or minutes >= 10


@on_each_alert
def test_alerts_lead_to_their_run(rule: dict[str, Any]) -> None:
    """Alerts on a suite or a service lead to a dashboard of ours; those on a run to its trace."""
    annotations = rule["annotations"]
    about = re.findall(r"\$labels\.(\w+)", annotations["summary"])
    if not set(about) - {"rule_group"}:
        return
    board, variables = annotations["dashboard"].removeprefix("/d/").split("?")
    assert board in _BOARDS
    assert set(re.findall(r"var-(\w+)=\{\{ \$labels\.\1 \| urlquery \}\}", variables)) == set(about)
    no_run = rule["alert"] in {"RunStartFailed", "PushFailed"} or "suite" not in about
    assert ("trace_id" in annotations) == ("run_id" in annotations) == (not no_run)


@on_each_alert
def test_runbook_has_a_section_for_each_alert(rule: dict[str, Any]) -> None:
    """The URL leads to a complete section of the runbook."""
    page, anchor = rule["annotations"]["runbook_url"].split("#")
    assert page == RUNBOOK
    assert page.endswith("/docs/runbook.md")
    text = (_ROOT / "docs" / "runbook.md").read_text("utf-8")
    headings = [line.lstrip("# ") for line in text.splitlines() if line.startswith("#")]
    assert headings.count(rule["alert"]) == 1
    assert anchor == rule["alert"].lower()
    section = text.split(f"# {rule['alert']}\n")[1].split("\n## ")[0].split("\n### ")[0]
    for part in ("**Means", "**Check first:**", "**Fix:**"):
        assert part in section


def test_runbook_has_no_other_section() -> None:
    """Each heading of a section is the name of an alert."""
    text = (_ROOT / "docs" / "runbook.md").read_text("utf-8")
    assert set(re.findall(r"^### (\w+)$", text, re.M)) == {rule["alert"] for _, rule in _ALERTS}


@pytest.mark.parametrize("record", _RECORDED)
def test_names_of_recorded_metrics(record: str) -> None:
    """Names follow the convention of Prometheus: level:metric:operation."""
    level, metric, operation = record.split(":")
    assert level in {"run", "suite", "job_backend"}
    assert any(metric.startswith(one.name.removesuffix("_total")) for one in METRICS)
    assert re.fullmatch(r"[a-z][a-z0-9_]*", operation)


def test_suites_and_services_are_separate() -> None:
    """Rules on suites read no counter of a backend; rules on services read no gauge of a run."""
    of_runs = {metric.name for metric in RUN_METRICS} - {run_names.RUN_INFO.name}
    counters = {metric.name for metric in BACKEND_METRICS}
    for name, file in _FILES.items():
        for group in file["groups"]:
            foreign = of_runs if "service" in group["name"] else counters
            assert not any(_metrics(rule["expr"]) & foreign for rule in group["rules"]), name


@on_each_alert
def test_each_alert_has_test_cases(rule: dict[str, Any]) -> None:
    """The cases for promtool include the full text of the alert, and times without an alert."""
    cases = [case for case in _cases() if case["alertname"] == rule["alert"]]
    firing = [one["exp_labels"] for case in cases for one in case["exp_alerts"]]
    reason = rule["labels"].get("reason")
    assert any(labels.get("reason") == reason for labels in firing)
    assert all(one["exp_annotations"] for case in cases for one in case["exp_alerts"])
    assert sum(not case["exp_alerts"] for case in cases) >= 2


@cache
def _cases() -> list[dict[str, Any]]:
    files = sorted((_ROOT / "dashboards" / "prometheus" / "tests").glob("*.yml"))
    tests = [test for file in files for test in yaml.safe_load(file.read_text())["tests"]]
    return [case for test in tests for case in test.get("alert_rule_test", ())]


def _metrics(expr: str) -> set[str]:
    """Return the metrics that a query reads."""
    found = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", expr)
    words = re.findall(r"[a-z_:][a-zA-Z0-9_:]*", found)
    return {word for word in words if word.startswith(("forwardscope_", "push")) or ":" in word}
