"""The run of another tool: its spans, counts and result."""

from __future__ import annotations

from pathlib import Path

import pytest

from forwardscope import BackendInstrumentation
from forwardscope.integrations.tool_run import About, Measured, ToolRun, spec_of_tool
from forwardscope.probes import Outcome, Verdict
from forwardscope.suite.observer import Observer, RunStarted
from forwardscope.suite.result import ProbeResult, SuiteResult
from forwardscope.testing import InMemoryTelemetry
from forwardscope.text import printable

_OP, _VIEW = "loglikelihood", "base"


class _Events(Observer):
    """Records the events of a run."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.result: SuiteResult | None = None

    def run_started(self, run: RunStarted) -> None:
        self.seen.append(f"start {run.spec.name}")

    def probe_finished(self, result: ProbeResult) -> None:
        self.seen.append(result.name)

    def run_finished(self, result: SuiteResult | None) -> None:
        self.seen.append("end")
        self.result = result


def _outcome(value: float, verdict: Verdict = Verdict.PASS) -> Measured:
    return Measured("a-tool", Outcome(verdict, f"acc {value}", raw=value))


def test_a_batch_of_several_tasks_is_one_trace() -> None:
    """Suite, a probe for each task with its own lookups, one forward call below the batch."""
    telemetry, events = InMemoryTelemetry(), _Events()
    inst = telemetry.instrumentation()
    spec = spec_of_tool("a-tool", "a-model", "an-adapter")
    with ToolRun(spec, inst, events) as run:
        with run.probe("one"):
            inst.cached(_OP, _VIEW, "a", 0, lambda: 1.0)
        prompts, tasks = ["a", "b", "c"], ["one", "one", "two"]
        inst.cached_batch(
            *(_OP, _VIEW, prompts, 0, lambda missing: [2.0] * len(missing)),
            probes=run.several(tasks),
        )
        result = run.finish({"one": _outcome(0.5), "two": _outcome(0.25)}, About(dtype="float32"))
    names = {one.id: one.name for one in telemetry.spans()}
    tree = [(names.get(one.parent or 0), one.name) for one in telemetry.spans()]
    assert sorted(tree, key=str) == [
        ("lookup batch", "forward base"),
        ("lookup miss", "forward base"),
        ("probe one", "lookup hit"),
        ("probe one", "lookup miss"),
        ("probe one", "lookup miss"),
        ("probe two", "lookup miss"),
        ("suite a-tool", "lookup batch"),
        ("suite a-tool", "probe one"),
        ("suite a-tool", "probe one"),
        ("suite a-tool", "probe two"),
        (None, "suite a-tool"),
    ]
    two = next(one for one in telemetry.spans() if one.name == "probe two")
    assert two.attributes["forwardscope.probe.raw"] == 0.25
    assert two.attributes["forwardscope.forward_passes"] == 1
    batch = next(one for one in telemetry.spans() if one.name == "lookup batch")
    assert two.end_ms <= batch.start_ms  # the lookups are over when the model is called
    root = telemetry.spans()[0]
    assert root.attributes["test.suite.run.status"] == "success"
    assert root.attributes["forwardscope.adapter"] == "an-adapter"
    assert [(one.name, one.raw, one.stats.lookups) for one in result.probes] == [
        ("one", 0.5, 3),
        ("two", 0.25, 1),
    ]
    assert (result.suite, result.model, result.dtype) == ("a-tool", "a-model", "float32")
    assert result.passed
    assert result.reconciliation.holds
    assert events.seen == ["start a-tool", "one", "two", "end"]
    assert events.result is result


def test_a_task_without_a_result_is_an_error_and_so_is_its_run() -> None:
    """What made lookups and measured nothing is not passed over in silence."""
    telemetry = InMemoryTelemetry()
    inst = telemetry.instrumentation()
    with ToolRun(spec_of_tool("a-tool", "m"), inst) as run:
        with run.probe("lost"):
            inst.cached(_OP, _VIEW, "a", 0, lambda: 1.0)
        result = run.finish({"failed": _outcome(0.0, Verdict.FAIL)}, About())
    assert [(one.name, one.verdict) for one in result.probes] == [
        ("lost", Verdict.ERROR),
        ("failed", Verdict.FAIL),
    ]
    assert not result.passed
    status = {one.name: one.status for one in telemetry.spans()}
    assert (status["suite a-tool"], status["probe lost"]) == ("error", "error")


def test_a_run_that_raises_is_aborted_and_ends_all_its_spans() -> None:
    """The spans of its probes are delivered, and later lookups are outside any run."""
    telemetry, events = InMemoryTelemetry(), _Events()
    inst = telemetry.instrumentation()

    def use() -> None:
        with ToolRun(spec_of_tool("a-tool", "m"), inst, events) as run, run.probe("one"):
            inst.cached(_OP, _VIEW, "a", 0, lambda: 1.0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        use()
    spans = {one.name: one for one in telemetry.spans()}
    assert spans["suite a-tool"].attributes["test.suite.run.status"] == "aborted"
    assert spans["suite a-tool"].attributes["error.type"] == "KeyboardInterrupt"
    assert spans["probe one"].parent == spans["suite a-tool"].id
    assert (events.result, events.seen[-1]) == (None, "end")
    assert inst.current_probe is None


@pytest.mark.parametrize("name", ["<script>", "a\nb\x1b[31m", "\ud800", "\u202ertl", "", "/../x"])
def test_names_are_printable_text_everywhere(name: str, tmp_path: Path) -> None:
    """In the result, which can always be written, in records, labels and spans."""
    telemetry = InMemoryTelemetry()
    inst = telemetry.instrumentation()
    with ToolRun(spec_of_tool(name, name, name), inst) as run:
        with run.probe(name):
            inst.cached(_OP, _VIEW, "a", 0, lambda: 1.0)
        inst.cached_batch(
            *(_OP, _VIEW, ["a", "b"], 0, lambda missing: [2.0] * len(missing)),
            probes=run.several([name, "other"]),
        )
        result = run.finish({name: _outcome(1.0), "other": _outcome(1.0)}, About())
    result.write(tmp_path / "result.json")
    (named, _) = SuiteResult.model_validate_json((tmp_path / "result.json").read_text()).probes
    assert (named.name, named.stats.lookups) == (printable(name), 2)
    assert {key.probe for key in inst.ledger.snapshot().series} == {printable(name), "other"}
    assert all(one.name.isprintable() for one in telemetry.spans())


def test_a_run_works_without_spans() -> None:
    """Labels and counts are the same where nothing records spans."""
    inst = BackendInstrumentation()
    with ToolRun(spec_of_tool("a-tool", "m"), inst) as run:
        inst.cached_batch(
            *(_OP, _VIEW, ["a", "b"], 0, lambda missing: [2.0] * len(missing)),
            probes=run.several(["one", "two"]),
        )
        result = run.finish({"one": _outcome(1.0), "two": _outcome(1.0)}, About())
    assert [(one.name, one.stats.forward_passes) for one in result.probes] == [
        ("one", 1),
        ("two", 1),
    ]
    assert result.trace_id is None
    assert result.about.startswith("model m; ")
