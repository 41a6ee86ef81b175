"""The dashboards are up to date and follow the conventions of Grafana."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from forwardscope.dashboards.build import generated
from forwardscope.dashboards.queries import VARIABLES
from forwardscope.telemetry.names import METRICS

_FILES = Path(__file__).parents[2] / "dashboards"
_DASHBOARDS = {
    name: json.loads(text) for name, text in generated().items() if name.endswith("json")
}
_PANELS = [
    pytest.param(panel, id=f"{Path(name).stem}-{panel['title']}")
    for name, page in _DASHBOARDS.items()
    for panel in page["panels"]
    if panel["type"] != "row"
]
_QUERIED = [one for one in _PANELS if one.values[0]["type"] != "alertlist"]
_COUNTERS = "|".join(metric.name for metric in METRICS if metric.kind == "counter")
_HISTOGRAMS = "|".join(metric.name for metric in METRICS if metric.kind == "histogram")

on_each_dashboard = pytest.mark.parametrize("page", _DASHBOARDS.values(), ids=_DASHBOARDS)
on_each_panel = pytest.mark.parametrize("panel", _PANELS)
on_each_query = pytest.mark.parametrize("panel", _QUERIED)


def _queries(page: dict[str, Any]) -> Iterator[str]:
    for panel in page["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))


def _links(part: Any) -> Iterator[str]:
    """Yield the addresses of all links."""
    if isinstance(part, dict) and isinstance(part.get("url"), str):
        yield part["url"]
    elif isinstance(part, dict | list):
        for one in part.values() if isinstance(part, dict) else part:
            yield from _links(one)


def test_four_dashboards() -> None:
    """There are Overview, Forward passes, Runs and Sweep."""
    assert set(_DASHBOARDS) == {
        "grafana/overview.json",
        "grafana/forward-passes.json",
        "grafana/runs.json",
        "grafana/sweep.json",
    }


@pytest.mark.parametrize("name", generated())
def test_files_are_up_to_date(name: str) -> None:
    """`make dashboards` changes no file."""
    assert (_FILES / name).read_text("utf-8") == generated()[name]


@on_each_dashboard
def test_dashboard_settings(page: dict[str, Any]) -> None:
    """Each dashboard is read-only, with a shared crosshair, an id, a question and links by tag."""
    assert page["editable"] is False
    assert page["graphTooltip"] == 1
    assert page["uid"].startswith("forwardscope-")
    assert page["description"].endswith("?")
    assert page["tags"] == ["forwardscope"]
    assert page["links"][0]["tags"] == page["tags"]


@on_each_dashboard
def test_first_row_answers_the_question(page: dict[str, Any]) -> None:
    """The title of the first row is the description of the dashboard."""
    first = page["panels"][0]
    assert (first["type"], first["title"]) == ("row", page["description"])


@on_each_dashboard
def test_panels_are_numbered_and_do_not_overlap(page: dict[str, Any]) -> None:
    """Ids count from 1, and no two panels share a cell of the 24 columns."""
    assert [panel["id"] for panel in page["panels"]] == list(range(1, len(page["panels"]) + 1))
    used: set[tuple[int, int]] = set()
    for panel in page["panels"]:
        at = panel["gridPos"]
        cells = {
            (at["x"] + column, at["y"] + line)
            for column in range(at["w"])
            for line in range(at["h"])
        }
        assert not cells & used
        assert max(column for column, _ in cells) < 24
        used |= cells


@on_each_dashboard
def test_order_of_variables(page: dict[str, Any]) -> None:
    """The data source is first, then the filters in order; each filter allows several values."""
    found = [variable["name"] for variable in page["templating"]["list"]]
    assert found[0] == "datasource"
    assert tuple(name for name in found if name in VARIABLES) == VARIABLES
    for variable in page["templating"]["list"]:
        if variable["name"] in VARIABLES:
            assert (variable["multi"], variable["includeAll"]) == (True, True)
            assert variable["datasource"]["uid"] == "${datasource}"


@on_each_dashboard
@pytest.mark.parametrize("variable", VARIABLES)
def test_each_variable_is_used(page: dict[str, Any], variable: str) -> None:
    """Each variable filters at least one query."""
    assert any(f'{variable}=~"${variable}"' in query for query in _queries(page))


@on_each_panel
def test_panels_are_described(panel: dict[str, Any]) -> None:
    """Each panel has a title and a description of whole sentences."""
    assert panel["title"]
    assert panel["description"].endswith(".")


@on_each_query
def test_panels_have_a_unit(panel: dict[str, Any]) -> None:
    """Each panel with a query has a unit and thresholds."""
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"][0]["value"] is None


@on_each_query
def test_panels_use_the_selected_data_source(panel: dict[str, Any]) -> None:
    """No panel or query has a fixed data source, and ids of queries are unique."""
    assert panel["targets"]
    assert panel["datasource"]["uid"] == "${datasource}"
    assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}
    letters = [target["refId"] for target in panel["targets"]]
    assert len(set(letters)) == len(letters)


@on_each_query
def test_no_raw_counter(panel: dict[str, Any]) -> None:
    """Counters and parts of histograms are used only within rate() or increase()."""
    raw = re.compile(rf"(?:{_COUNTERS}|(?:{_HISTOGRAMS})_(?:bucket|sum|count))\{{[^}}]*\}}")
    for target in panel["targets"]:
        query = target["expr"]
        for found in raw.finditer(query):
            before, after = query[: found.start()], query[found.end() :]
            assert before.endswith(("rate(", "increase("))
            assert after.startswith("[$__")


@on_each_query
def test_windows_follow_the_time_range(panel: dict[str, Any]) -> None:
    """No window has a fixed length; runs are looked for at each scrape."""
    for target in panel["targets"]:
        for window in re.findall(r"\[([^\]]*)\]", target["expr"]):
            assert window in {"$__rate_interval", "$__range", "$__range:5s"}


@on_each_query
def test_no_division_by_zero(panel: dict[str, Any]) -> None:
    """A ratio has no value, instead of NaN, if its divisor is 0."""
    for target in panel["targets"]:
        for divisor in re.findall(r" / (?:on \(\) group_left \(\) )?(.{30})", target["expr"]):
            assert divisor.startswith(("(", "forwardscope_cache_max_"))


@on_each_query
def test_each_query_is_narrowed_by_suite_and_model(panel: dict[str, Any]) -> None:
    """No query is about all suites or models; those of metrics without the labels join some."""
    for target in panel["targets"]:
        assert 'suite=~"$suite"' in target["expr"]
        assert 'model=~"$model"' in target["expr"]


@on_each_dashboard
def test_runs_are_marked(page: dict[str, Any]) -> None:
    """Each dashboard has annotations at the start and the end of the chosen runs."""
    marks = {one["name"]: one["expr"] for one in page["annotations"]["list"]}
    assert set(marks) == {"Run start", "Run end"}
    assert all('suite=~"$suite", model=~"$model"' in expr for expr in marks.values())


@on_each_query
def test_panels_lead_to_others(panel: dict[str, Any]) -> None:
    """Links to dashboards carry the time range, and each variable once."""
    urls = list(_links(panel["fieldConfig"]))
    assert urls or panel["title"] == "Probes of run and baseline"
    known = {page["uid"] for page in _DASHBOARDS.values()}
    for url in (url for url in urls if url.startswith("/d/")):
        uid, _, query = url.removeprefix("/d/").partition("?")
        assert uid in known
        time_range, *parameters = query.split("&")
        assert time_range == "${__url_time_range}"
        named = [re.sub(r"\$\{(\w+):queryparam\}|var-(\w+)=.+", r"\1\2", one) for one in parameters]
        assert sorted(named) == sorted(("datasource", *VARIABLES))


@on_each_query
def test_series_have_a_name(panel: dict[str, Any]) -> None:
    """Lines and bars have a legend, also a single one."""
    defaults, options = panel["fieldConfig"]["defaults"], panel["options"]
    if panel["type"] in ("timeseries", "bargauge"):
        assert all(target["legendFormat"] for target in panel["targets"])
    if panel["type"] == "timeseries":
        assert options["legend"]["showLegend"]
    if panel["type"] == "bargauge":
        assert "${__field.labels." in defaults["displayName"]


@pytest.mark.parametrize("name", ["overview", "runs"])
def test_alerts_of_the_chosen_suites(name: str) -> None:
    """A table has the firing alerts of the rules, Grafana's list also the pending ones."""
    page = _DASHBOARDS[f"grafana/{name}.json"]
    (listed,) = (panel for panel in page["panels"] if panel["type"] == "alertlist")
    chosen = '{suite=~"${suite:regex}", model=~"${model:regex}"}'
    assert listed["options"]["alertInstanceLabelFilter"] == chosen
    (table,) = (
        panel
        for panel in page["panels"]
        if (panel["type"], panel["title"]) == ("table", "Firing alerts")
    )
    (query,) = (target["expr"] for target in table["targets"])
    names = set(re.findall(r'alertname=~"([^"]*)"', query)[0].split("|"))
    rules = yaml.safe_load(generated()["prometheus/alerts-runs.yml"])["groups"][0]["rules"]
    assert {rule["alert"] for rule in rules} <= names


