"""The planned forward passes of a suite equal those of its run."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given
from opentelemetry import trace
from prometheus_client import CollectorRegistry

from forwardscope import BackendInstrumentation
from forwardscope.core.keys import view_family
from forwardscope.probes import (
    AdapterAblation,
    DeltaKL,
    NullAdapter,
    Outcome,
    Probe,
    ProbeContext,
    PromptCollapse,
    Verdict,
)
from forwardscope.suite import (
    Observer,
    RunMetrics,
    RunStarted,
    SuiteResult,
    SuiteSpec,
    expected_forward_passes,
    run_suite,
)
from forwardscope.suite.plan import enough_entries, expect_series, plan_suite, shared_work
from forwardscope.suite.spec import CacheSpec, Defaults, ModelSpec
from forwardscope.telemetry import names, run_names
from forwardscope.testing import (
    InMemoryTelemetry,
    ScriptedBackend,
    ScriptedView,
    pseudo_random_logits,
)

MakeSpec = Callable[..., SuiteSpec]

CHECK = 2  # lookups of the check before the probes, one for each view


class Unaliased(ScriptedBackend):
    """A backend without aliases, as with a DoRA adapter."""

    scaled_aliases: Mapping[float, str] = MappingProxyType({})


class Bare:
    """A backend without optional abilities and attributes."""

    def __init__(self, **settings: Any) -> None:
        self.inner = ScriptedBackend(**settings)
        self.instrumentation = self.inner.instrumentation
        self.as_base = self.inner.as_base
        self.as_finetuned = self.inner.as_finetuned
        self.filler = self.inner.filler
        self.identity = self.inner.identity
        self.close = self.inner.close


class Scaling(Bare):
    """A backend that can scale its adapter, without `scaled_aliases`."""

    def as_scaled_adapter(self, lam: float) -> Any:
        return self.inner.as_scaled_adapter(lam)


class Randomizing(Bare):
    """A backend that can make random adapters."""

    def as_null_adapter(self, seed: int, **scales: float) -> Any:
        return self.inner.as_null_adapter(seed, **scales)


class Undeclared(Scaling, Randomizing):
    """A backend with all abilities, without `scaled_aliases`."""


class Unplannable(DeltaKL):
    """A probe that fails on the dry-run backend."""

    def run(self, context: ProbeContext) -> Outcome:
        if context.backend.identity() == "dry-run":
            raise LookupError("no such expert\nin this model")
        return super().run(context)


def paid(result: SuiteResult) -> float:
    """Return the forward passes of a run without errors."""
    assert Verdict.ERROR not in {probe.verdict for probe in result.probes}
    return result.backend_stats["forward_passes"]


def backend_with(**settings: Any) -> ScriptedBackend:
    """Return a backend whose instrumentation has these settings."""
    return ScriptedBackend(instrumentation=BackendInstrumentation(**settings))


# -- equal numbers of forward passes -----------------------------------------------------------


def test_all_four_kinds_cost_what_is_planned(full_suite: SuiteSpec) -> None:
    """Check 2, baseline 3, change 4, four scales 8, two fillers 8; the rest are hits."""
    result = run_suite(full_suite, ScriptedBackend())
    assert paid(result) == result.expected_forward_passes == 25


prompt_lists = st.lists(st.sampled_from(["hello", "a", "b", ".", "ab"]), min_size=1, max_size=4)
shared = {
    "prompts": prompt_lists,
    "top_k": st.sampled_from([None, 1, 8, 32, 33, 300]),
    "divergence": st.sampled_from(["js", "kl"]),
}
some_lambdas = st.sets(st.sampled_from([0.0, 0.25, 0.5, 1.25, 2.0]), min_size=2)
some_lengths = st.sets(st.integers(0, 6), min_size=2)
any_probe = st.one_of(
    st.builds(DeltaKL, name=st.just("x"), **shared),
    st.builds(
        AdapterAblation,
        name=st.just("x"),
        lambdas=some_lambdas.map(lambda chosen: sorted({*chosen, 1.0})),
        **shared,
    ),
    st.builds(
        PromptCollapse, name=st.just("x"), context_lengths=some_lengths.map(sorted), **shared
    ),
    st.builds(
        NullAdapter,
        name=st.just("x"),
        runs=st.integers(1, 3),
        seed_base=st.integers(0, 2),
        init_scale=st.sampled_from([0.02, 0.1]),
        sentinel_prompts=prompt_lists,
    ),
)


@given(
    probes=st.lists(any_probe, min_size=1, max_size=5),
    top_k=st.sampled_from([8, 32, 256]),
    backend_type=st.sampled_from([ScriptedBackend, Unaliased]),
    cached=st.booleans(),
)
def test_any_suite_costs_what_is_planned(
    probes: list[Probe], top_k: int, backend_type: type[ScriptedBackend], cached: bool
) -> None:
    """Plan and run agree for random probes, with and without the cache."""
    spec = SuiteSpec(
        version=1,
        model=ModelSpec(path="some-model", adapter="some-adapter"),
        defaults=Defaults(top_k=top_k),
        probes=[one.model_copy(update={"name": f"{i}"}) for i, one in enumerate(probes)],
    )
    instrumentation = BackendInstrumentation(cache_maxsize=10_000, cache_enabled=cached)
    result = run_suite(spec, backend_type(instrumentation=instrumentation))
    assert paid(result) == result.expected_forward_passes
    if cached:
        assert paid(result) == result.cache.entries


def test_a_baseline_shares_lookups_with_later_probes(make_spec: MakeSpec) -> None:
    """Later probes hit the base results that the baseline computed."""
    null = NullAdapter(name="null", runs=2, sentinel_prompts=["a", "b", "a"])
    spec = make_spec(null, DeltaKL(name="change", prompts=["a", "b", "b"]))
    result = run_suite(spec, ScriptedBackend())
    assert paid(result) == result.expected_forward_passes == CHECK + 2 + 2 * 2 + 2


def test_a_probe_with_the_lookups_of_the_check(make_spec: MakeSpec) -> None:
    """A probe with the lookups of the check before the probes has only hits."""
    spec = make_spec(DeltaKL(name="one", prompts=["hello"], top_k=8))
    result = run_suite(spec, ScriptedBackend())
    assert paid(result) == result.expected_forward_passes == CHECK


def test_the_vocabulary_bounds_top_k(make_spec: MakeSpec) -> None:
    """Values of `top_k` above the vocabulary size are equal lookups, if the size is known."""
    one = DeltaKL(name="one", prompts=["a"], top_k=40)
    spec = make_spec(one, DeltaKL(name="two", prompts=["a"], top_k=300))
    result = run_suite(spec, ScriptedBackend(vocab_size=32))
    assert paid(result) == result.expected_forward_passes == CHECK + 2
    assert expected_forward_passes(spec) == CHECK + 4
    assert expected_forward_passes(spec, ScriptedBackend(vocab_size=300)) == CHECK + 4


def test_aliases_of_scales(make_spec: MakeSpec) -> None:
    """λ=0 and λ=1 are hits only if the backend declares them as aliases."""
    change = DeltaKL(name="change", prompts=["a"])
    response = AdapterAblation(name="response", prompts=["a"], lambdas=(0.0, 0.5, 1.0))
    spec = make_spec(change, response)
    assert expected_forward_passes(spec, ScriptedBackend()) == CHECK + 2 + 1
    assert expected_forward_passes(spec, Unaliased()) == CHECK + 2 + 3


def test_a_backend_with_undeclared_aliases(full_suite: SuiteSpec) -> None:
    """A backend with undeclared aliases computes fewer forward passes than planned."""
    result = run_suite(full_suite, Undeclared())
    assert (paid(result), result.expected_forward_passes) == (25, 29)


@pytest.mark.parametrize(
    ("backend_type", "passes"),
    [
        (Bare, CHECK + 2),
        (Scaling, CHECK + 2 + 4),
        (Randomizing, CHECK + 2 + 3),
        (Undeclared, CHECK + 2 + 4 + 3),
    ],
)
def test_a_skipped_probe_has_no_planned_passes(
    make_spec: MakeSpec, backend_type: type[Bare], passes: int
) -> None:
    """The plan skips the probes that the run skips."""
    spec = make_spec(
        NullAdapter(name="null", runs=2, sentinel_prompts=["s"]),
        DeltaKL(name="change", prompts=["a"]),
        AdapterAblation(name="response", prompts=["c"], lambdas=(0.5, 1.0, 2.0)),
    )
    result = run_suite(spec, backend_type())
    assert paid(result) == result.expected_forward_passes == passes


def test_a_full_fine_tune_has_no_adapter(full_suite: SuiteSpec) -> None:
    """Without a backend the plan of a suite with `tuned` has only the views base and ft."""
    model = ModelSpec(path="some-model", tuned="other-model")
    spec = full_suite.model_copy(update={"model": model})
    plan = plan_suite(spec)
    assert {key.view_id for key in plan.series} == {"base", "ft"}
    assert {key.probe for key in plan.series} == {None, "change", "long-context"}
    assert set(shared_work(spec)) == {("long-context", "change")}


def test_without_a_cache_every_call_computes(full_suite: SuiteSpec, make_spec: MakeSpec) -> None:
    """Nothing is stored between calls; equal prompts of one call are one forward pass."""
    result = run_suite(full_suite, backend_with(cache_enabled=False))
    lookups = sum(one.lookups for one in result.series)
    assert paid(result) == result.expected_forward_passes == lookups
    twice = make_spec(*(DeltaKL(name=name, prompts=["a", "a"]) for name in ("one", "two")))
    result = run_suite(twice, backend_with(cache_enabled=False))
    assert paid(result) == result.expected_forward_passes == CHECK + 2 * 2


def test_without_a_backend_the_suite_enables_the_cache(make_spec: MakeSpec) -> None:
    """The plan depends on `cache.enabled`, not on the bounds of the cache."""
    probes = [DeltaKL(name=name, prompts=["a", "b"]) for name in ("one", "two")]
    assert expected_forward_passes(make_spec(*probes)) == CHECK + 4
    assert expected_forward_passes(make_spec(*probes, cache=CacheSpec(max_entries=1))) == CHECK + 4
    assert expected_forward_passes(make_spec(*probes, cache=CacheSpec(enabled=False))) == CHECK + 8


# -- other numbers of forward passes ----------------------------------------------------------


def test_a_cache_that_is_too_small_costs_more(full_suite: SuiteSpec) -> None:
    """The plan assumes an unbounded cache, so evictions add forward passes."""
    result = run_suite(full_suite, backend_with(cache_maxsize=4))
    assert result.expected_forward_passes == 25
    assert result.cache.evictions > 0
    assert paid(result) > 25
    assert paid(run_suite(full_suite, backend_with(cache_maxsize=25))) == 25


def test_values_that_are_rejected_cost_more(full_suite: SuiteSpec) -> None:
    """A value larger than the whole cache is computed at each lookup."""
    result = run_suite(full_suite, backend_with(cache_max_bytes=1))
    assert (result.cache.rejections > 0, result.cache.entries) == (True, 0)
    assert paid(result) > (result.expected_forward_passes or 0) == 25


def test_a_used_backend_costs_less(full_suite: SuiteSpec) -> None:
    """The plan assumes an empty cache; entries from an earlier run are hits."""
    backend = ScriptedBackend()
    results = [run_suite(full_suite, backend) for _ in range(2)]
    assert [(paid(one), one.expected_forward_passes) for one in results] == [(25, 25), (0, 25)]


@pytest.mark.parametrize("cached", [True, False])
def test_a_probe_that_fails_costs_less(make_spec: MakeSpec, cached: bool) -> None:
    """A failed batch has no forward passes; a later probe computes its prompts."""

    def script(view: ScriptedView, prompt: str) -> Any:
        if prompt == "broken":
            raise ValueError
        return pseudo_random_logits(view, prompt)

    spec = make_spec(
        DeltaKL(name="failing", prompts=["a", "broken"]), DeltaKL(name="other", prompts=["a"])
    )
    instrumentation = BackendInstrumentation(cache_enabled=cached)
    result = run_suite(spec, ScriptedBackend(script, instrumentation=instrumentation))
    assert result.probes[0].verdict is Verdict.ERROR
    planned = CHECK + 4 + (0 if cached else 2)
    assert result.expected_forward_passes == planned
    assert result.backend_stats["forward_passes"] == CHECK + 2


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 13, 21, 25, 34])
def test_a_plan_with_a_bounded_cache(full_suite: SuiteSpec, size: int) -> None:
    """The plan has the run's forward passes by series and its evictions."""
    planned = plan_suite(full_suite, max_entries=size)
    backend = backend_with(cache_maxsize=size)
    result = run_suite(full_suite, backend)
    passes = {key: counts.forward_passes for key, counts in planned.series.items()}
    assert passes == {(one.probe, one.view_id, one.op): one.forward_passes for one in result.series}
    assert planned.evictions == backend.instrumentation.cache.evictions


