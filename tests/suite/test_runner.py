"""Running a suite: its order, its verdicts, and what is left behind when something breaks."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from forwardscope import BackendInstrumentation, TraceReader
from forwardscope.core.keys import prompt_hash
from forwardscope.errors import NonFiniteError
from forwardscope.probes import AdapterAblation, DeltaKL, NullAdapter, Probe, Verdict
from forwardscope.suite import Observer, ProbeResult, SuiteResult, SuiteSpec, run_suite
from forwardscope.suite.execution import FINITE_CHECK
from forwardscope.suite.observer import Observers
from forwardscope.suite.spec import Defaults
from forwardscope.testing import ScriptedBackend, ScriptedView, pseudo_random_logits

MakeSpec = Callable[..., SuiteSpec]
FloatArray = npt.NDArray[np.float64]

ONE = DeltaKL(name="one", prompts=["a", "b"], min_mean=1e-6)
TWO = DeltaKL(name="two", prompts=["c"], min_mean=1e-6)


def failing_on(
    prompt: str, error: BaseException
) -> Callable[[ScriptedView, str], npt.NDArray[np.float64]]:
    """Make a script that raises for one prompt."""

    def script(view: ScriptedView, asked: str) -> FloatArray:
        if asked == prompt:
            raise error
        return pseudo_random_logits(view, asked)

    return script


def stopping_on(
    prompt: str, instrumentation: Callable[[], BackendInstrumentation]
) -> Callable[[ScriptedView, str], npt.NDArray[np.float64]]:
    """Make a script that requests a stop at one prompt."""

    def script(view: ScriptedView, asked: str) -> FloatArray:
        if asked == prompt:
            instrumentation().request_stop()
        return pseudo_random_logits(view, asked)

    return script


def broken(view_id: str) -> Callable[[ScriptedView, str], npt.NDArray[np.float64]]:
    """Make a script that gives NaN for one view."""

    def script(view: ScriptedView, asked: str) -> FloatArray:
        logits = pseudo_random_logits(view, asked)
        return logits * math.nan if view.id == view_id else logits

    return script


class Watcher(Observer):
    """An observer that takes notes."""

    def __init__(self) -> None:
        self.notes: list[tuple[object, ...]] = []

    def probe_started(self, index: int, probe: Probe) -> None:
        self.notes.append(("started", index, probe.name))

    def probe_finished(self, result: ProbeResult) -> None:
        self.notes.append(("finished", result.name, result.verdict))


def findings(result: SuiteResult) -> list[dict[str, object]]:
    """Return what the probes found, without how long it took and what it cost."""
    return [probe.model_dump(exclude={"duration_s", "stats"}) for probe in result.probes]


def test_all_probes_run_in_order(whole: SuiteSpec) -> None:
    """Each of the four kinds gets its place, its verdict and its numbers in the result."""
    result = run_suite(whole, ScriptedBackend())
    assert [(probe.name, probe.kind) for probe in result.probes] == [
        ("baseline", "null_adapter"),
        ("change", "delta_kl"),
        ("response", "adapter_ablation"),
        ("long-context", "prompt_collapse"),
    ]
    assert Verdict.ERROR not in {probe.verdict for probe in result.probes}
    assert Verdict.SKIP not in {probe.verdict for probe in result.probes}
    assert result.probes[1].z_score is not None
    assert set(result.probes[2].evidence) >= {"lambdas", "mean_divergence_per_lambda"}
    assert set(result.probes[3].evidence) >= {"context_lengths", "mean_divergence_per_length"}


def test_result_says_what_was_run(make_spec: MakeSpec) -> None:
    """The result has the suite, the backend, the versions and the time."""
    before = datetime.now(UTC) - timedelta(seconds=1)  # the result's time has whole seconds
    spec = make_spec(ONE, exactness="strict", period="6h", defaults=Defaults(seed=5))
    result = run_suite(spec, ScriptedBackend())
    assert (result.suite, result.model, result.adapter) == ("tested", "some-model", "some-adapter")
    assert (result.identity, result.exactness, result.device) == ("scripted", "strict", "auto")
    assert (result.seed, result.period_s) == (5, 21_600)
    assert {"python", "forwardscope", "numpy"} <= set(result.versions)
    assert before <= datetime.fromisoformat(result.started_at) <= datetime.now(UTC)
    assert result.wall_s >= sum(probe.duration_s for probe in result.probes)


def test_each_run_has_an_id_of_its_own(make_spec: MakeSpec) -> None:
    """Two runs of one suite can be told apart."""
    backend, spec = ScriptedBackend(), make_spec(ONE)
    ids = {run_suite(spec, backend).run_id for _ in range(2)}
    assert {len(run_id) for run_id in ids} == {32}
    assert len(ids) == 2


def test_defaults_reach_the_probes(make_spec: MakeSpec, tmp_path: Path) -> None:
    """The suite's seed and top_k are used by the probes that set none."""
    path = tmp_path / "t.jsonl"
    backend = ScriptedBackend(instrumentation=BackendInstrumentation(trace_path=path))
    wide = DeltaKL(name="wide", prompts=[f"prompt {i}" for i in range(20)])
    first = run_suite(make_spec(wide, defaults=Defaults(seed=1, top_k=11)), backend)
    second = run_suite(make_spec(wide, defaults=Defaults(seed=2, top_k=11)), backend)
    assert {event.top_k for event in TraceReader(path) if event.probe == "wide"} == {11}
    assert first.probes[0].raw == second.probes[0].raw
    assert first.probes[0].ci_95 != second.probes[0].ci_95


