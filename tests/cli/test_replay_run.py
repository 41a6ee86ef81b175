"""`forwardscope trace export` of whole runs, as a receiver has them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from forwardscope import BackendInstrumentation
from forwardscope.suite import SuiteSpec
from forwardscope.telemetry import names
from forwardscope.testing import ScriptedBackend

from .viewer import NIGHTLY, Span, Viewer, check_calls, check_names, check_self_times, viewer

#: The baseline of the suite comes late, for spans of probes before it.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*null_adapter gives only later probes"),
    pytest.mark.timeout(900),
]

#: What a trace file does not have: how many spans were elided, and the forward time exactly.
_UNTOLD = (names.ELIDED.name, names.TOTAL_FORWARD_S.name)


@pytest.fixture
def export(invoke: Callable[..., Result], tmp_path: Path) -> Callable[..., list[Span]]:
    """Run a suite, without a receiver unless options name one; return the spans of its export."""

    def call(seen: Viewer, *options: object, with_result: bool = True) -> list[Span]:
        suite, trace, result = (tmp_path / one for one in ("s.yaml", "t.jsonl", "r.json"))
        suite.write_text(NIGHTLY)
        written = ("--trace", trace, "--json", result)
        assert invoke("run", suite, *written, *options).exit_code == 1
        told = ("--result", result) if with_result else ()
        ran = invoke("trace", "export", trace, "--otlp", seen.url, *told)
        assert ran.exit_code == 0
        spans = seen.spans()
        run_id = json.loads(result.read_text())["run_id"]
        assert {one.trace_id for one in spans} == {run_id}
        assert ran.stdout.splitlines()[0] == f"trace {run_id}"
        assert f": {len(spans)} spans exported" in ran.stdout
        return spans

    return call


@pytest.mark.usefixtures("loaded")
def test_export_of_a_run_without_a_receiver(
    seen: Viewer, export: Callable[..., list[Span]]
) -> None:
    """Self times sum to the run, the critical path is the model's, and all links are right."""
    spans = export(seen)
    check_self_times(spans)
    check_names(spans)
    results = check_calls(spans)
    assert results.keys() == {"lookup hit", "lookup miss", "lookup coalesced", "lookup error"}
    path = list(spans[0].critical_path())
    model = sum(one.duration_us for one in spans if one.kind == "forward")
    assert sum(us for one, us in path if one.kind == "forward") == model > 0


def _told(spans: list[Span]) -> Counter[str]:
    """Return how often each span is there, with its parent and its links, without times and ids."""
    by_id = {one.id: one for one in spans}

    def place(one: Span) -> tuple[object, ...]:
        attributes = {name: value for name, value in one.attributes.items() if name not in _UNTOLD}
        return one.name, one.failed, sorted(attributes.items(), key=str)

    def parents(one: Span) -> list[object]:
        above = by_id.get(one.parent_id)
        return [] if above is None else [place(above), *parents(above)]

    return Counter(
        str((place(one), parents(one), [place(by_id[span_id]) for _, span_id in one.links]))
        for one in spans
    )


@pytest.mark.usefixtures("loaded")
def test_export_has_the_spans_of_the_run(export: Callable[..., list[Span]]) -> None:
    """Each has the name, attributes, status, parent and links that it had during the run."""
    with viewer() as during, viewer() as after:
        spans = export(after, "--otlp", during.url, "--span-budget", "all")
        live = during.spans()
        assert _told(spans) == _told(live)
        assert {one.kind for one in spans} == {"suite", "probe", "batch", "lookup", "forward"}


@pytest.mark.usefixtures("loaded")
def test_export_without_the_result(seen: Viewer, export: Callable[..., list[Span]]) -> None:
    """The root is `suite`, and neither it nor a probe has a verdict or failed."""
    spans = export(seen, with_result=False)
    assert spans[0].name == "suite"
    assert {one.name.split()[0] for one in spans if one.failed} == {"lookup", "forward"}
    assert not any(names.VERDICT.name in one.attributes for one in spans)
    check_self_times(spans)


def test_export_of_a_run_that_computes_the_base_first(
    seen: Viewer, export: Callable[..., list[Span]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batches ahead of the probes are below the run, and self times sum to it."""

    class Backend(ScriptedBackend):
        base_first = True

    def load(_: SuiteSpec, instrumentation: BackendInstrumentation, *__: object) -> ScriptedBackend:
        return Backend(instrumentation=instrumentation)

    monkeypatch.setattr("forwardscope.cli.running._load", load)
    spans = export(seen)
    check_self_times(spans)
    assert Counter(one.kind for one in spans[0].children)["batch"] > 0
    assert {one.name for one in spans[0].children if one.kind == "probe"} == {
        *("probe finite_check", "probe strict", "probe raising", "probe baseline"),
        *("probe change", "probe again", "probe response"),
    }