def test_a_run_leads_to_its_trace() -> None:
    """There are links for Jaeger and Tempo in Grafana, and for Jaeger's own page."""
    page = _DASHBOARDS["grafana/runs.json"]
    kinds = {one["name"]: one.get("query") for one in page["templating"]["list"]}
    assert (kinds["jaeger"], kinds["tempo"]) == ("jaeger", "tempo")
    assert kinds["jaeger_url"] == "http://127.0.0.1:16686"
    urls = set(_links(page["panels"]))
    assert "${jaeger_url}/trace/${__value.raw}" in urls
    found = []
    for url in (url for url in urls if url.startswith("/explore?")):
        (pane,) = json.loads(parse_qs(urlsplit(url).query)["panes"][0]).values()
        assert pane["range"] == {"from": "${__from}", "to": "${__to}"}
        found.append((pane["datasource"], *pane["queries"]))
    trace, tag = "${__value.raw}", 'test.suite.name="${__value.raw}"'
    search = {"queryType": "search", "service": "forwardscope", "tags": tag}
    traceql = {"refId": "A", "queryType": "traceql"}
    assert sorted(found, key=str) == sorted(
        (
            ("${jaeger}", {"refId": "A", "query": trace}),
            ("${jaeger}", {"refId": "A", **search}),
            ("${tempo}", {**traceql, "query": trace}),
            ("${tempo}", {**traceql, "query": f"{{span.{tag}}}"}),
        ),
        key=str,
    )