def test_a_baseline_reaches_later_probes_alone(make_spec: MakeSpec) -> None:
    """What stands before the baseline is judged without it."""
    result = run_suite(make_spec(ONE, NullAdapter(name="null"), TWO), ScriptedBackend())
    z_scores = {probe.name: probe.z_score for probe in result.probes}
    assert (z_scores["one"], z_scores["null"]) == (None, None)
    assert z_scores["two"] is not None


def test_a_skipped_baseline_does_not_take_an_earlier_one_away(make_spec: MakeSpec) -> None:
    """A `null_adapter` with nothing to calibrate leaves what an earlier one measured."""
    first, last = NullAdapter(name="null"), NullAdapter(name="last")
    result = run_suite(make_spec(first, TWO, last), ScriptedBackend())
    assert result.probes[1].z_score is not None
    assert result.probes[2].verdict is Verdict.SKIP


@pytest.mark.parametrize(
    ("min_mean", "verdict", "passed"), [(1e-6, "pass", True), (9.0, "fail", False)]
)
def test_a_failed_probe_fails_the_run(
    make_spec: MakeSpec, min_mean: float, verdict: str, passed: bool
) -> None:
    """A run passes where each of its probes does."""
    judged = DeltaKL(name="judged", prompts=["a"], min_mean=min_mean)
    result = run_suite(make_spec(ONE, judged), ScriptedBackend())
    assert result.probes[1].verdict == verdict
    assert result.passed is passed


def test_a_skipped_probe_fails_nothing(make_spec: MakeSpec) -> None:
    """A run with a skipped probe passes."""
    result = run_suite(make_spec(ONE, NullAdapter(name="null")), ScriptedBackend())
    assert [probe.verdict for probe in result.probes] == [Verdict.PASS, Verdict.SKIP]
    assert result.passed


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("out of memory\nin a long trace"), "RuntimeError: out of memory"),
        (RuntimeError(), "RuntimeError: "),
        (RuntimeError("x" * 1000), "RuntimeError: " + "x" * 300),
        (OSError("no file \udcff here"), r"OSError: no file \udcff here"),
        (NonFiniteError("ft", "0123456789ab"), str(NonFiniteError("ft", "0123456789ab"))),
    ],
    ids=["first line", "no text", "long", "not UTF-8", "own"],
)
def test_a_probe_that_raises_is_an_error(
    make_spec: MakeSpec, error: Exception, message: str
) -> None:
    """The suite goes on; the result has the error's class and first line, or our own sentence."""
    result = run_suite(make_spec(ONE, TWO), ScriptedBackend(failing_on("b", error)))
    failed, after = result.probes
    assert (failed.verdict, failed.message) == (Verdict.ERROR, message)
    assert (failed.score, failed.raw, failed.evidence) == (None, None, {})
    assert after.verdict is Verdict.PASS
    assert not result.passed
    assert SuiteResult.model_validate_json(result.model_dump_json()) == result


