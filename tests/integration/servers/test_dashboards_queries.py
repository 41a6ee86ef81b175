"""Every query of every panel and rule, asked of a real Prometheus that has seen real runs."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from forwardscope import BackendInstrumentation
from forwardscope.core.ledger import OPERATION_BOUNDS_S, Histogram
from forwardscope.core.server_requests import Exchange
from forwardscope.store.base import StoreStats
from forwardscope.telemetry import register
from forwardscope.telemetry.endpoint import MetricsEndpoint
from forwardscope.testing import MemoryStore

from .demos import Demo
from .observing import Stack, run_stack
from .processes import free_port, until
from .receivers import Receiver
from .runs import MODEL, Cli, Run, suite, suite_with_trouble

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
#: A little more than the interval at which the dashboards look for runs.
_LOOKED_FOR_S = 6.0
_FILLED = {"__rate_interval": "10s", "__interval": "1s"}
_CHOICES = ("job", "instance", "suite", "model", "backend", "probe")


@dataclass(frozen=True)
class Observed:
    """What there is to look at.

    Attributes:
        stack: That saw it.
        since: When it began, in seconds since the epoch.
        runs: The runs of the scripted model, in order.
        sweep: The result of its sweep.
    """

    stack: Stack
    since: float
    runs: tuple[Run, ...] = ()
    sweep: Mapping[str, Any] = field(default_factory=dict)

    def fill(self, text: str, **chosen: str) -> str:
        """Put values in place of Grafana's variables, with everything chosen by default."""
        values = dict.fromkeys(_CHOICES, ".*") | _FILLED
        values["__from"] = f"{self.since * 1000:.0f}"
        values["__range"] = f"{math.ceil(time.time() - self.since)}s"
        if self.runs:
            values |= {"baseline": self.runs[0].run_id, "run": self.runs[-1].run_id}
        values |= chosen
        filled = re.sub(r"\$([a-z_]\w*)", lambda found: values[found[1]], text)
        assert not re.search(r"\$\D", filled)
        return filled

    def now(self, query: str, **chosen: str) -> list[dict[str, Any]]:
        """Answer a query at the end of the time range."""
        result = self.stack.prometheus.ask("query", query=self.fill(query, **chosen))["result"]
        return [one | {"values": [one["value"]]} for one in result]

    def over_time(self, query: str, **chosen: str) -> list[dict[str, Any]]:
        """Answer a query over the time range."""
        end = time.time()
        filled = self.fill(query, **chosen)
        asked = {"query": filled, "start": self.since, "end": end, "step": 1}
        return list(self.stack.prometheus.ask("query_range", **asked)["result"])

    def answer(self, target: dict[str, Any], **chosen: str) -> list[dict[str, Any]]:
        """Answer a query of a panel as Grafana does."""
        ask = self.now if target.get("instant") else self.over_time
        return ask(target["expr"], **chosen)

    def number(self, page: str, title: str, **chosen: str) -> float:
        """Return the number of a panel that has one."""
        (panel,) = (one for one in _PAGES[page]["panels"] if _is(one, "stat", title))
        (series,) = self.now(panel["targets"][0]["expr"], **chosen)
        return float(series["value"][1])


def _is(panel: dict[str, Any], kind: str, title: str) -> bool:
    return (panel["type"], panel["title"]) == (kind, title)


