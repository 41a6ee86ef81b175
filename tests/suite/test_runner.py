"""Running a suite: order, verdicts, errors and interrupts."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NoReturn

import numpy as np
import numpy.typing as npt
import pytest

from forwardscope import BackendInstrumentation, TraceReader
from forwardscope.backends.views import scaled_view_id
from forwardscope.core.keys import RenderedChat, prompt_hash
from forwardscope.errors import NonFiniteError, UnsupportedViewError
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
    """Return a script that raises for one prompt."""

    def script(view: ScriptedView, current: str) -> FloatArray:
        if current == prompt:
            raise error
        return pseudo_random_logits(view, current)

    return script


def stopping_on(
    prompt: str, instrumentation: Callable[[], BackendInstrumentation]
) -> Callable[[ScriptedView, str], npt.NDArray[np.float64]]:
    """Return a script that requests a stop at one prompt."""

    def script(view: ScriptedView, current: str) -> FloatArray:
        if current == prompt:
            instrumentation().request_stop()
        return pseudo_random_logits(view, current)

    return script


def broken(view_id: str) -> Callable[[ScriptedView, str], npt.NDArray[np.float64]]:
    """Return a script that returns NaN for one view."""

    def script(view: ScriptedView, current: str) -> FloatArray:
        logits = pseudo_random_logits(view, current)
        return logits * math.nan if view.id == view_id else logits

    return script


class Recorder(Observer):
    """An observer that records its events."""

    def __init__(self) -> None:
        self.events: list[tuple[object, ...]] = []

    def probe_started(self, index: int, probe: Probe) -> None:
        self.events.append(("started", index, probe.name))

    def probe_finished(self, result: ProbeResult) -> None:
        self.events.append(("finished", result.name, result.verdict))


def findings(result: SuiteResult) -> list[dict[str, object]]:
    """Return the results of the probes without durations and counts."""
    return [probe.model_dump(exclude={"duration_s", "stats"}) for probe in result.probes]


def test_all_probes_run_in_order(full_suite: SuiteSpec) -> None:
    """The result has each probe in order, with its verdict and numbers."""
    result = run_suite(full_suite, ScriptedBackend())
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


def test_result_describes_the_run(make_spec: MakeSpec) -> None:
    """The result has the suite, the backend, the versions and the time."""
    before = datetime.now(UTC) - timedelta(seconds=1)  # the result's time has whole seconds
    spec = make_spec(ONE, exactness="strict", period="6h", defaults=Defaults(seed=5))
    backend = ScriptedBackend()
    result = run_suite(spec, backend)
    assert len(result.run_id) == 32
    assert run_suite(spec, backend).run_id != result.run_id
    assert (result.suite, result.model, result.adapter) == ("tested", "some-model", "some-adapter")
    assert (result.identity, result.exactness, result.device) == ("scripted", "strict", "auto")
    assert (result.seed, result.period_s) == (5, 21_600)
    assert {"python", "forwardscope", "numpy"} <= set(result.versions)
    assert before <= datetime.fromisoformat(result.started_at) <= datetime.now(UTC)
    assert result.wall_s >= sum(probe.duration_s for probe in result.probes)


def test_result_describes_the_backend_as_it_is(make_spec: MakeSpec) -> None:
    """Exactness, dtype and device are those of the backend, not those that the suite asks for."""

    class Described(ScriptedBackend):
        exactness, dtype, device = "strict", "bfloat16", "cuda:1"

    result = run_suite(make_spec(ONE), Described())
    assert (result.exactness, result.dtype, result.device) == ("strict", "bfloat16", "cuda:1")


def test_defaults_reach_the_probes(make_spec: MakeSpec, tmp_path: Path) -> None:
    """Probes without their own settings use the suite's seed and top_k."""
    path = tmp_path / "t.jsonl"
    backend = ScriptedBackend(instrumentation=BackendInstrumentation(trace_path=path))
    wide = DeltaKL(name="wide", prompts=[f"prompt {i}" for i in range(20)])
    first = run_suite(make_spec(wide, defaults=Defaults(seed=1, top_k=11)), backend)
    second = run_suite(make_spec(wide, defaults=Defaults(seed=2, top_k=11)), backend)
    assert {event.top_k for event in TraceReader(path) if event.probe == "wide"} == {11}
    assert first.probes[0].raw == second.probes[0].raw
    assert first.probes[0].ci_95 != second.probes[0].ci_95