def test_a_failed_batch_is_counted(make_spec: MakeSpec) -> None:
    """Each prompt of the batch that failed is a miss and an error of its probe."""
    backend = ScriptedBackend(failing_on("b", RuntimeError()))
    result = run_suite(make_spec(ONE, TWO), backend)
    stats = result.probes[0].stats
    assert (stats.lookups, stats.cache_misses, stats.forward_errors) == (2, 2, 2)
    assert stats.forward_passes == 0
    assert result.backend_stats["cache_misses"] == result.backend_stats["forward_passes"] + 2


@pytest.mark.parametrize(("view_id", "asked"), [("base", 1), ("ft", 2)])
def test_broken_logits_stop_the_suite(
    make_spec: MakeSpec, tmp_path: Path, view_id: str, asked: int
) -> None:
    """Both views are checked first; an error names the view and the hash of the prompt."""
    path, watcher = tmp_path / "t.jsonl", Watcher()
    backend = ScriptedBackend(
        broken(view_id), instrumentation=BackendInstrumentation(trace_path=path)
    )
    result = run_suite(make_spec(ONE, TWO), backend, observer=watcher)
    (check,) = result.probes
    assert (check.name, check.kind, check.verdict) == (FINITE_CHECK, FINITE_CHECK, Verdict.ERROR)
    (prompts,) = {tuple(prompts) for _, prompts in backend.forward_batches}
    assert f"{view_id!r}" in check.message
    assert prompt_hash(prompts[0]) in check.message
    assert (check.stats.lookups, check.stats.forward_errors) == (asked, 1)
    assert [event.error for event in TraceReader(path)][-1] == "NonFiniteError"
    assert not result.passed
    assert result.reconciliation.holds
    assert watcher.notes == []


def test_a_check_that_raises_anything_stops_the_suite(make_spec: MakeSpec) -> None:
    """A model that cannot be asked at all is an ERROR in the result, not a crash."""

    def script(view: ScriptedView, prompt: str) -> FloatArray:
        raise MemoryError

    result = run_suite(make_spec(ONE), ScriptedBackend(script))
    assert [(probe.name, probe.message) for probe in result.probes] == [
        (FINITE_CHECK, "MemoryError: ")
    ]


def test_a_view_that_breaks_later_is_one_probes_error(make_spec: MakeSpec) -> None:
    """The check looks at base and tuned view; a broken scaled one is the error of who asked."""
    ablation = AdapterAblation(name="response", prompts=["a"])
    backend = ScriptedBackend(broken("scaled_1.25"))
    result = run_suite(make_spec(ablation, TWO), backend)
    assert [probe.verdict for probe in result.probes] == [Verdict.ERROR, Verdict.PASS]
    assert "'scaled_1.25'" in result.probes[0].message


def test_the_observer_is_told_in_order(make_spec: MakeSpec) -> None:
    """Each probe's start and end are told, failures included."""
    watcher = Watcher()
    backend = ScriptedBackend(failing_on("b", RuntimeError()))
    run_suite(make_spec(ONE, TWO), backend, observer=watcher)
    assert watcher.notes == [
        ("started", 0, "one"),
        ("finished", "one", Verdict.ERROR),
        ("started", 1, "two"),
        ("finished", "two", Verdict.PASS),
    ]


