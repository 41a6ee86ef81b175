"""The rules for Prometheus: whole, named as they should be, tested, and told of in the runbook."""

import re
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from forwardscope.dashboards import run_rules, service_rules
from forwardscope.dashboards.build import generated
from forwardscope.dashboards.rules import RUNBOOK
from forwardscope.telemetry import names
from forwardscope.telemetry.names import BACKEND_METRICS, METRICS, RUN_METRICS

_ROOT = Path(__file__).parents[2]
_FILES = {name: yaml.safe_load(text) for name, text in generated().items() if name.endswith(".yml")}
_RULES = [
    (name, rule)
    for name, file in _FILES.items()
    for group in file["groups"]
    for rule in group["rules"]
]
_ALERTS = [(name, rule) for name, rule in _RULES if "alert" in rule]
_RECORDED = [rule["record"] for _, rule in _RULES if "record" in rule]


def _identity(rule: dict[str, Any]) -> str:
    return f"{rule['alert']} {rule['labels'].get('reason', '')}".strip()


on_each_alert = pytest.mark.parametrize(
    "rule", [pytest.param(rule, id=_identity(rule)) for _, rule in _ALERTS]
)
on_each_rule = pytest.mark.parametrize(
    "rule",
    [pytest.param(rule, id=rule.get("record") or _identity(rule)) for _, rule in _RULES],
)


def test_the_alerts_are_those_of_suites_and_of_services() -> None:
    """Ten for suites, in a file of their own, and five for services, each named once."""
    of_suites = [rule for name, rule in _ALERTS if name == "prometheus/alerts-runs.yml"]
    of_services = [rule for name, rule in _ALERTS if name == "prometheus/alerts-services.yml"]
    assert {rule["alert"] for rule in of_suites} == {
        "ForwardPassRegression",
        "ForwardLatencyRegression",
        "CacheHitRateDrop",
        "ForwardErrors",
        "RunFailed",
        "RunStalled",
        "RunMissing",
        "SpansDropped",
        "TraceWriteErrors",
        "PushFailed",
    }
    assert all(rule["alert"].startswith("Service") for rule in of_services)
    assert len(of_services) == 5
    identities = [_identity(rule) for _, rule in _ALERTS]
    assert len(set(identities)) == len(identities) == len(of_suites) + len(of_services)


@on_each_alert
def test_alerts_say_what_and_how_much(rule: dict[str, Any]) -> None:
    """Each has a severity, a patience, a summary, a sentence with the value, and a runbook."""
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert re.fullmatch(r"[1-9]\d*m", rule["for"])
    annotations = rule["annotations"]
    assert set(annotations) == {"summary", "description", "runbook_url"}
    assert not annotations["summary"].endswith(".")
    assert annotations["description"].endswith(".")
    valued = "$value" in annotations["description"]
    assert valued or rule["expr"].startswith("absent("), "absent() is 1, which says nothing"


@on_each_alert
def test_the_runbook_has_a_heading_for_each(rule: dict[str, Any]) -> None:
    """The URL leads to the file in the repository, and its anchor to a section of it."""
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


def test_the_runbook_tells_of_no_other_alert() -> None:
    """A heading of the runbook's sections is an alert that there is."""
    text = (_ROOT / "docs" / "runbook.md").read_text("utf-8")
    assert set(re.findall(r"^### (\w+)$", text, re.M)) == {rule["alert"] for _, rule in _ALERTS}


@on_each_rule
def test_queries_are_promql(rule: dict[str, Any]) -> None:
    """Each query parses."""
    promql_parser.parse(rule["expr"])


@pytest.mark.parametrize("record", _RECORDED)
def test_recorded_names_tell_level_metric_and_operation(record: str) -> None:
    """As Prometheus' own guide has it: level:metric:operation."""
    level, metric, operation = record.split(":")
    assert level in {"run", "suite", "job_backend"}
    assert any(metric.startswith(one.name.removesuffix("_total")) for one in METRICS)
    assert re.fullmatch(r"[a-z][a-z0-9_]*", operation)


@on_each_rule
def test_rules_ask_for_what_there_is(rule: dict[str, Any]) -> None:
    """Metrics of names.py, what is recorded, or what a Pushgateway says of itself; all used."""
    known = {metric.name for metric in METRICS} | set(_RECORDED)
    known |= {f"{names.FORWARD_DURATION.name}_{part}" for part in ("sum", "count")}
    known |= {"push_time_seconds", "push_failure_time_seconds", "pushgateway_build_info"}
    assert _asked(rule["expr"]) <= known


def test_what_is_recorded_is_asked_for() -> None:
    """No rule records what no other one reads."""
    assert set(_RECORDED) <= {name for _, rule in _RULES for name in _asked(rule["expr"])}


def test_suites_and_services_are_kept_apart() -> None:
    """Alerts on suites read no counter of a backend, those on services no run's gauge."""
    of_runs = {metric.name for metric in RUN_METRICS} - {names.RUN_INFO.name}
    runs = [*run_rules.recordings(), *run_rules.alerts()]
    services = [*service_rules.recordings(), *service_rules.alerts()]
    counters = {metric.name for metric in BACKEND_METRICS}
    assert not any(_asked(rule.expr) & counters for rule in runs)
    assert not any(_asked(rule.expr) & of_runs for rule in services)


@on_each_alert
def test_each_alert_has_cases(rule: dict[str, Any]) -> None:
    """The cases for promtool say when it fires, with all that it says, and when it does not."""
    cases = [case for case in _cases() if case["alertname"] == rule["alert"]]
    firing = [one["exp_labels"] for case in cases for one in case["exp_alerts"]]
    reason = rule["labels"].get("reason")
    assert any(labels.get("reason") == reason for labels in firing)
    assert all(one["exp_annotations"] for case in cases for one in case["exp_alerts"])
    assert sum(not case["exp_alerts"] for case in cases) >= 2


def _cases() -> list[dict[str, Any]]:
    files = sorted((_ROOT / "dashboards" / "prometheus" / "tests").glob("*.yml"))
    tests = [test for file in files for test in yaml.safe_load(file.read_text())["tests"]]
    return [case for test in tests for case in test.get("alert_rule_test", ())]


def _asked(expr: str) -> set[str]:
    """Return the names of the series that a query reads."""
    found = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", expr)
    words = re.findall(r"[a-z_:][a-zA-Z0-9_:]*", found)
    return {word for word in words if word.startswith(("forwardscope_", "push")) or ":" in word}