def test_planned_passes_of_a_result(full_suite: SuiteSpec) -> None:
    """Planned passes by series add up to the planned passes of the run."""
    result = run_suite(full_suite, backend_with(cache_maxsize=4))
    expected = [one.expected_forward_passes for one in result.series]
    assert sum(filter(None, expected)) == result.expected_forward_passes == 25
    assert any(one.forward_passes > (one.expected_forward_passes or 0) for one in result.series)


def test_enough_entries(full_suite: SuiteSpec) -> None:
    """With this size nothing is computed twice, with one entry less something is."""
    enough = enough_entries(full_suite)
    assert plan_suite(full_suite, max_entries=enough).forward_passes == 25
    assert plan_suite(full_suite, max_entries=enough - 1).forward_passes > 25
    off = full_suite.model_copy(update={"cache": CacheSpec(enabled=False)})
    assert enough_entries(off) == 0


def test_shared_work_is_by_probe(make_spec: MakeSpec) -> None:
    """Each hit counts once, also a hit of a probe on its own entry."""
    spec = make_spec(
        DeltaKL(name="one", prompts=["a", "b"]), DeltaKL(name="two", prompts=["b", "c", "c"])
    )
    assert shared_work(spec) == {("two", "one"): 2, ("two", "two"): 2}
    total = plan_suite(spec).total
    assert sum(shared_work(spec).values()) == total.hits + total.coalesced == 4