def test_a_baseline_is_used_by_later_probes(make_spec: MakeSpec) -> None:
    """A probe before the baseline has no z-score."""
    result = run_suite(make_spec(ONE, NullAdapter(name="null"), TWO), ScriptedBackend())
    z_scores = {probe.name: probe.z_score for probe in result.probes}
    assert (z_scores["one"], z_scores["null"]) == (None, None)
    assert z_scores["two"] is not None


def test_a_skipped_baseline_does_not_replace_an_earlier_one(make_spec: MakeSpec) -> None:
    """A `null_adapter` without later probes is skipped."""
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
    """A run passes if no probe fails."""
    judged = DeltaKL(name="judged", prompts=["a"], min_mean=min_mean)
    result = run_suite(make_spec(ONE, judged), ScriptedBackend())
    assert result.probes[1].verdict == verdict
    assert result.passed is passed


def test_a_skipped_probe_does_not_fail_the_run(make_spec: MakeSpec) -> None:
    """A run of passed and skipped probes passes."""
    result = run_suite(make_spec(ONE, NullAdapter(name="null")), ScriptedBackend())
    assert [probe.verdict for probe in result.probes] == [Verdict.PASS, Verdict.SKIP]
    assert result.passed


class Refusing(ScriptedBackend):
    """A backend that refuses null and scaled views."""

    refused_views: Final = dict.fromkeys(("null", "scaled"), "the adapter is unusual")

    def as_scaled_adapter(self, lam: float) -> NoReturn:
        raise UnsupportedViewError(scaled_view_id(lam), "the adapter is unusual")

    def as_null_adapter(
        self, seed: int, *, init_scale: float = 0.02, rank_scale: float = 1.0
    ) -> NoReturn:
        raise UnsupportedViewError(f"null_{seed}", "the adapter is unusual")


def test_a_probe_whose_view_is_refused_is_skipped(full_suite: SuiteSpec) -> None:
    """Its message is the reason; it asks for no value, and costs what is planned."""
    result = run_suite(full_suite, Refusing())
    assert {one.probe for one in result.series}.isdisjoint({"baseline", "response"})
    verdicts = {probe.name: probe.verdict for probe in result.probes}
    assert verdicts["baseline"] is verdicts["response"] is Verdict.SKIP
    assert Verdict.ERROR not in verdicts.values()
    messages = [probe.message for probe in result.probes if probe.verdict is Verdict.SKIP]
    assert messages == [
        f"view {view!r} is not available: the adapter is unusual"
        for view in ("null_1000", "scaled_0.0")
    ]
    assert result.backend_stats["forward_passes"] == result.expected_forward_passes


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
    """The next probe runs; the message is the class and first line, or that of our own error."""
    spec = make_spec(ONE, TWO, show_errors=True)
    result = run_suite(spec, ScriptedBackend(failing_on("b", error)))
    failed, next_probe = result.probes
    assert (failed.verdict, failed.message) == (Verdict.ERROR, message)
    assert (failed.score, failed.raw, failed.evidence) == (None, None, {})
    assert next_probe.verdict is Verdict.PASS
    assert not result.passed
    assert SuiteResult.model_validate_json(result.model_dump_json()) == result


@pytest.mark.parametrize("prompt", ["b", "hello"], ids=["probe", "check"])
def test_the_message_of_an_exception_is_shown_only_if_asked(
    make_spec: MakeSpec, prompt: str
) -> None:
    """It may contain a prompt; by default the result has only the class and how to see more."""
    error = RuntimeError("no answer to 'my secret'")
    backends = [ScriptedBackend(failing_on(prompt, error)) for _ in range(2)]
    hidden = run_suite(make_spec(ONE, TWO), backends[0])
    assert (
        hidden.probes[0].message
        == "RuntimeError; add show_errors: true (--show-errors) for its message"
    )
    assert "secret" not in hidden.model_dump_json()
    shown = run_suite(make_spec(ONE, TWO, show_errors=True), backends[1])
    assert shown.probes[0].message == "RuntimeError: no answer to 'my secret'"


