"""The spans of whole runs, as a receiver has them and as trace viewers compute with them."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from forwardscope import BackendInstrumentation
from forwardscope.cli.otlp import make_exporter
from forwardscope.cli.otlp_provider import make_provider
from forwardscope.cli.span_delivery import SpanDelivery
from forwardscope.cli.targets import OtlpTarget
from forwardscope.core.keys import prompt_hash
from forwardscope.probes import DeltaKL
from forwardscope.suite import SuiteSpec, run_suite
from forwardscope.suite.spec import ModelSpec
from forwardscope.telemetry import names
from forwardscope.testing import ScriptedBackend, ScriptedView, pseudo_random_logits

from .viewer import NIGHTLY, Span, Viewer, check_calls, check_names, check_self_times

#: The baseline of the suite comes late, for spans of probes before it.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*null_adapter gives only later probes"),
    pytest.mark.timeout(900),
]

_PATIENCE_S = 60.0
_PRIVATE = "a secret prompt"
_JAEGER = "http://127.0.0.1:16686/trace/{trace_id}"


@pytest.fixture
def run(
    seen: Viewer, invoke: Callable[..., Result], loaded: list[ScriptedBackend], tmp_path: Path
) -> dict[str, Any]:
    """Run the suite in one thread with all spans; return its result."""
    suite, path = tmp_path / "suite.yaml", tmp_path / "result.json"
    suite.write_text(NIGHTLY)
    ran = invoke("run", suite, "--otlp", seen.url, "--span-budget", "all", "--json", path)
    assert (ran.exit_code, len(loaded)) == (1, 1)
    result: dict[str, Any] = json.loads(path.read_text())
    return result


def _check_errors(spans: list[Span]) -> None:
    """Check that a span has the status Error and the exception's class together, or neither."""
    for one in spans:
        assert one.failed == (names.ERROR_TYPE.name in one.attributes)
        assert _PRIVATE not in str(one.attributes)
        assert "gone" not in str(one.attributes)


@pytest.mark.usefixtures("run")
def test_self_times_sum_to_the_run(seen: Viewer) -> None:
    """In one thread no two spans overlap but parents and children: in microseconds, exactly."""
    check_self_times(seen.spans())


@pytest.mark.usefixtures("run")
def test_critical_path_is_the_models(seen: Viewer) -> None:
    """It leads through every forward call for all of its time."""
    spans = seen.spans()
    path = list(spans[0].critical_path())
    assert sum(us for _, us in path) == spans[0].duration_us
    model = sum(one.duration_us for one in spans if one.kind == "forward")
    assert sum(us for one, us in path if one.kind == "forward") == model > 0


def test_lookups_of_a_run(seen: Viewer, run: dict[str, Any]) -> None:
    """Each leads to its forward call, names are few, and as many arrive as the result says."""
    spans = seen.spans()
    results = check_calls(spans)
    assert results.keys() == {"lookup hit", "lookup miss", "lookup coalesced", "lookup error"}
    check_names(spans)
    assert {one.name for one in spans if one.kind == "forward"} == {
        *("forward base", "forward ft", "forward scaled", "forward null")
    }
    counted = run["reconciliation"]
    assert results.total() == counted["lookups"] == counted["spans"]["exported"]
    assert counted["holds"]
    assert counted["spans"] == {"exported": counted["lookups"]}


def test_models_of_a_run(seen: Viewer, run: dict[str, Any]) -> None:
    """Only forward spans have GenAI attributes; those of an adapter name it first."""
    del run
    models = {}
    for one in seen.spans():
        assert (one.kind == "forward") == any(name.startswith("gen_ai.") for name in one.attributes)
        if one.kind == "forward":
            models[one.name] = one.attributes[names.MODEL.name]
            assert one.attributes[names.OPERATION.name] == "text_completion"
    tuned = "some-adapter on some-model"
    assert models == {
        "forward base": "some-model",
        "forward null": "some-model",
        "forward ft": tuned,
        "forward scaled": tuned,
    }


def test_statuses_of_a_run(seen: Viewer, run: dict[str, Any]) -> None:
    """A failed probe, a raising one and their suite are errors, without any message."""
    spans = seen.spans()
    _check_errors(spans)
    (suite,) = [one for one in spans if one.kind == "suite"]
    probes = {one.name: one for one in spans if one.kind == "probe"}
    assert (suite.name, suite.failed) == ("suite nightly", True)
    assert suite.attributes[names.SUITE_STATUS.name] == "failure"
    assert suite.attributes[names.ERROR_TYPE.name] == "probe_failed"
    assert list(probes) == [
        *("probe finite_check", "probe strict", "probe raising"),
        *("probe baseline", "probe change", "probe again", "probe response"),
    ]
    failed = {one.name: one.attributes[names.ERROR_TYPE.name] for one in spans if one.failed}
    assert {name: error for name, error in failed.items() if name in probes} == {
        "probe strict": "probe_failed",
        "probe raising": "RuntimeError",
    }
    assert failed.keys() >= {"lookup error", "lookup batch", "forward base"}
    for probe in run["probes"]:
        told = probes[f"probe {probe['name']}"].attributes
        assert told[names.VERDICT.name] == probe["verdict"]
        for attribute in (names.SCORE, names.RAW, names.Z_SCORE):
            assert told.get(attribute.name) == probe[attribute.name.rpartition(".")[2]]