@pytest.fixture(scope="module")
def observed(
    cli: Cli,
    demo: Callable[..., Demo],
    otlp_http: Receiver,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Observed]:
    """A run of the demo's real model, three runs of a scripted one, its sweep, and a service."""
    since = time.time()
    endpoints = [free_port() for _ in range(4)]
    folder = tmp_path_factory.mktemp("stack")
    with run_stack(_CHECKOUT, folder, rules_every="1s", alerts_after="1s") as stack:
        stack.scrape(*(f"127.0.0.1:{port}" for port in endpoints))
        common = ("--otlp", otlp_http.url, "--pushgateway", stack.gateway.url)
        lingering = (*common, "--metrics-linger", 30, "--metrics-port")
        serve(stack, endpoints[0])
        demo(*lingering, endpoints[1])
        runs = []
        for spec in (larger(suite()), larger(suite()), larger(suite_with_trouble())):
            ran = cli.run(spec, *lingering, endpoints[2], SCRIPT_SLEEP_S="0.02")
            runs.append(ran)
            run_id = f'run_id="{ran.run_id}"'
            over = f"forwardscope_run_info{{{run_id}}} and on (suite) forwardscope_run_active == 0"
            whole = f"run:forwardscope_run_forward_passes_needed:finished{{{run_id}}}"
            known = whole if ran.status == 0 else over
            until(lambda query=known: stack.prometheus.query(query), "the run is recorded")
            time.sleep(_LOOKED_FOR_S)
        fires = 'ALERTS{alertname="RunFailed", alertstate="firing"}'
        until(lambda: stack.prometheus.query(fires), "the alert on the last run fires")
        sweep = sweep_over(cli, *lingering, endpoints[3])
        own = f'forwardscope_sweep_active{{suite="{sweep["suite"]}"}} == 0'
        until(lambda: stack.prometheus.query(own), "the sweep is scraped")
        time.sleep(_LOOKED_FOR_S)
        yield Observed(stack, since, tuple(runs), sweep)


def sweep_over(cli: Cli, *options: object) -> dict[str, Any]:
    """Sweep over four adapters, of which one is broken; return its result."""
    names = ("checkpoint-100", "checkpoint-20", "checkpoint-1000", "checkpoint-300-broken")
    slow = {"SCRIPT_SLEEP_S": "0.03"}
    ran = cli.sweep(larger(suite(name="swept")), names, *options, **slow)
    assert ran.status == 1, ran.stderr
    return dict(json.loads((ran.folder / "sweep" / "sweep.json").read_text()))


def larger(spec: dict[str, Any]) -> dict[str, Any]:
    """The same with more lookups, and a bound in bytes too."""
    asked = [f"prompt {number}" for number in range(40)]
    more = {"name": "more", "kind": "delta_kl", "prompts": asked, "min_mean": 0.0, "min_z": 0.0}
    spec["probes"].append({**more, "min_mean": 0.000001, "min_z": 0.000001})
    spec["cache"] = {"max_entries": 32, "max_bytes": 1_000_000}
    return spec


class Losing(MemoryStore):
    """A store with a bound, which fails as often as it stores a value."""

    def stats(self) -> StoreStats:
        """Return numbers that grow with its entries."""
        counts = super().stats()
        seconds, n = Histogram(OPERATION_BOUNDS_S), counts.entries
        for _ in range(n):
            seconds.observe(0.001)
        lost = dict.fromkeys(("evictions", "corrupt", "unsupported", "dropped"), n)
        failed = {("put", "SQLITE_FULL"): n} if n else {}
        return replace(counts, max_bytes=2**20, errors=failed, durations={"get": seconds}, **lost)


def serve(stack: Stack, port: int) -> None:
    """A program that makes lookups for a while, and is no suite.

    A store answers what its cache forgot. Its model is on a server that throttles.
    """
    registry = CollectorRegistry()
    instrumentation = BackendInstrumentation(
        name="service", store=Losing(), view_identity=lambda view_id: view_id, verify=0.5
    )
    instrumentation.name_server("http://127.0.0.1:8000", "127.0.0.1", 8000)
    register(instrumentation, registry)
    endpoint = MetricsEndpoint(registry, "127.0.0.1", port)
    shown = 'forwardscope_cache_lookups_total{{backend="service", result="{}"}} >= {}'

    def ask(prompt: str, value: float) -> None:
        instrumentation.cached("next_token_dist", "base", prompt, 8, lambda: value)
        instrumentation.report_request(Exchange("completions", 0.1, 2, 1, 200))

    def asked(times: int) -> None:
        for number in range(times):
            for _ in range(2):
                ask(f"{times}-{number}", 1.0)
        for value in (1.0, 2.0):  # the latter does not agree with the stored one
            instrumentation.cache.clear()
            for number in range(times):
                ask(f"{times}-{number}", value)
        query = shown.format("miss", instrumentation.stats.forward_passes)
        until(lambda: stack.prometheus.query(query), "the service is scraped")

    asked(1)  # counters grow from what they are first seen with
    asked(100)
    endpoint.close()


