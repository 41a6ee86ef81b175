"""The HTML report of a run: its content and its escaping."""

from __future__ import annotations

import json
import re
import tracemalloc
from collections.abc import Callable
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from forwardscope import BackendInstrumentation, TraceEvent, TraceReader
from forwardscope.analysis.chart_data import ChartData
from forwardscope.analysis.report import report, report_of_runs
from forwardscope.probes import DeltaKL, PerplexityShift, Probe
from forwardscope.suite import SuiteResult, SuiteSpec, run_suite
from forwardscope.suite.result import Delivery, ServerUse, StoreUse
from forwardscope.suite.spec import ModelSpec
from forwardscope.testing import MemoryStore, ScriptedBackend

from .conftest import MakeEvent

Run = tuple[SuiteResult, list[TraceEvent]]
RunOf = Callable[..., Run]


class _Tags(HTMLParser):
    """All tags and attributes of a page; every tag must be closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture
def run_of(tmp_path: Path) -> RunOf:
    """Return a function that runs probes with a trace."""

    def run(*probes: Probe, model: str = "m", name: str = "nightly") -> Run:
        path = tmp_path / "t.jsonl"
        path.unlink(missing_ok=True)
        backend = ScriptedBackend(instrumentation=BackendInstrumentation(trace_path=path))
        spec = SuiteSpec(
            version=1, name=name, model=ModelSpec(path=model, adapter="a"), probes=probes
        )
        result = run_suite(spec, backend)
        backend.close()
        return result, list(TraceReader(path))

    return run


@pytest.fixture
def two(run_of: RunOf) -> Run:
    return run_of(*(DeltaKL(name=name, prompts=["a", "b"]) for name in ("one", "two")))


def charts(page: str) -> dict[str, Any]:
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    return dict(json.loads(data))


def cells(page: str) -> list[list[str]]:
    """Return the texts of all rows of all tables."""
    rows = re.findall(r"<tr>(.*?)</tr>", page, re.S)
    return [[unescape(cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", row)] for row in rows]


def test_it_has_verdicts_and_series(two: Run) -> None:
    """Each probe has its verdict and message, each series its lookups and forward passes."""
    result, events = two
    page = report(result, events)
    _Tags(page)
    rows = cells(page)
    assert page.index("<h2>Verdicts") < page.index("<h2>Measurements") < page.index("<h2>Cost")
    assert "<p>2 probes: 2 pass; score 0.98 of 1</p>" in page
    for probe in result.probes:
        (row,) = (row for row in rows if row[:2] == [probe.name, probe.verdict.value])
        assert row[3] == f"{probe.raw:.4g}"
        assert f"<p>{probe.message}; score {probe.score:.2f}</p>" in page
        assert f"How sure: {probe.interval_note}; without z: no random adapters before it." in page
    for one in result.series:
        expected = [
            one.probe or "(outside)",
            one.view_id,
            str(one.lookups),
            str(one.forward_passes),
        ]
        assert expected in [row[:4] for row in rows]
    assert (
        "10 lookups, 40.0 % answered without a forward pass; 6 forward passes, 6 expected" in page
    )
    assert "Reconciled: 10 lookups, 10 trace records." in page
    assert "raw: one in nats, two in nats; z: " in page
    assert "expected: those of the plan" in page


def test_the_ops_of_a_probe_are_apart(run_of: RunOf) -> None:
    """They are a column where there are several."""
    result, events = run_of(
        DeltaKL(name="one", prompts=["a"]), PerplexityShift(name="two", texts=["one two three"])
    )
    rows = [row[:3] for row in cells(report(result, events))]
    for series in result.series:
        assert rows.count([series.probe or "(outside)", series.view_id, series.op]) == 1


def test_what_answered_the_lookups(two: Run) -> None:
    """There is a row for memory and for the model, and none for a store that was not used."""
    page = report(two[0], None)
    assert [row[:3] for row in cells(page) if row[:1] in (["memory"], ["computed"], ["disk"])] == [
        ["memory", "4", "40.0 %"],
        ["computed", "6", "60.0 %"],
    ]
    assert 'aria-label="Lookups by what answered them: memory 40.0 %, computed 60.0 %"' in page
    assert "verified" not in page
    assert "paid" not in page


@pytest.fixture
def warm(tmp_path: Path) -> Run:
    """A run whose values are all in its store."""
    spec = SuiteSpec(
        version=1,
        name="nightly",
        model=ModelSpec(path="m", adapter="a"),
        probes=(DeltaKL(name="one", prompts=["a", "b"]), DeltaKL(name="two", prompts=["a", "b"])),
    )
    store, path = MemoryStore("s.db"), tmp_path / "warm.jsonl"
    for trace in (None, path):
        inst = BackendInstrumentation(store=store, verify=1.0, trace_path=trace)
        backend = ScriptedBackend(instrumentation=inst, view_identity=lambda view: view)
        result = run_suite(spec, backend)
        backend.close()
    return result, list(TraceReader(path))


def test_a_run_that_a_store_answered(warm: Run) -> None:
    """What was needed is compared with what was expected, and nothing was paid."""
    page = report(*warm)
    _Tags(page)
    assert "6 forward passes needed, 6 expected, 0 paid" in page
    assert "paid: those that the store did not spare" in page
    assert "<p>6 of 6 forward passes answered from disk: s.db, with 6 entries.</p>" in page
    rows = cells(page)
    assert ["memory", "4", "40.0 %", "–", "–"] in rows
    assert ["disk", "6", "60.0 %", "6", "0"] in rows
    assert ["computed", "0", "0.0 %", "–", "–"] in rows
    assert ["one", "base", "2", "2", "2", "0"] in [row[:6] for row in rows]
    assert page.count("The run paid for no forward pass that succeeded.") == 2
    assert 'class="fail"' not in page


def test_requests_to_a_server(run_of: RunOf) -> None:
    """A run of a served model has its requests, and what of them went wrong."""
    result, _ = run_of(DeltaKL(name="one", prompts=["a"]))
    assert "equests to the server" not in report(result, None)
    use = {"requests": 9, "retries": 4, "throttled": 3, "failed": 2}
    server = ServerUse(address="server", port=8000, **use)
    page = report(result.model_copy(update={"server": server}), None)
    assert "<p>Requests to the server: 9, retried 4, throttled 3, failed 2.</p>" in page


def test_stored_values_that_were_wrong_are_in_red(warm: Run) -> None:
    """Their number and the sentence about them; what else happened to the store is a sentence."""
    result = warm[0]
    assert result.store is not None
    lost = report(result.model_copy(update={"store": _with(result, dropped=3)}), None)
    assert "<p>Store: 3 values not stored.</p>" in lost
    wrong = report(result.model_copy(update={"store": _with(result, mismatches=2)}), None)
    assert '<td class="number fail">2</td>' in wrong
    assert (
        '<p class="fail">Store: 2 stored values did not agree with the computed one, which was '
        "used and stored.</p>"
    ) in wrong


def _with(result: SuiteResult, **counts: int) -> StoreUse:
    assert result.store is not None
    return result.store.model_copy(update=counts)


def test_failed_lookups_are_a_part_of_the_cost(run_of: RunOf) -> None:
    """They have a row where there are some."""
    result, _ = run_of(DeltaKL(name="one", prompts=["a"]))
    first = result.series[0].model_copy(update={"forward_errors": 2})
    page = report(result.model_copy(update={"series": [first, *result.series[1:]]}), None)
    assert ["failed", "2", "33.3 %"] in cells(page)
    assert "failed" not in [row[0] for row in cells(report(result, None)) if row]


def test_it_has_the_warnings_of_the_run(two: Run) -> None:
    """Each warning is a paragraph, as escaped text."""
    result = two[0].model_copy(update={"warnings": ["another base", "<b>"]})
    page = report(result, None)
    assert "<p>Warning: another base</p><p>Warning: &lt;b&gt;</p>" in page
    assert "Warning" not in report(two[0], None)


def test_records_are_read_once_and_not_kept(two: Run, event: MakeEvent) -> None:
    """Memory is a fraction of that of the records."""
    total, size = 6000, 2000
    records = (
        event(str(n % 10), hit=n >= 10, ts=n + 1.0, parent_id=f"{n:0{size}}") for n in range(total)
    )
    tracemalloc.start()
    try:
        page = report(two[0], records)
        assert tracemalloc.get_traced_memory()[1] < total * size / 3
    finally:
        tracemalloc.stop()
    assert charts(page)["timeline"]["omitted"] == total - 10 - (total - 10) / 2


def test_charts(two: Run) -> None:
    """The charts have every lookup, every forward pass, and the curve up to its maximum."""
    result, events = two
    found = charts(report(result, events))
    timeline, durations, curve = (found[name] for name in ("timeline", "durations", "curve"))
    assert timeline["probes"] == ["(outside)", "one", "two"]
    assert sum(one is not None for one in timeline["passes"]) == 6
    assert sum(one is not None for one in timeline["hits"]) == 4
    assert timeline["seconds"] == sorted(timeline["seconds"])
    assert timeline["seconds"][0] >= 0
    assert sum(durations["counts"]) == 6
    assert len(durations["counts"]) == len(durations["labels"])
    assert curve["rates"][-1] == curve["best"][-1] == 0.4
    assert curve["sizes"] == sorted(set(curve["sizes"]))
    assert "each prompt of a batch has an even share" in report(result, events)


def test_the_table_of_the_timeline(event: MakeEvent) -> None:
    """When the lookups of each probe ended, from the beginning of the first one."""
    lookups = [("one", 2.0, False), ("two", 3.0, True), ("one", 5.0, True), ("one", 4.0, False)]
    events = [event("a", probe=probe, ts=ts, hit=hit, wall_ms=1000.0) for probe, ts, hit in lookups]
    data = ChartData()
    assert list(data.collect(events)) == events
    assert data.timeline_table().rows == [("one", 1.0, 4.0, 2, 1), ("two", 2.0, 2.0, 0, 1)]


def test_without_a_trace(two: Run) -> None:
    """The page names the missing parts and has no charts."""
    page = report(two[0], None)
    _Tags(page)
    assert "--trace FILE" in page
    assert charts(page) == {}
    assert 'class="chart"' not in page


def test_it_loads_nothing_from_the_network(two: Run) -> None:
    """No tag has a URL, and the content security policy forbids requests."""
    tags = _Tags(report(*two)).tags
    policy = next(one["content"] for tag, one in tags if "http-equiv" in one)
    assert policy == (
        "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"
    )
    for tag, attributes in tags:
        assert "src" not in attributes
        assert tag not in ("iframe", "img", "object", "form", "base")
        assert attributes.get("href") in (None, "data:,")


def test_everything_is_escaped(run_of: RunOf) -> None:
    """Names, paths, messages and deliveries are escaped in tables, text and chart data."""
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
    result, events = run_of(DeltaKL(name=evil, prompts=["a", "b", "a"]), model=evil, name=evil)
    result = result.model_copy(update={"delivery": [Delivery(to=evil, what=evil, ok=True)]})
    events = [TraceEvent(**{**one.to_dict(), "op": evil, "view_id": evil}) for one in events]
    page = report(result, events)
    tags = [tag for tag, _ in _Tags(page).tags]
    assert (tags.count("script"), tags.count("img")) == (2, 0)
    assert charts(page)["timeline"]["probes"][1] == evil
    assert [row for row in cells(page) if evil in row]


def test_names_are_printable_and_bounded(run_of: RunOf) -> None:
    """A page has no control character of a name, and of a long name the ends."""
    name = f"\x1b[31m{'x' * 100_000}end"
    result, events = run_of(DeltaKL(name=name, prompts=["a"]), name=name, model=name)
    result = result.model_copy(update={"warnings": [name], "delivery": []})
    page = report(result, events)
    assert "\x1b" not in page
    assert "\\u001b" not in page
    assert r"\x1b[31mxx" in page
    assert "xxend" in page
    assert "x" * 5000 not in page


def test_many_lookups_are_sampled(two: Run, event: MakeEvent) -> None:
    """The page has a bounded number of dots and the number of omitted lookups."""
    hits = [event("a", hit=True, ts=float(place)) for place in range(30_000)]
    page = report(two[0], [event("a", ts=0.0), *hits])
    timeline = charts(page)["timeline"]
    assert sum(one is not None for one in timeline["passes"]) == 1
    assert sum(one is not None for one in timeline["hits"]) == 5000
    assert "Not plotted: 25 000 lookups." in page.replace("\u202f", " ")
    assert len(page) < 1_000_000


def test_a_trace_without_passes_or_hits(two: Run, event: MakeEvent) -> None:
    """The page has no empty charts of passes or of the curve."""
    page = report(two[0], [event("a", hit=True)])
    assert "durations" not in charts(page)
    assert "curve" not in charts(report(two[0], [event("a")]))


def test_a_run_that_did_not_pass(run_of: RunOf) -> None:
    """The heading has the verdict of the run."""
    result, events = run_of(DeltaKL(name="one", prompts=["a"], min_mean=1e9))
    page = report(result, events)
    assert "<h1>nightly did not pass</h1>" in page
    assert '<td class="fail">fail</td>' in page


def test_several_runs(run_of: RunOf) -> None:
    """One page with an article for each, which a list leads to; each has its own charts."""
    first = run_of(DeltaKL(name="one", prompts=["a"]), name="<first>")
    second = run_of(DeltaKL(name="two", prompts=["a", "b"]), name="second")
    page = report_of_runs([first, second])
    _Tags(page)
    assert "<h1>2 runs</h1>" in page
    assert '<a href="#run-1">&lt;first&gt; passed, a, ' in page
    assert page.index('<article id="run-1">') < page.index("<h1>&lt;first&gt; passed</h1>")
    assert page.index('<article id="run-2">') < page.index("<h1>second passed</h1>")
    found = charts(page)
    assert found["timeline"]["probes"] == ["(outside)", "one"]
    assert found["timeline-2"]["probes"] == ["(outside)", "two"]
    assert 'id="timeline-2" data-kind="timeline"' in page


def test_the_data_of_each_chart_is_a_table(two: Run) -> None:
    """Also that of the charts of the trace: for each probe its passes and hits."""
    page = report(*two)
    assert page.count("<figure>") + page.count('class="chart"') == page.count("<details>")
    rows = [[row[0], *row[3:]] for row in cells(page) if len(row) == 5]
    assert ["one", "4", "0"] in rows
    assert ["two", "0", "4"] in rows


def test_charts_of_many_probes(two: Run) -> None:
    """The first hundred have charts, and the page says how many have none."""
    probes = [two[0].probes[0].model_copy(update={"name": f"p{place}"}) for place in range(102)]
    page = report(two[0].model_copy(update={"probes": probes}), None)
    assert page.count("<figure>") == 100
    assert "2 further probes without charts here." in page
    assert "p101" in page
    assert "without charts here" not in report(two[0], None)


def test_a_result_that_lacks_data_says_so(two: Run) -> None:
    """As that of an older version; the rest of the page is there."""
    probes = [probe.model_copy(update={"evidence": {}}) for probe in two[0].probes]
    page = report(two[0].model_copy(update={"probes": probes}), None)
    _Tags(page)
    assert "one: the result lacks the data of its chart" in page
    assert "<figure>" not in page
    assert probes[0].message in page
    old = {"divergence": "js", "per_prompt": [0.1, 0.2]}
    probes = [probe.model_copy(update={"evidence": old, "z_score": 4.0}) for probe in probes]
    page = report(two[0].model_copy(update={"probes": probes}), None)
    assert page.count("<figure>") == 2
    assert "one: the result lacks the values of its random adapters" in page