def test_run_that_passes(
    seen: Viewer, invoke: Callable[..., Result], suite_file: Path, loaded: list[ScriptedBackend]
) -> None:
    """No span of it is an error."""
    assert invoke("run", suite_file, "--otlp", seen.url).exit_code == 0
    assert len(loaded) == 1
    spans = seen.spans()
    assert not any(one.failed for one in spans)
    assert spans[0].attributes[names.SUITE_STATUS.name] == "success"


def test_failed_check(
    seen: Viewer, invoke: Callable[..., Result], suite_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no logits are finite, its probe and the suite are errors of the same class."""

    def script(view: ScriptedView, prompt: str) -> Any:
        return pseudo_random_logits(view, prompt) * float("nan")

    def load(_: SuiteSpec, instrumentation: BackendInstrumentation, *__: object) -> ScriptedBackend:
        return ScriptedBackend(script, instrumentation=instrumentation)

    monkeypatch.setattr("forwardscope.cli.running._load", load)
    assert invoke("run", suite_file, "--otlp", seen.url).exit_code == 1
    suite, probe, *_ = spans = seen.spans()
    assert [suite.name, probe.name] == ["suite suite", "probe finite_check"]
    assert all(one.failed for one in spans)
    assert {one.attributes[names.ERROR_TYPE.name] for one in spans} == {"NonFiniteError"}


class _Traffic:
    """Lookups of one backend from several threads; some batches fail."""

    def __init__(self, backend: BackendInstrumentation) -> None:
        self.backend = backend

    def look_up(self, me: int) -> None:
        for turn in range(60):
            prompts = [f"{turn // 4} {(me + turn + n) % 5}" for n in range(4)]
            self.backend.cached("op", "ft", prompts[0], 8, lambda: time.sleep(0.0005))
            self._batch("base", prompts)
            if turn % 10 == me:
                with pytest.raises(KeyError):
                    self._batch("scaled_0.5", [*prompts, _PRIVATE])

    def _batch(self, view_id: str, prompts: list[str]) -> None:
        def compute(indices: list[int]) -> list[int]:
            time.sleep(0.0005)
            if _PRIVATE in prompts:
                raise KeyError(_PRIVATE)
            return indices

        self.backend.cached_batch("op", view_id, prompts, 8, compute)


def test_two_threads_and_a_second_run_on_one_backend(
    seen: Viewer, together: Any, in_thread: Any, until_waiting: Any
) -> None:
    """Each lookup leads to its own call: coalesced, failed, retried, and of an earlier run."""
    delivery = SpanDelivery(make_exporter(OtlpTarget(seen.url, "http/protobuf", explicit=True)))
    inst = BackendInstrumentation(tracer_provider=make_provider(delivery), span_budget=50)
    inst.spans.delivery = delivery
    backend = ScriptedBackend(instrumentation=inst)
    model = ModelSpec(path="some-model", adapter="some-adapter")
    probe = DeltaKL(name="change", prompts=["a", "b", "a"], min_mean=1e-6)
    for _ in range(2):
        assert run_suite(SuiteSpec(version=1, model=model, probes=(probe,)), backend).passed
    together(2, _Traffic(inst).look_up)
    key, begun = ("op", "base", "one", 8), threading.Event()

    def fail() -> None:
        begun.set()
        until_waiting(inst, key)
        raise KeyError(_PRIVATE)

    leader = in_thread(lambda: inst.cached(*key, fail))
    assert begun.wait(_PATIENCE_S)
    inst.cached_batch("op", "base", ["one", "two"], 8, lambda indices: indices)  # retries one
    assert isinstance(leader.exception(_PATIENCE_S), KeyError)
    inst.close()
    delivery.close(_PATIENCE_S)

    spans = seen.spans()
    check_names(spans)
    _check_errors(spans)
    results = check_calls(spans)
    assert all(results[f"lookup {one}"] for one in ("hit", "miss", "coalesced", "error"))
    runs = [one.trace_id for one in spans if one.kind == "suite"]
    second = [one for one in spans if one.trace_id == runs[1] and one.kind == "lookup"]
    assert {trace for one in second for trace, _ in one.links} == {runs[0]}
    digest = prompt_hash("one")
    retried = [one for one in spans if one.attributes.get(names.PROMPT_HASH.name) == digest]
    assert sorted(one.name for one in retried) == ["lookup error", "lookup miss"]
    outcomes = inst.spans.outcomes()
    arrived = Counter(one.kind for one in spans)
    assert {kind: n for (kind, outcome), n in outcomes.items() if outcome == "exported"} == arrived
    own = {outcome: n for (kind, outcome), n in outcomes.items() if kind == "lookup"}
    assert own.keys() == {"exported", "elided"}
    assert sum(own.values()) == inst.stats.total_lookups
    misses = results["lookup miss"] + results["lookup error"]
    assert misses == inst.stats.cache_misses


def test_addresses_of_a_trace(
    seen: Viewer,
    invoke: Callable[..., Result],
    suite_file: Path,
    loaded: list[ScriptedBackend],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Report, gate, HTML report and `trace why` print it; the suite's setting wins."""
    monkeypatch.setenv("FORWARDSCOPE_TRACES_URL", "http://other/{trace_id}")
    monkeypatch.chdir(suite_file.parent)
    run = ("run", suite_file, "--otlp", seen.url, "--json", "r.json", "--trace", "t.jsonl")
    told = invoke(*run, "--traces-url", _JAEGER)
    assert (told.exit_code, len(loaded)) == (0, 1)
    trace_id = json.loads(Path("r.json").read_text())["trace_id"]
    jaeger, other = _JAEGER.format(trace_id=trace_id), f"http://other/{trace_id}"
    assert f"trace {trace_id}: {jaeger}" in told.stdout.splitlines()
    compared = invoke("gate", "r.json", "t.jsonl").stdout.splitlines()
    assert f"trace of the reference run: {jaeger}" in compared
    assert f"trace of the current run: {other}" in compared
    assert f": {jaeger}\n" in invoke("gate", "r.json", "r.json", "--format", "markdown").stdout
    facts = json.loads(invoke("gate", "r.json", "t.jsonl", "--format", "json").stdout)
    assert (facts["reference_trace"], facts["current_trace"]) == (jaeger, other)
    why = ("trace", "why", "t.jsonl", "--miss", 1)
    assert invoke(*why).stdout.splitlines()[-1] == f"  trace: {other}"
    (explained,) = json.loads(invoke(*why, "--format", "json").stdout)
    assert explained["trace_url"] == other
    assert invoke("report", "r.json", "-o", "r.html").exit_code == 0
    assert f'<a href="{jaeger}">trace {trace_id}</a>' in Path("r.html").read_text()
    assert trace_id in {one.trace_id for one in seen.spans()}


def test_run_without_spans_has_no_address(
    invoke: Callable[..., Result],
    suite_file: Path,
    loaded: list[ScriptedBackend],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither has one that was not sampled."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    monkeypatch.chdir(suite_file.parent)
    for otlp in ((), ("--otlp", "http://127.0.0.1:9")):
        told = invoke("run", suite_file, *otlp, "--json", "r.json", "--traces-url", _JAEGER)
        assert told.exit_code == 0
        assert "16686" not in told.stdout
        assert "16686" not in invoke("gate", "r.json", "r.json").stdout
    assert len(loaded) == 2


def test_invalid_addresses_are_refused(
    error_of: Callable[..., str],
    suite_file: Path,
    loaded: list[ScriptedBackend],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No model is loaded; the option or the variable is named."""
    assert "--traces-url 'nonsense'" in error_of("run", suite_file, "--traces-url", "nonsense")
    monkeypatch.setenv("FORWARDSCOPE_TRACES_URL", "ftp://{trace_id}\x1b[2J")
    message = error_of("run", suite_file)
    assert message.startswith("FORWARDSCOPE_TRACES_URL must be an http or https URL")
    assert message.isprintable()
    assert loaded == []


def test_hostile_addresses_in_a_result(
    invoke: Callable[..., Result],
    error_of: Callable[..., str],
    suite_file: Path,
    loaded: list[ScriptedBackend],
    tmp_path: Path,
) -> None:
    """A result with another scheme is refused; markup and control characters are escaped."""
    path, page = tmp_path / "r.json", tmp_path / "r.html"
    assert invoke("run", suite_file, "--json", path).exit_code == 0
    assert len(loaded) == 1
    result = json.loads(path.read_text()) | {"trace_id": "1" * 32}
    path.write_text(json.dumps(result | {"traces_url": "javascript:alert('{trace_id}')"}))
    for command in (("gate", path, path), ("report", path, "-o", page)):
        assert "traces_url: must be an http or https URL" in error_of(*command)
    url = 'http://h/"><script>\x1b[2J{trace_id}'
    path.write_text(json.dumps(result | {"traces_url": url}))
    told = invoke("gate", path, path).stdout
    assert f'reference run: http://h/"><script>\\x1b[2J{"1" * 32}\n' in told
    assert invoke("report", path, "-o", page).exit_code == 0
    assert f'href="http://h/&quot;&gt;&lt;script&gt;\\x1b[2J{"1" * 32}"' in page.read_text()