def test_a_failed_batch_is_counted(make_spec: MakeSpec) -> None:
    """Each prompt of a failed batch counts as a miss and an error."""
    backend = ScriptedBackend(failing_on("b", RuntimeError()))
    result = run_suite(make_spec(ONE, TWO), backend)
    stats = result.probes[0].stats
    assert (stats.lookups, stats.cache_misses, stats.forward_errors) == (2, 2, 2)
    assert stats.forward_passes == 0
    assert result.backend_stats["cache_misses"] == result.backend_stats["forward_passes"] + 2


@pytest.mark.parametrize(("view_id", "lookups"), [("base", 1), ("ft", 2)])
def test_a_failed_check_ends_the_run(
    make_spec: MakeSpec, tmp_path: Path, view_id: str, lookups: int
) -> None:
    """Both views are checked first; the error has the view and the hash of the prompt."""
    path, recorder = tmp_path / "t.jsonl", Recorder()
    backend = ScriptedBackend(
        broken(view_id), instrumentation=BackendInstrumentation(trace_path=path)
    )
    result = run_suite(make_spec(ONE, TWO), backend, observer=recorder)
    (check,) = result.probes
    assert (check.name, check.kind, check.verdict) == (FINITE_CHECK, FINITE_CHECK, Verdict.ERROR)
    (prompts,) = {tuple(prompts) for _, prompts in backend.forward_batches}
    assert f"{view_id!r}" in check.message
    assert prompt_hash(prompts[0]) in check.message
    assert (check.stats.lookups, check.stats.forward_errors) == (lookups, 1)
    assert [event.error for event in TraceReader(path)][-1] == "NonFiniteError"
    assert not result.passed
    assert result.reconciliation.holds
    assert recorder.events == []


def test_any_exception_in_the_check_ends_the_run(make_spec: MakeSpec) -> None:
    """An exception of the model is an ERROR in the result."""

    def script(view: ScriptedView, prompt: str) -> FloatArray:
        raise MemoryError

    result = run_suite(make_spec(ONE), ScriptedBackend(script))
    assert [(probe.name, probe.message) for probe in result.probes] == [
        (
            FINITE_CHECK,
            "MemoryError; add show_errors: true (--show-errors) for its message",
        )
    ]


def test_non_finite_logits_of_another_view(make_spec: MakeSpec) -> None:
    """The check does not cover scaled views; their errors are those of the probe."""
    ablation = AdapterAblation(name="response", prompts=["a"])
    backend = ScriptedBackend(broken("scaled_1.25"))
    result = run_suite(make_spec(ablation, TWO), backend)
    assert [probe.verdict for probe in result.probes] == [Verdict.ERROR, Verdict.PASS]
    assert "'scaled_1.25'" in result.probes[0].message


def test_observer_events(make_spec: MakeSpec) -> None:
    """An observer receives the start and the result of each probe in order."""
    recorder = Recorder()
    backend = ScriptedBackend(failing_on("b", RuntimeError()))
    run_suite(make_spec(ONE, TWO), backend, observer=recorder)
    assert recorder.events == [
        ("started", 0, "one"),
        ("finished", "one", Verdict.ERROR),
        ("started", 1, "two"),
        ("finished", "two", Verdict.PASS),
    ]


@pytest.mark.parametrize("prompt", ["hello", "b"], ids=["in the check", "in a probe"])
def test_an_interrupt_is_raised_and_labels_are_reset(
    make_spec: MakeSpec, tmp_path: Path, prompt: str
) -> None:
    """The trace has the lookups until then; later lookups have no probe and no run."""
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


def test_a_requested_stop_prevents_the_next_forward_call(make_spec: MakeSpec) -> None:
    """The forward call in flight completes and counts; the stopped lookup does not count."""
    backend = ScriptedBackend(stopping_on("b", lambda: backend.instrumentation))
    with pytest.raises(KeyboardInterrupt):
        run_suite(make_spec(ONE, TWO), backend)
    assert backend.forward_batches[-1] == ("base", ["a", "b"])
    stats = backend.instrumentation.stats
    assert (stats.total_lookups, stats.forward_passes) == (4, 4)