@pytest.mark.parametrize("prompt", ["hello", "b"], ids=["in the check", "in a probe"])
def test_an_interrupt_is_raised_and_labels_are_reset(
    make_spec: MakeSpec, tmp_path: Path, prompt: str
) -> None:
    """What was answered is in the trace; later lookups belong to no probe and no run."""
    path = tmp_path / "t.jsonl"
    backend = ScriptedBackend(
        failing_on(prompt, KeyboardInterrupt()),
        instrumentation=BackendInstrumentation(trace_path=path),
    )
    with pytest.raises(KeyboardInterrupt):
        run_suite(make_spec(ONE, TWO), backend)
    during = list(TraceReader(path))
    assert during[-1].error == "KeyboardInterrupt"
    assert len(during) == backend.instrumentation.stats.total_lookups
    with backend.as_base() as view:
        view.next_token_dist("later")
    *_, later = TraceReader(path)
    assert (later.probe, later.run_id) == (None, None)
    assert during[-1].run_id is not None


def test_a_requested_stop_is_met_before_the_next_forward_call(make_spec: MakeSpec) -> None:
    """The forward call in flight ends and counts; the lookup that is stopped does not."""
    backend = ScriptedBackend(stopping_on("b", lambda: backend.instrumentation))
    with pytest.raises(KeyboardInterrupt):
        run_suite(make_spec(ONE, TWO), backend)
    assert backend.forward_batches[-1] == ("base", ["a", "b"])
    stats = backend.instrumentation.stats
    assert (stats.total_lookups, stats.forward_passes) == (4, 4)


def test_a_requested_stop_is_met_before_the_next_probe(make_spec: MakeSpec) -> None:
    """A probe whose lookups would all be hits does not begin either."""
    backend, watcher = ScriptedBackend(), Watcher()
    again = ONE.model_copy(update={"name": "again"})

    class StopAfterOne(Observer):
        def probe_finished(self, result: ProbeResult) -> None:
            backend.instrumentation.request_stop()

    with pytest.raises(KeyboardInterrupt):
        run_suite(make_spec(ONE, again), backend, observer=Observers(watcher, StopAfterOne()))
    assert [note[:2] for note in watcher.notes] == [("started", 0), ("finished", "one")]


def test_a_stop_requested_in_the_last_probe_loses_no_result(make_spec: MakeSpec) -> None:
    """Where no forward call is left to stop before, the suite is whole."""
    backend = ScriptedBackend()

    class StopAtOnce(Observer):
        def probe_started(self, index: int, probe: Probe) -> None:
            if index == 1:
                backend.instrumentation.request_stop()

    again = ONE.model_copy(update={"name": "again"})
    assert run_suite(make_spec(ONE, again), backend, observer=StopAtOnce()).passed


def test_labels_are_reset_after_a_run(make_spec: MakeSpec, tmp_path: Path) -> None:
    """A lookup after the run has neither its probe nor its id."""
    path = tmp_path / "t.jsonl"
    backend = ScriptedBackend(instrumentation=BackendInstrumentation(trace_path=path))
    run_suite(make_spec(ONE), backend)
    with backend.as_base() as view:
        view.next_token_dist("later")
    *_, last, later = TraceReader(path)
    assert (last.probe, later.probe, later.run_id) == ("one", None, None)


def test_the_backend_is_left_open(make_spec: MakeSpec) -> None:
    """It is its owner's to close."""
    backend = ScriptedBackend()
    run_suite(make_spec(ONE), backend)
    assert not backend.closed


@pytest.mark.parametrize("traced", [True, False])
@pytest.mark.parametrize("cached", [True, False])
def test_cache_and_trace_change_no_value(
    whole: SuiteSpec, tmp_path: Path, traced: bool, cached: bool
) -> None:
    """What the probes find is equal bit for bit with the cache and the trace on or off."""
    instrumentation = BackendInstrumentation(
        trace_path=tmp_path / "t.jsonl" if traced else None, cache_enabled=cached
    )
    result = run_suite(whole, ScriptedBackend(instrumentation=instrumentation))
    assert findings(result) == findings(run_suite(whole, ScriptedBackend()))
    assert result.cache.enabled is cached