def test_planning_does_not_use_the_backend(full_suite: SuiteSpec, tmp_path: Path) -> None:
    """The backend has no lookups, forward batches, entries or records afterwards."""
    backend = backend_with(trace_path=tmp_path / "t.jsonl")
    assert expected_forward_passes(full_suite, backend) == 25
    assert backend.instrumentation.stats.total_lookups == 0
    assert backend.forward_batches == []
    assert len(backend.instrumentation.cache) == 0
    assert (tmp_path / "t.jsonl").read_text() == ""
    assert not backend.closed


def test_planning_makes_no_spans(full_suite: SuiteSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planning creates no spans, also with a global tracer provider."""
    telemetry = InMemoryTelemetry()
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: telemetry.tracer_provider)
    expected_forward_passes(full_suite)
    assert telemetry.spans() == []
    with BackendInstrumentation().spans.around(names.SUITE, "nightly", {}):
        pass
    assert [span.name for span in telemetry.spans()] == ["suite nightly"]


# -- reporting and failures -------------------------------------------------------------------


def test_the_gauge_of_planned_passes(full_suite: SuiteSpec) -> None:
    """The gauge has its value before the first probe and does not change."""
    metrics, registry, seen = RunMetrics(full_suite), CollectorRegistry(), []
    registry.register(metrics)

    def value(metric: names.Metric) -> float | None:
        return registry.get_sample_value(metric.name, {"suite": "tested", "model": "some-model"})

    class Watcher(Observer):
        def run_started(self, run: RunStarted) -> None:
            metrics.run_started(run)
            seen.append((run.expected_forward_passes, value(run_names.RUN_EXPECTED)))

    result = run_suite(full_suite, backend_with(cache_maxsize=4), observer=Watcher())
    assert seen == [(25, 25.0)]
    assert value(run_names.RUN_FORWARD_PASSES) == paid(result) > value(run_names.RUN_EXPECTED) == 25
    assert value(run_names.RUN_LOOKUPS) == value(run_names.RUN_EXPECTED_LOOKUPS)


@pytest.mark.parametrize("strict", [True, False])
def test_a_plan_that_fails_does_not_fail_the_run(make_spec: MakeSpec, strict: bool) -> None:
    """There is one warning with the cause, no number in the result, and NaN in the gauge.

    NaN replaces the value of an earlier run at a Pushgateway; a missing gauge does not.
    """
    spec = make_spec(Unplannable(name="odd", prompts=["a"], min_mean=1e-6), show_errors=True)
    metrics = RunMetrics(spec)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("error" if strict else "always")
        result = run_suite(spec, ScriptedBackend(), observer=metrics)
    assert [str(one.message) for one in caught] == [
        "the run has no plan: probe 'odd' cannot be planned: LookupError: no such expert"
    ] * (not strict)
    assert result.passed
    assert result.expected_forward_passes is None
    values = {family.name: family.samples[0].value for family in metrics.collect()}
    assert values[run_names.RUN_FORWARD_PASSES.name] == paid(result)
    assert math.isnan(values[run_names.RUN_EXPECTED.name])
    assert math.isnan(values[run_names.RUN_EXPECTED_LOOKUPS.name])
    assert math.isnan(values[run_names.RUN_PERIOD.name])


def test_a_backend_whose_attribute_raises_does_not_fail_the_run(
    make_spec: MakeSpec,
) -> None:
    """An exception in an attribute of the backend only prevents the plan."""

    class Broken(ScriptedBackend):
        @property
        def scaled_aliases(self) -> Mapping[float, str]:
            raise RuntimeError("not loaded")

    spec = make_spec(DeltaKL(name="one", prompts=["a"], min_mean=1e-6))
    with pytest.warns(
        RuntimeWarning, match="no plan: RuntimeError; add show_errors: true"
    ) as caught:
        result = run_suite(spec, Broken())
    assert len(caught) == 1
    assert (result.passed, result.expected_forward_passes) == (True, None)


def test_series_of_a_run_start_before_it(make_spec: MakeSpec) -> None:
    """All series that a run counts exist with value 0, and none of another probe."""
    spec = make_spec(
        NullAdapter(name="null", runs=2),
        DeltaKL(name="change", prompts=["a", "b"]),
        AdapterAblation(name="response", prompts=["a"]),
    )
    inst = BackendInstrumentation()
    expect_series(spec, inst)
    started = {
        (key.probe, view_family(key.view_id), key.op) for key in inst.ledger.snapshot().series
    }
    assert inst.stats.total_lookups == 0
    result = run_suite(spec, ScriptedBackend(instrumentation=inst))
    counted = {(one.probe, view_family(one.view_id), one.op) for one in result.series}
    assert counted <= started
    assert {probe for probe, *_ in started} == {None, "null", "change", "response"}


def test_a_suite_that_cannot_be_planned_starts_no_series(make_spec: MakeSpec) -> None:
    """There is no error before the model is loaded."""
    inst = BackendInstrumentation()
    expect_series(make_spec(Unplannable(name="expert", prompts=["a"])), inst)
    assert inst.ledger.snapshot().series == {}