def test_no_panel_escapes() -> None:
    """Each panel but headings and lists of alerts has a query, and each query is asked below."""
    without = ("row", "alertlist")
    panels = [
        panel
        for page in _PAGES.values()
        for panel in page["panels"]
        if panel["type"] not in without
    ]
    assert len(_PAGES) == 4
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
    found = observed.answer(target)
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
    if panel["title"] == "Firing alerts":
        shown -= {"job", "backend"}  # of services
    if panel["title"] == "Probes of run and baseline":
        shown &= {"probe"}
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
    kind, text = re.fullmatch(r"(\w+)\((.*)\)", variable["definition"]).groups()
    if kind == "query_result":
        found = [_as_text(one["metric"]) for one in observed.now(text)]
        pattern = variable["regex"].strip("/").replace("(?<", "(?P<")
        values = [re.search(pattern, one)["value"] for one in found]
        ids = [run.run_id for run in observed.runs]
        assert [one for one in values if one in ids] in (ids, ids[::-1])
    else:
        selector, _, label = text.rpartition(", ")
        selector = {"match[]": observed.fill(selector)}
        values = observed.stack.prometheus.ask(f"label/{label}/values", **selector)
    assert any(values)


def _as_text(labels: dict[str, str]) -> str:
    """Return a series as the text to which Grafana applies the pattern of a variable."""
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "} 1 2"


@pytest.mark.parametrize("variable", ["suite", "model"])
@pytest.mark.parametrize(("panel", "target"), _QUERIES)
def test_panels_are_narrowed(
    observed: Observed, panel: dict[str, Any], target: dict[str, Any], variable: str
) -> None:
    """With a suite or a model that never ran, no query has data; no alert fires."""
    found = observed.answer(target, **{variable: "none-such"})
    assert found == [] or _is(panel, "stat", "Firing alerts")
    assert all(float(value) == 0 for one in found for _, value in one["values"])


def test_counters_are_narrowed_by_their_target(observed: Observed) -> None:
    """Of a chosen suite there are only the probes of its own runs, by target and by time."""
    (panel,) = (one for one in _PAGES["overview"]["panels"] if one["title"] == "Hit rate by probe")
    found = observed.answer(panel["targets"][0], suite="demo")
    probes = {one["metric"]["probe"] for one in found}
    assert "change" in probes
    assert not probes & {"more", "wrong", "poor"}


def test_numbers_of_runs_are_exact(observed: Observed) -> None:
    """They are the sums of the results."""
    results = [run.result for run in observed.runs]
    stats = [result["backend_stats"] for result in results]
    expected = {
        "Lookups": sum(one["reconciliation"]["lookups"] for one in results),
        "Passes paid": sum(one["forward_passes"] for one in stats),
        "Passes saved": sum(one["cache_hits"] for one in stats),
        "Evictions": sum(one["cache"]["evictions"] for one in results),
    }
    suite = results[0]["suite"]
    assert {
        title: observed.number("overview", title, suite=suite) for title in expected
    } == expected
    assert (
        observed.number("forward-passes", "Forward passes", suite=suite) == expected["Passes paid"]
    )
    titles = (*expected, "Hit rate", "Of attainable", "Time saved")
    (one,) = {len(_number_since(observed, title, time.time())) for title in titles}
    assert one == 0  # the gateway still has the last run
    attainable = sum(
        one["reconciliation"]["lookups"] - one["expected_forward_passes"] for one in results[:2]
    )
    hits = sum(one["cache_hits"] for one in stats[:2])
    reached = observed.number("overview", "Of attainable", suite=suite)
    assert reached == pytest.approx(hits / attainable)


def _number_since(observed: Observed, title: str, since: float) -> list[dict[str, Any]]:
    (panel,) = (one for one in _PAGES["overview"]["panels"] if _is(one, "stat", title))
    query = panel["targets"][0]["expr"]
    return observed.now(query, suite="nightly", __from=f"{since * 1000:.0f}")


