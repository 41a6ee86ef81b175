"""Each metric and label that is asked for is compared with what this version exports."""

from __future__ import annotations

import sys

import pytest

from forwardscope.dashboards.check import Report, check
from forwardscope.dashboards.files import shipped
from forwardscope.dashboards.reading import Place, Query, queries_in
from forwardscope.errors import MissingExtraError
from forwardscope.telemetry.names import METRICS

_PLACE = Place("page.json", "panel", "A panel")
_SHIPPED = [
    query
    for name, text in shipped().items()
    if name.endswith((".json", ".yml"))
    for query in queries_in(name, text)
]


def asked(text: str, *shown: str, record: str = "", adds: tuple[str, ...] = ()) -> Query:
    """Return a query of a panel or rule."""
    return Query(_PLACE, text, shown, record, adds)


def checked(*queries: Query, **options: list[str]) -> Report:
    """Check queries without any rules but their own."""
    return check(queries, version="9.9", **options)


def said(*queries: Query, **options: list[str]) -> list[str]:
    """Return what is wrong with queries."""
    return [finding.says for finding in checked(*queries, **options).findings]


def test_all_that_ships_is_exported() -> None:
    """No panel, variable, annotation, alert or recording asks in vain, and each kind is there."""
    report = check(_SHIPPED, version="9.9")
    assert report.findings == []
    kinds = {query.place.kind for query in _SHIPPED}
    assert kinds >= {"panel", "variable", "annotation", "rule"}
    assert len(report.metrics) > 30
    assert report.recorded == {query.record for query in _SHIPPED if query.record}
    gateway = ("push_time_seconds", "push_failure_time_seconds", "pushgateway_build_info")
    foreign = {*gateway, "process_start_time_seconds"}
    assert foreign <= report.foreign <= {*foreign, "ALERTS", "up"}


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_examples_of_the_reference_are_exported(metric: object) -> None:
    """What docs/telemetry.md tells people to ask can be asked."""
    assert said(asked(metric.example)) == []  # type: ignore[attr-defined]


def test_a_misspelt_metric() -> None:
    """The version is named, and what is near."""
    assert said(asked("sum(rate(forwardscope_cache_lookup_total[5m]))")) == [
        "forwardscope_cache_lookup_total is not exported by forwardscope 9.9; "
        "did you mean forwardscope_cache_lookups_total?"
    ]


def test_a_name_that_is_nearly_ours() -> None:
    """A slip in the prefix does not make it somebody else's."""
    (says,) = said(asked("fowardscope_cache_lookups_total"))
    assert says.endswith("did you mean forwardscope_cache_lookups_total?")


def test_a_metric_of_somebody_else() -> None:
    """It is listed, and so is a selector that names none; nothing is known of their labels."""
    report = checked(asked('sum by (x) (node_load1{y="z"}) + {job="a"}', "x"))
    assert report.findings == []
    assert report.metrics == frozenset()
    assert report.foreign == {"node_load1", '{job="a"}'}


@pytest.mark.parametrize(
    ("query", "shown", "says"),
    [
        ('forwardscope_run_hits{probe="a"}', (), "forwardscope_run_hits: there is no label probe"),
        ("sum by (probes) (forwardscope_cache_lookups_total)", (), "did you mean probe?"),
        ("forwardscope_run_hits", ("suit",), "legend or text: there is no label suit"),
        ("sum(forwardscope_run_hits)", ("suite",), "no label suite, none at all"),
        ('forwardscope_cache_entries{le="1"}', (), "there is no label le"),
    ],
)
def test_a_wrong_label(query: str, shown: tuple[str, ...], says: str) -> None:
    """It is told where it stands: in a matcher, in an aggregation or in what is shown."""
    (problem,) = said(asked(query, *shown))
    assert says in problem


def test_labels_that_every_series_has() -> None:
    """Those of Prometheus, and those that the user names."""
    query = asked('forwardscope_run_hits{job="a", instance="b", cluster="c"}', "cluster")
    assert len(said(query)) == 2
    assert said(query, added=["cluster"]) == []


