"""Every query of every panel and rule, asked of a real Prometheus that has seen real runs."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from forwardscope import BackendInstrumentation
from forwardscope.telemetry import register
from forwardscope.telemetry.endpoint import MetricsEndpoint

from .demos import Demo
from .observing import Stack, run_stack
from .processes import free_port, until
from .receivers import Receiver
from .runs import Cli, suite, suite_with_trouble

_CHECKOUT = Path(__file__).parents[3]
_PAGES = {
    path.stem: json.loads(path.read_text())
    for path in sorted((_CHECKOUT / "dashboards" / "grafana").glob("*.json"))
}
_RULES = [
    rule
    for name in ("recording", "alerts-runs", "alerts-services")
    for group in yaml.safe_load((_CHECKOUT / f"dashboards/prometheus/{name}.yml").read_text())[
        "groups"
    ]
    for rule in group["rules"]
]
_QUERIES = [
    pytest.param(panel, target, id=f"{page}-{panel['title']}-{target['refId']}")
    for page, content in _PAGES.items()
    for panel in content["panels"]
    for target in panel.get("targets", ())
]
_ANNOTATIONS = [
    pytest.param(one, id=f"{page}-{one['name']}")
    for page, content in _PAGES.items()
    for one in content.get("annotations", {}).get("list", ())
]
_VARIABLES = [
    pytest.param(one, id=f"{page}-{one['name']}")
    for page, content in _PAGES.items()
    for one in content["templating"]["list"]
    if one["type"] == "query"
]
_FILLED = {"__rate_interval": "10s", "__interval": "1s"}
_CHOICES = ("job", "instance", "suite", "backend", "probe")


@dataclass(frozen=True)
class Observed:
    """What there is to look at.

    Attributes:
        stack: That saw it.
        since: When it began, in seconds since the epoch.
    """

    stack: Stack
    since: float

    def fill(self, text: str) -> str:
        """Put values in place of Grafana's variables, with everything chosen."""
        values = dict.fromkeys(_CHOICES, ".*") | _FILLED
        values["__range"] = f"{math.ceil(time.time() - self.since)}s"
        filled = re.sub(r"\$(\w+)", lambda found: values[found[1]], text)
        assert "$" not in filled
        return filled

    def now(self, query: str) -> list[dict[str, Any]]:
        """Answer a query at the end of the time range."""
        result = self.stack.prometheus.ask("query", query=self.fill(query))["result"]
        return [one | {"values": [one["value"]]} for one in result]

    def over_time(self, query: str) -> list[dict[str, Any]]:
        """Answer a query over the time range."""
        end = time.time()
        return list(
            self.stack.prometheus.ask(
                "query_range", query=self.fill(query), start=self.since, end=end, step=1
            )["result"]
        )


@pytest.fixture(scope="module")
def observed(
    cli: Cli,
    demo: Callable[..., Demo],
    otlp_http: Receiver,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Observed]:
    """A run of the demo's real model, three runs of a scripted one, and a service."""
    since = time.time()
    endpoints = [free_port() for _ in range(3)]
    with run_stack(_CHECKOUT, tmp_path_factory.mktemp("stack"), rules_every="1s") as stack:
        stack.scrape(*(f"127.0.0.1:{port}" for port in endpoints))
        common = ("--otlp", otlp_http.url, "--pushgateway", stack.gateway.url)
        lingering = (*common, "--metrics-linger", 30, "--metrics-port")
        serve(stack, endpoints[0])
        demo(*lingering, endpoints[1])
        for spec in (larger(suite()), larger(suite()), larger(suite_with_trouble())):
            ran = cli.run(spec, *lingering, endpoints[2], SCRIPT_SLEEP_S="0.02")
            run_id = f'run_id="{ran.run_id}"'
            over = f"forwardscope_run_info{{{run_id}}} and on (suite) forwardscope_run_active == 0"
            whole = f"run:forwardscope_run_forward_passes:finished{{{run_id}}}"
            known = whole if ran.status == 0 else over
            until(lambda query=known: stack.prometheus.query(query), "the run is recorded")
        yield Observed(stack, since)


def larger(spec: dict[str, Any]) -> dict[str, Any]:
    """The same with more lookups, and a bound in bytes too."""
    asked = [f"prompt {number}" for number in range(40)]
    more = {"name": "more", "kind": "delta_kl", "prompts": asked, "min_mean": 0.0, "min_z": 0.0}
    spec["probes"].append({**more, "min_mean": 0.000001, "min_z": 0.000001})
    spec["cache"] = {"max_entries": 32, "max_bytes": 1_000_000}
    return spec