def test_a_run_beside_its_baseline(observed: Observed) -> None:
    """The tables have what the results of both say."""
    titled = {panel["title"]: panel for panel in _PAGES["runs"]["panels"]}
    roles = {}
    for target in titled["Run and baseline"]["targets"]:
        for one in observed.answer(target):
            roles.setdefault(one["metric"]["role"], []).append(float(one["value"][1]))
    for role, run in (("baseline", observed.runs[0]), ("run", observed.runs[-1])):
        stats = run.result["backend_stats"]
        assert run.lookups in roles[role]
        assert stats["forward_passes"] in roles[role]
        assert stats["cache_hits"] / run.lookups in roles[role]
    raw = titled["Probes of run and baseline"]["targets"][2:4]
    for target, run in zip(raw, (observed.runs[-1], observed.runs[0]), strict=True):
        found = {one["metric"]["probe"]: float(one["value"][1]) for one in observed.answer(target)}
        results = {one["name"]: one["raw"] for one in run.result["probes"]}
        assert found == {name: value for name, value in results.items() if value is not None}


def test_the_last_run_stays_while_the_next_one_is_active(observed: Observed, cli: Cli) -> None:
    """Bars and verdicts keep the values of the run before, with its id, until its own are there."""
    last = observed.runs[-1]
    titled = {panel["title"]: panel for page in _PAGES.values() for panel in page["panels"]}
    (hit_rate,) = titled["Hit rate of the last run"]["targets"]
    (verdicts,) = titled["Last verdicts"]["targets"]
    gateway = ("--pushgateway", observed.stack.gateway.url)
    live = cli.start(larger(suite()), *gateway, hold=True).until_held()
    active = 'forwardscope_run_active{suite="nightly"} == 1'
    until(lambda: observed.stack.prometheus.query(active), "the run is scraped")
    early = 'forwardscope_probe_verdict{suite="nightly", probe="change", verdict="pass"} == 1'
    until(lambda: observed.stack.prometheus.query(early), "its first probes are scraped")
    time.sleep(_LOOKED_FOR_S)
    (bar,) = observed.answer(hit_rate, suite="nightly")
    assert bar["metric"]["run"] == last.run_id[:8]
    runs = {
        one["metric"]["probe"]: one["metric"]["run_id"]
        for one in observed.answer(verdicts, suite="nightly")
    }
    assert runs["poor"] == last.run_id
    assert runs["held"] == last.run_id
    assert runs["change"] != last.run_id
    live.release()
    ran = live.finish()
    shown = lambda: observed.answer(hit_rate, suite="nightly")[0]["metric"]["run"]  # noqa: E731
    until(lambda: shown() == ran.run_id[:8], "the new run has replaced it")


def test_a_sweep_is_drawn_along_its_adapters(observed: Observed) -> None:
    """Scores and verdicts are those of its result, by position; what was paid too."""
    titled = {panel["title"]: panel for panel in _PAGES["sweep"]["panels"]}
    expected = {
        (f"{row['index'] + 1:03}", probe["name"]): (probe["score"], probe["verdict"])
        for row in observed.sweep["rows"]
        for probe in row["probes"]
    }
    (scores,) = titled["Scores along the adapters"]["targets"]
    assert _cells(observed.answer(scores, suite="swept")) == {
        cell: score for cell, (score, _) in expected.items() if score is not None
    }
    (verdicts,) = titled["Verdicts"]["targets"]
    (mapping,) = titled["Verdicts"]["fieldConfig"]["defaults"]["mappings"]
    names = {float(number): one["text"] for number, one in mapping["options"].items()}
    found = _cells(observed.answer(verdicts, suite="swept"))
    assert {cell: names[number] for cell, number in found.items()} == {
        cell: verdict for cell, (_, verdict) in expected.items()
    }
    passes = observed.sweep["passes"]
    share = observed.number("sweep", "Passes saved", suite="swept")
    assert share == pytest.approx(1 - passes["forward_passes"] / passes["demand"])
    assert observed.number("sweep", "Adapter errors", suite="swept") == 1
    assert observed.number("sweep", "Adapters ended", suite="swept") == 4


def _cells(found: list[dict[str, Any]]) -> dict[tuple[str, str], float]:
    labels = [one["metric"] for one in found]
    assert {one["line"] for one in labels} == {f"swept on {MODEL}: {o['probe']}" for o in labels}
    return {
        (one["metric"]["position"], one["metric"]["probe"]): float(one["value"][1]) for one in found
    }


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