def test_parts_of_a_histogram() -> None:
    """Buckets have `le`; the other parts have not, and the whole is no series."""
    name = "forwardscope_forward_duration_seconds"
    assert said(asked(f'{name}_bucket{{le="1"}}'), asked(f"{name}_sum / {name}_count", "op")) == []
    assert said(asked(f"sum by (le) ({name}_sum)"))[0].startswith("sum by (le): there is no label")
    (says,) = said(asked(f"histogram_quantile(0.9, {name})"))[-1:]
    assert says.startswith(f"{name} is not exported by forwardscope 9.9; did you mean {name}_")


def test_a_recorded_metric() -> None:
    """It has the labels that its rule's answer has, and those that the rule adds."""
    rule = asked("sum by (suite) (forwardscope_run_hits)", record="a:hits:sum", adds=("team",))
    assert said(rule, asked("a:hits:sum", "suite", "team")) == []
    (says,) = said(rule, asked("a:hits:sum", "model"))
    assert says.startswith("legend or text: there is no label model, only suite, team")
    report = checked(rule, asked("a:hits:sum"))
    assert (report.metrics, report.recorded) == ({"forwardscope_run_hits"}, {"a:hits:sum"})


def test_recorded_from_recorded() -> None:
    """Labels are followed through rules in any order; a circle ends, and then any will do."""
    first = asked("sum by (suite) (b:forwardscope_x:y)", record="a:forwardscope_x:y")
    second = asked("max by (suite, model) (forwardscope_run_hits)", record="b:forwardscope_x:y")
    assert len(said(first, second, asked("a:forwardscope_x:y", "model"))) == 1
    circle = asked("a:forwardscope_x:y", record="b:forwardscope_x:y")
    assert said(first, circle, asked("b:forwardscope_x:y", "suite")) == []


def test_a_record_that_nobody_makes() -> None:
    """A name with ours in it is looked for among the rules too."""
    rule = asked("sum(forwardscope_run_hits)", record="run:forwardscope_hits:sum")
    assert said(rule, asked("run:forwardscope_hit:sum")) == [
        "run:forwardscope_hit:sum is recorded by no rule; did you mean run:forwardscope_hits:sum?"
    ]


def test_rules_of_others_count_where_there_are_none() -> None:
    """Dashboards alone are checked with the rules that ship; a tree with rules, with its own."""
    page, rule = asked("a:forwardscope_x:sum"), asked("sum(up)", record="a:forwardscope_x:sum")
    assert check([page], recorded=[rule], version="9.9").findings == []
    other = asked("sum(up)", record="b:forwardscope_x:sum")
    assert len(check([page, other], recorded=[rule], version="9.9").findings) == 1


def test_variables_leave_it_open() -> None:
    """What a variable decides is accepted, and what stands beside it is not."""
    query = "sum by ($by) (rate(forwardscope_${what}_total[$__rate_interval]))"
    report = checked(asked(query, "anything"))
    assert len(report.findings) == 1  # by is one label, and not this one
    assert report.foreign == frozenset()
    assert said(asked("sum by ($by) (forwardscope_run_hits)")) == []


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("sum(forwardscope_run_hits", "it is no PromQL: unclosed left parenthesis"),
        ("+".join(["a"] * 2_000), "it is nested too deeply to be looked at"),
        ("a" * 6_000, "it is no PromQL: it has 6000 characters, and up to 5000 are looked at"),
    ],
    ids=["malformed", "deep", "long"],
)
def test_a_query_that_cannot_be_looked_at(query: str, says: str) -> None:
    """It is a finding of its own, also where a rule records it, and others are looked at."""
    assert said(asked(query)) == [says]
    broken = asked(query, record="a:forwardscope_x:sum")
    assert said(broken, asked("a:forwardscope_x:sum", "any")) == [says]


def test_without_the_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra that brings it is named."""
    monkeypatch.delitem(sys.modules, "forwardscope.dashboards.check")
    monkeypatch.setitem(sys.modules, "promql_parser", None)
    with pytest.raises(MissingExtraError, match=r"^promql-parser is not .*forwardscope\[dashboard"):
        import forwardscope.dashboards.check  # noqa: F401, PLC0415
