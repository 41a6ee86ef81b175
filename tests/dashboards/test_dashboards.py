"""The dashboards' files: as the code has them, and as a reader of Grafana wants them."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest

from forwardscope.dashboards.build import generated
from forwardscope.dashboards.queries import VARIABLES
from forwardscope.telemetry.names import METRICS

_FILES = Path(__file__).parents[2] / "dashboards"
_PAGES = {name: json.loads(text) for name, text in generated().items() if name.endswith("json")}
_PANELS = [
    pytest.param(panel, id=f"{Path(name).stem}-{panel['title']}")
    for name, page in _PAGES.items()
    for panel in page["panels"]
    if panel["type"] != "row"
]
_COUNTERS = "|".join(metric.name for metric in METRICS if metric.kind == "counter")
_HISTOGRAMS = "|".join(metric.name for metric in METRICS if metric.kind == "histogram")
#: What Grafana puts in the place of its own variables.
_BUILT_IN = {"$__rate_interval": "1m", "$__range": "6h", "$__interval": "30s"}

on_each_page = pytest.mark.parametrize("page", [pytest.param(p, id=n) for n, p in _PAGES.items()])
on_each_panel = pytest.mark.parametrize("panel", _PANELS)


def _filled(query: str) -> str:
    for name, value in _BUILT_IN.items():
        query = query.replace(name, value)
    return query


def _selectors(page: dict[str, Any]) -> Iterator[str]:
    for panel in page["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))


def test_three_dashboards_are_there() -> None:
    """Overview, Forward passes and Runs."""
    assert set(_PAGES) == {
        "grafana/overview.json",
        "grafana/forward-passes.json",
        "grafana/runs.json",
    }


@pytest.mark.parametrize("name", generated())
def test_the_files_are_what_the_code_writes(name: str) -> None:
    """`make dashboards` was run after the last change."""
    assert (_FILES / name).read_text("utf-8") == generated()[name]


@on_each_page
def test_pages_are_made_for_reading(page: dict[str, Any]) -> None:
    """Not editable, one crosshair, an id and a question of its own, found by a tag."""
    assert page["editable"] is False
    assert page["graphTooltip"] == 1
    assert page["uid"].startswith("forwardscope-")
    assert page["description"].endswith("?")
    assert page["tags"] == ["forwardscope"]
    assert page["links"][0]["tags"] == page["tags"]


@on_each_page
def test_the_first_row_asks_the_question(page: dict[str, Any]) -> None:
    """What the page is for stands at its top."""
    first = page["panels"][0]
    assert (first["type"], first["title"]) == ("row", page["description"])


@on_each_page
def test_panels_are_numbered_and_do_not_overlap(page: dict[str, Any]) -> None:
    """Each has an id and a place of its own within 24 columns."""
    assert [panel["id"] for panel in page["panels"]] == list(range(1, len(page["panels"]) + 1))
    taken: set[tuple[int, int]] = set()
    for panel in page["panels"]:
        at = panel["gridPos"]
        cells = {
            (at["x"] + column, at["y"] + line)
            for column in range(at["w"])
            for line in range(at["h"])
        }
        assert not cells & taken
        assert max(column for column, _ in cells) < 24
        taken |= cells


@on_each_page
def test_variables_come_in_order(page: dict[str, Any]) -> None:
    """The data source first, then job and instance, then what narrows further; all can be many."""
    found = [variable["name"] for variable in page["templating"]["list"]]
    assert found[0] == "datasource"
    assert tuple(name for name in found if name in VARIABLES) == VARIABLES
    for variable in page["templating"]["list"]:
        if variable["type"] == "query":
            assert (variable["multi"], variable["includeAll"]) == (True, True)
            assert variable["datasource"]["uid"] == "${datasource}"


@on_each_page
@pytest.mark.parametrize("variable", VARIABLES)
def test_each_variable_narrows_something(page: dict[str, Any], variable: str) -> None:
    """A choice that changes nothing would mislead."""
    assert any(f'{variable}=~"${variable}"' in query for query in _selectors(page))


@on_each_panel
def test_panels_say_what_they_show(panel: dict[str, Any]) -> None:
    """Each has a title, a description, a unit and thresholds."""
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"][0]["value"] is None


@on_each_panel
def test_panels_ask_the_chosen_source(panel: dict[str, Any]) -> None:
    """No data source is written into a panel or a query, and each query has its letter."""
    assert panel["targets"]
    assert panel["datasource"]["uid"] == "${datasource}"
    assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}
    letters = [target["refId"] for target in panel["targets"]]
    assert len(set(letters)) == len(letters)


@on_each_panel
def test_queries_are_promql(panel: dict[str, Any]) -> None:
    """Each query parses, with Grafana's own variables filled in."""
    for target in panel["targets"]:
        promql_parser.parse(_filled(target["expr"]))


@on_each_panel
def test_no_counter_is_shown_raw(panel: dict[str, Any]) -> None:
    """Counters and parts of histograms stand within rate() or increase() alone."""
    raw = re.compile(rf"(?:{_COUNTERS}|(?:{_HISTOGRAMS})_(?:bucket|sum|count))\{{[^}}]*\}}")
    for target in panel["targets"]:
        query = target["expr"]
        for found in raw.finditer(query):
            before, after = query[: found.start()], query[found.end() :]
            assert before.endswith(("rate(", "increase("))
            assert after.startswith("[$__")


@on_each_panel
def test_windows_are_the_readers(panel: dict[str, Any]) -> None:
    """No window is of a fixed length."""
    for target in panel["targets"]:
        for window in re.findall(r"\[([^\]]*)\]", target["expr"]):
            assert window in {"$__rate_interval", "$__range", "$__range:$__interval"}


@on_each_panel
def test_quotients_are_guarded(panel: dict[str, Any]) -> None:
    """A ratio of counts has no value where its whole is nothing, instead of 0/0."""
    for target in panel["targets"]:
        for divisor in re.findall(r" / (.{30})", target["expr"]):
            assert divisor.startswith(("(", "forwardscope_cache_max_"))
