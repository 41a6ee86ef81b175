"""Metrics and labels that this version does not export are findings."""

from __future__ import annotations

import sys
from collections.abc import Iterable

import pytest

from forwardscope.dashboards.check import Report, check
from forwardscope.dashboards.files import shipped
from forwardscope.dashboards.reading import Place, Query, queries_in
from forwardscope.errors import MissingExtraError
from forwardscope.telemetry.names import METRICS, Metric

_PLACE = Place("page.json", "panel", "A panel")
_SHIPPED = [
    query
    for name, text in shipped().items()
    if name.endswith((".json", ".yml"))
    for query in queries_in(name, text)
]


def panel(text: str, *displayed: str) -> Query:
    """Return a query of a panel."""
    return Query(_PLACE, text, displayed)


def rule(text: str, record: str) -> Query:
    """Return a query whose result a rule records."""
    return Query(_PLACE, text, record=record)


def checked(*queries: Query, added: Iterable[str] = ()) -> Report:
    """Check queries without any rules but their own."""
    return check(queries, added=added, version="9.9")


def messages(*queries: Query, added: Iterable[str] = ()) -> list[str]:
    """Return the messages of the findings in queries."""
    return [finding.message for finding in checked(*queries, added=added).findings]


def test_shipped_files_have_no_finding() -> None:
    """Dashboards and rules use only exported metrics and labels; each recorded metric is used."""
    report = check(_SHIPPED, version="9.9")
    assert report.findings == []
    kinds = {query.place.kind for query in _SHIPPED}
    assert kinds >= {"panel", "variable", "annotation", "rule"}
    assert len(report.metrics) > 30
    assert report.recorded == {query.record for query in _SHIPPED if query.record}
    gateway = ("push_time_seconds", "push_failure_time_seconds", "pushgateway_build_info")
    process = ("cpu_seconds_total", "resident_memory_bytes", "start_time_seconds")
    foreign = {*gateway, *(f"process_{name}" for name in process)}
    foreign |= {"ALERTS", "ALERTS_FOR_STATE", "prometheus_rule_evaluation_failures_total"}
    foreign |= {"node_textfile_scrape_error"}
    assert foreign <= report.foreign <= {*foreign, "up"}


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_examples_of_the_reference(metric: Metric) -> None:
    """The PromQL examples in docs/telemetry.md have no finding."""
    assert messages(panel(metric.example)) == []


def test_a_misspelt_metric() -> None:
    """The message has the version and the closest name."""
    assert messages(panel("sum(rate(forwardscope_cache_lookup_total[5m]))")) == [
        "forwardscope_cache_lookup_total is not exported by forwardscope 9.9; "
        "did you mean forwardscope_cache_lookups_total?"
    ]


def test_a_metric_of_another_program() -> None:
    """Metrics of other programs are listed, and their labels are not checked."""
    selector = '{suite="forwardscope_x"}'
    report = checked(panel(f'sum by (x) (node_load1{{y="z"}}) + {selector}', "x"))
    assert report.findings == []
    assert report.metrics == frozenset()
    assert report.foreign == {"node_load1", selector}


@pytest.mark.parametrize(
    ("query", "displayed", "message"),
    [
        ('forwardscope_run_hits{probe="a"}', (), "forwardscope_run_hits: there is no label probe"),
        ("sum by (probes) (forwardscope_cache_lookups_total)", (), "did you mean probe?"),
        ("forwardscope_run_hits", ("suit",), "legend or text: there is no label suit"),
        ("sum(forwardscope_run_hits)", ("suite",), "no label suite, none at all"),
        ('forwardscope_cache_entries{le="1"}', (), "there is no label le"),
    ],
)
def test_a_wrong_label(query: str, displayed: tuple[str, ...], message: str) -> None:
    """Labels are checked in matchers, aggregations, legends and texts."""
    (problem,) = messages(panel(query, *displayed))
    assert message in problem


def test_labels_that_every_series_has() -> None:
    """Labels that Prometheus adds, and those that the user adds, are accepted."""
    query = panel('forwardscope_run_hits{job="a", instance="b", cluster="c"}', "cluster")
    assert len(messages(query)) == 2
    assert messages(query, added=["cluster"]) == []


def test_series_of_a_histogram() -> None:
    """Only buckets have the label `le`; the histogram's own name is not a series."""
    name = "forwardscope_forward_duration_seconds"
    valid = panel(f'{name}_bucket{{le="1"}}'), panel(f"{name}_sum / {name}_count", "op")
    assert messages(*valid) == []
    assert messages(panel(f"sum by (le) ({name}_sum)"))[0].startswith("sum by (le): there is no")
    (message,) = messages(panel(f"histogram_quantile(0.9, {name})"))
    assert message.startswith(f"{name} is not exported by forwardscope 9.9; did you mean {name}_")


def test_a_recorded_metric() -> None:
    """The labels of a recorded metric are not checked; a misspelt name is a finding."""
    recording = rule("sum(forwardscope_run_hits)", "run:forwardscope_hits:sum")
    report = checked(recording, panel("run:forwardscope_hits:sum", "team"))
    assert report.findings == []
    assert report.metrics == {"forwardscope_run_hits"}
    assert report.recorded == {"run:forwardscope_hits:sum"}
    assert messages(recording, panel("run:forwardscope_hit:sum")) == [
        "run:forwardscope_hit:sum is recorded by no rule; did you mean run:forwardscope_hits:sum?"
    ]


def test_shipped_rules_apply_if_there_are_no_others() -> None:
    """Dashboards alone are checked with the shipped rules, and rules with their own."""
    page, recording = panel("a:forwardscope_x:sum"), rule("sum(up)", "a:forwardscope_x:sum")
    assert check([page], recorded=[recording], version="9.9").findings == []
    other = rule("sum(up)", "b:forwardscope_x:sum")
    assert len(check([page, other], recorded=[recording], version="9.9").findings) == 1


def test_variables() -> None:
    """A name that contains a variable is accepted; other names are checked."""
    query = "sum by ($by) (rate(forwardscope_${what}_total[$__rate_interval]))"
    report = checked(panel(query, "anything"))
    assert len(report.findings) == 1  # by is one label, and not this one
    assert report.foreign == frozenset()
    assert messages(panel("sum by ($by) (forwardscope_run_hits)")) == []


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("sum(forwardscope_run_hits", "it is not PromQL: unclosed left parenthesis"),
        ("+".join(["a"] * 2_000), "it is nested too deeply to be checked"),
        ("a" * 6_000, "it is not PromQL: it has 6000 characters, more than 5000"),
        ("", "it has no expr"),
    ],
    ids=["malformed", "deep", "long", "empty"],
)
def test_a_query_that_cannot_be_checked(query: str, message: str) -> None:
    """An invalid query is a finding; the other queries are checked."""
    assert messages(panel(query), panel("forwardscope_x"))[0] == message
    assert len(messages(panel(query), panel("forwardscope_x"))) == 2


def test_without_the_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the extra that installs it."""
    monkeypatch.delitem(sys.modules, "forwardscope.dashboards.check")
    monkeypatch.setitem(sys.modules, "promql_parser", None)
    with pytest.raises(MissingExtraError, match=r"^promql-parser is not .*forwardscope\[dashboard"):
        import forwardscope.dashboards.check  # noqa: F401, PLC0415