def test_a_requested_stop_prevents_the_next_probe(make_spec: MakeSpec) -> None:
    """A probe does not start, even if all its lookups would be hits."""
    backend, recorder = ScriptedBackend(), Recorder()
    again = ONE.model_copy(update={"name": "again"})

    class StopAfterOne(Observer):
        def probe_finished(self, result: ProbeResult) -> None:
            backend.instrumentation.request_stop()

    with pytest.raises(KeyboardInterrupt):
        run_suite(make_spec(ONE, again), backend, observer=Observers(recorder, StopAfterOne()))
    assert [event[:2] for event in recorder.events] == [("started", 0), ("finished", "one")]


def test_a_stop_in_the_last_probe_without_forward_calls(make_spec: MakeSpec) -> None:
    """The run completes if no forward call is left."""
    backend = ScriptedBackend()

    class StopAtSecond(Observer):
        def probe_started(self, index: int, probe: Probe) -> None:
            if index == 1:
                backend.instrumentation.request_stop()

    again = ONE.model_copy(update={"name": "again"})
    assert run_suite(make_spec(ONE, again), backend, observer=StopAtSecond()).passed


def test_a_backend_after_a_run(make_spec: MakeSpec, tmp_path: Path) -> None:
    """The backend is still open, and its lookups have no probe and no run id."""
    path = tmp_path / "t.jsonl"
    backend = ScriptedBackend(instrumentation=BackendInstrumentation(trace_path=path))
    run_suite(make_spec(ONE), backend)
    assert not backend.closed
    with backend.as_base() as view:
        view.next_token_dist("later")
    *_, last, later = TraceReader(path)
    assert (last.probe, later.probe, later.run_id) == ("one", None, None)


@pytest.mark.parametrize("traced", [True, False])
@pytest.mark.parametrize("cached", [True, False])
def test_cache_and_trace_change_no_value(
    full_suite: SuiteSpec, tmp_path: Path, traced: bool, cached: bool
) -> None:
    """Results are equal bit for bit with and without the cache and the trace."""
    instrumentation = BackendInstrumentation(
        trace_path=tmp_path / "t.jsonl" if traced else None, cache_enabled=cached
    )
    result = run_suite(full_suite, ScriptedBackend(instrumentation=instrumentation))
    assert findings(result) == findings(run_suite(full_suite, ScriptedBackend()))
    assert result.cache.enabled is cached


def test_chats_of_a_base_that_is_computed_first(make_spec: MakeSpec) -> None:
    """They are computed as the model renders them, once, and the probe's lookups are hits."""

    class BaseFirst(ScriptedBackend):
        base_first = True

    backend = BaseFirst()
    result = run_suite(make_spec(DeltaKL(name="one", prompts=["a"]), chat=True), backend)
    asked = [
        prompt for view, batch in backend.forward_batches for prompt in batch if view == "base"
    ]
    assert asked == ["hello", RenderedChat("user: a\nassistant: ")]
    assert result.backend_stats["forward_passes"] == result.expected_forward_passes == 4


@pytest.mark.parametrize("identity", ["raises", 3])
def test_an_identity_that_cannot_be_had(make_spec: MakeSpec, identity: object) -> None:
    """A backend whose view identity raises, or is no text, costs no result."""

    def view_identity(view_id: str) -> str:
        if identity == "raises":
            raise RuntimeError("gone")
        return identity  # type: ignore[return-value]

    backend = ScriptedBackend(view_identity=view_identity)
    result = run_suite(make_spec(DeltaKL(name="one", prompts=["a"])), backend)
    assert (result.base_identity, result.tuned_identity) == (None, None)
    assert len(result.probes) == 1


@pytest.mark.parametrize(("top_k", "warns"), [(None, False), (32, False), (33, True)])
def test_a_top_k_above_the_vocabulary(make_spec: MakeSpec, top_k: int | None, warns: bool) -> None:
    """The result says that all tokens are used, where the suite asks for more."""
    result = run_suite(
        make_spec(DeltaKL(name="one", prompts=["a"], top_k=top_k)), ScriptedBackend()
    )
    said = "top_k 33 is more than the 32 tokens of the vocabulary: all are used"
    assert (said in result.warnings) is warns