def serve(stack: Stack, port: int) -> None:
    """A program that asks for a while, and is no suite."""
    registry = CollectorRegistry()
    instrumentation = BackendInstrumentation(name="service")
    register(instrumentation, registry)
    endpoint = MetricsEndpoint(registry, "127.0.0.1", port)
    shown = 'forwardscope_cache_lookups_total{{backend="service", result="{}"}} >= {}'

    def asked(times: int) -> None:
        for number in range(times):
            for _ in range(2):
                instrumentation.cached(
                    "next_token_dist", "base", f"{times}-{number}", 8, lambda: 1.0
                )
        query = shown.format("miss", instrumentation.stats.forward_passes)
        until(lambda: stack.prometheus.query(query), "the service is scraped")

    asked(1)  # counters grow from what they are first seen with
    asked(100)
    endpoint.close()


def test_no_panel_escapes() -> None:
    """Each panel that is no heading has a query, and each query is asked below."""
    panels = [
        panel for page in _PAGES.values() for panel in page["panels"] if panel["type"] != "row"
    ]
    assert len(_PAGES) == 3
    assert len(panels) > 40
    assert all(panel["targets"] for panel in panels)
    assert len(_QUERIES) == sum(len(panel["targets"]) for panel in panels)


@pytest.mark.parametrize(("panel", "target"), _QUERIES)
def test_panels_have_data(
    observed: Observed, panel: dict[str, Any], target: dict[str, Any]
) -> None:
    """Each query answers with numbers, and with the labels that its legend or table names.

    Some are NaN: a probe has no value before its end, and may have none at all.
    """
    ask = observed.now if target.get("instant") else observed.over_time
    found = ask(target["expr"])
    assert found, "no data"
    values = [float(value) for series in found for _, value in series["values"]]
    assert not all(map(math.isnan, values))
    for label in _labels_shown(panel, target):
        assert any(series["metric"].get(label) for series in found), label


def _labels_shown(panel: dict[str, Any], target: dict[str, Any]) -> set[str]:
    shown = set(re.findall(r"\{\{(\w+)\}\}", target.get("legendFormat", "")))
    for transformation in panel.get("transformations", ()):
        if transformation["id"] == "organize":
            columns = transformation["options"]["renameByName"]
            shown |= {name for name in columns if not name.startswith("Value")}
    return shown


@pytest.mark.parametrize("annotation", _ANNOTATIONS)
def test_annotations_have_moments(observed: Observed, annotation: dict[str, Any]) -> None:
    """The value of each is a moment of the time range, in milliseconds."""
    found = observed.over_time(annotation["target"]["expr"])
    moments = {float(value) / 1000 for series in found for _, value in series["values"]}
    assert any(observed.since < moment < time.time() for moment in moments)


@pytest.mark.parametrize("variable", _VARIABLES)
def test_variables_have_values(observed: Observed, variable: dict[str, Any]) -> None:
    """Each can be narrowed to something that there is."""
    selector, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["definition"]).groups()
    selector = observed.fill(selector)
    values = observed.stack.prometheus.ask(f"label/{label}/values", **{"match[]": selector})
    assert any(values)


def test_durations_lead_to_traces(observed: Observed) -> None:
    """The histogram has exemplars whose trace was exported."""
    (target,) = (
        target
        for panel in _PAGES["forward-passes"]["panels"]
        if panel["type"] == "heatmap"
        for target in panel["targets"]
    )
    found = observed.stack.prometheus.ask(
        "query_exemplars",
        query=observed.fill(target["expr"]),
        start=observed.since,
        end=time.time(),
    )
    traces = {one["labels"]["trace_id"] for series in found for one in series["exemplars"]}
    assert traces
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in traces)


def test_rules_are_healthy(observed: Observed) -> None:
    """Prometheus evaluates each of them without a complaint."""
    groups = observed.stack.prometheus.ask("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) == len(_RULES)
    assert {rule["health"] for rule in rules} == {"ok"}
    assert not any(rule.get("lastError") for rule in rules)


@pytest.mark.parametrize("record", [rule["record"] for rule in _RULES if "record" in rule])
def test_recordings_have_data(observed: Observed, record: str) -> None:
    """Each recording rule has recorded numbers."""
    found = observed.over_time(record)
    values = [float(value) for series in found for _, value in series["values"]]
    assert values
    assert not any(map(math.isnan, values))


def test_what_went_wrong_is_alerted_on(observed: Observed) -> None:
    """The run with trouble has alerts pending or firing; nothing is said of the demo."""
    expected = {("RunFailed", "nightly"), ("ForwardErrors", "nightly")}

    def alerts() -> set[tuple[str, str | None]]:
        found = observed.stack.prometheus.ask("alerts")["alerts"]
        return {(one["labels"]["alertname"], one["labels"].get("suite")) for one in found}

    until(lambda: expected <= alerts(), "Prometheus evaluates the rules after the last scrape")
    assert not any(suite == "demo" for _, suite in alerts())
