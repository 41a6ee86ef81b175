"""What a suite should cost is what it does cost, as long as nothing is evicted."""

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
from forwardscope.telemetry import names
from forwardscope.testing import (
    InMemoryTelemetry,
    ScriptedBackend,
    ScriptedView,
    pseudo_random_logits,
)

MakeSpec = Callable[..., SuiteSpec]

CHECK = 2  # the finite check asks base and tuned view


class Unaliased(ScriptedBackend):
    """A backend like one with a DoRA adapter: no scale is the base's or the tuned view."""

    scaled_aliases: Mapping[float, str] = MappingProxyType({})


class Bare:
    """The part of a scripted backend that every backend has."""

    def __init__(self, **settings: Any) -> None:
        self.inner = ScriptedBackend(**settings)
        self.instrumentation = self.inner.instrumentation
        self.as_base = self.inner.as_base
        self.as_finetuned = self.inner.as_finetuned
        self.filler = self.inner.filler
        self.identity = self.inner.identity
        self.close = self.inner.close


class Scaling(Bare):
    """One that can scale its adapter, and does not say what it shares."""

    def as_scaled_adapter(self, lam: float) -> Any:
        return self.inner.as_scaled_adapter(lam)


class Randomizing(Bare):
    """One that can make random adapters."""

    def as_null_adapter(self, seed: int, **scales: float) -> Any:
        return self.inner.as_null_adapter(seed, **scales)


class Unknown(Scaling, Randomizing):
    """One that can do everything, and does not say what it shares."""


class Unplannable(DeltaKL):
    """A probe that only a real model can answer."""

    def run(self, context: ProbeContext) -> Outcome:
        if context.backend.identity() == "counting":
            raise LookupError("no such expert\nin this model")
        return super().run(context)


def paid(result: SuiteResult) -> float:
    """Return the forward passes of a run, none of whose probes went wrong."""
    assert Verdict.ERROR not in {probe.verdict for probe in result.probes}
    return result.backend_stats["forward_passes"]


def sized(**settings: Any) -> ScriptedBackend:
    """Make a backend whose instrumentation has these settings."""
    return ScriptedBackend(instrumentation=BackendInstrumentation(**settings))


# -- the plan is what is paid -----------------------------------------------------------------


def test_all_four_kinds_cost_what_is_planned(whole: SuiteSpec) -> None:
    """The check 2, baseline 3, change 4, four scales 8, two fillers 8; the rest is known."""
    result = run_suite(whole, ScriptedBackend())
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
    """Whatever its probes, their order and what they share, with the cache on or off."""
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


def test_a_baseline_shares_what_later_probes_ask(make_spec: MakeSpec) -> None:
    """First in the suite, it pays for the base's answers that a later probe is then given."""
    null = NullAdapter(name="null", runs=2, sentinel_prompts=["a", "b", "a"])
    spec = make_spec(null, DeltaKL(name="change", prompts=["a", "b", "b"]))
    result = run_suite(spec, ScriptedBackend())
    assert paid(result) == result.expected_forward_passes == CHECK + 2 + 2 * 2 + 2


def test_a_question_of_the_check_is_known(make_spec: MakeSpec) -> None:
    """A probe that asks the same as the finite check pays nothing for it."""
    spec = make_spec(DeltaKL(name="one", prompts=["hello"], top_k=8))
    result = run_suite(spec, ScriptedBackend())
    assert paid(result) == result.expected_forward_passes == CHECK


def test_the_vocabulary_bounds_top_k(make_spec: MakeSpec) -> None:
    """Beyond it two values of top_k are one question; where it is not known they are two."""
    one = DeltaKL(name="one", prompts=["a"], top_k=40)
    spec = make_spec(one, DeltaKL(name="two", prompts=["a"], top_k=300))
    result = run_suite(spec, ScriptedBackend(vocab_size=32))
    assert paid(result) == result.expected_forward_passes == CHECK + 2
    assert expected_forward_passes(spec) == CHECK + 4
    assert expected_forward_passes(spec, ScriptedBackend(vocab_size=300)) == CHECK + 4


def test_scales_share_only_what_the_backend_says(make_spec: MakeSpec) -> None:
    """λ=0 and λ=1 are free after base and tuned view with plain LoRA alone."""
    change = DeltaKL(name="change", prompts=["a"])
    response = AdapterAblation(name="response", prompts=["a"], lambdas=(0.0, 0.5, 1.0))
    spec = make_spec(change, response)
    assert expected_forward_passes(spec, ScriptedBackend()) == CHECK + 2 + 1
    assert expected_forward_passes(spec, Unaliased()) == CHECK + 2 + 3


def test_an_unknown_backend_is_not_accused(whole: SuiteSpec) -> None:
    """One that shares more than it says pays less than planned, never more."""
    result = run_suite(whole, Unknown())
    assert (paid(result), result.expected_forward_passes) == (25, 29)


@pytest.mark.parametrize(
    ("backend_type", "passes"),
    [
        (Bare, CHECK + 2),
        (Scaling, CHECK + 2 + 4),
        (Randomizing, CHECK + 2 + 3),
        (Unknown, CHECK + 2 + 4 + 3),
    ],
)
def test_what_a_backend_cannot_do_costs_nothing(
    make_spec: MakeSpec, backend_type: type[Bare], passes: int
) -> None:
    """A probe that will be skipped is not paid for in the plan either."""
    spec = make_spec(
        NullAdapter(name="null", runs=2, sentinel_prompts=["s"]),
        DeltaKL(name="change", prompts=["a"]),
        AdapterAblation(name="response", prompts=["c"], lambdas=(0.5, 1.0, 2.0)),
    )
    result = run_suite(spec, backend_type())
    assert paid(result) == result.expected_forward_passes == passes


def test_without_a_cache_every_call_is_paid_for(whole: SuiteSpec, make_spec: MakeSpec) -> None:
    """Nothing is kept between calls; an equal prompt in one call is one pass all the same."""
    result = run_suite(whole, sized(cache_enabled=False))
    lookups = sum(one.lookups for one in result.series)
    assert paid(result) == result.expected_forward_passes == lookups
    twice = make_spec(*(DeltaKL(name=name, prompts=["a", "a"]) for name in ("one", "two")))
    result = run_suite(twice, sized(cache_enabled=False))
    assert paid(result) == result.expected_forward_passes == CHECK + 2 * 2


def test_without_a_backend_the_suite_says_whether_there_is_a_cache(make_spec: MakeSpec) -> None:
    """The plan follows `cache.enabled`, and its bounds change nothing."""
    probes = [DeltaKL(name=name, prompts=["a", "b"]) for name in ("one", "two")]
    assert expected_forward_passes(make_spec(*probes)) == CHECK + 4
    assert expected_forward_passes(make_spec(*probes, cache=CacheSpec(max_entries=1))) == CHECK + 4
    assert expected_forward_passes(make_spec(*probes, cache=CacheSpec(enabled=False))) == CHECK + 8


# -- what differs from the plan ---------------------------------------------------------------


def test_a_cache_that_is_too_small_costs_more(whole: SuiteSpec) -> None:
    """The plan is that of a cache with room for everything, and bounds are left out of it."""
    result = run_suite(whole, sized(cache_maxsize=4))
    assert result.expected_forward_passes == 25
    assert result.cache.evictions > 0
    assert paid(result) > 25
    assert paid(run_suite(whole, sized(cache_maxsize=25))) == 25


def test_values_that_are_rejected_cost_more(whole: SuiteSpec) -> None:
    """What is larger than the whole cache is paid for each time."""
    result = run_suite(whole, sized(cache_max_bytes=1))
    assert (result.cache.rejections > 0, result.cache.entries) == (True, 0)
    assert paid(result) > (result.expected_forward_passes or 0) == 25


def test_a_used_backend_costs_less(whole: SuiteSpec) -> None:
    """The plan begins with an empty cache; what is known from before makes a run cheaper."""
    backend = ScriptedBackend()
    results = [run_suite(whole, backend) for _ in range(2)]
    assert [(paid(one), one.expected_forward_passes) for one in results] == [(25, 25), (0, 25)]


@pytest.mark.parametrize("cached", [True, False])
def test_a_probe_that_fails_costs_less(make_spec: MakeSpec, cached: bool) -> None:
    """A failed batch is no forward pass, and what is asked again later is paid for once."""

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


# -- planning leaves no mark ------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 13, 21, 25, 34])
def test_a_plan_with_a_bound_is_what_a_run_pays(whole: SuiteSpec, size: int) -> None:
    """Probe by probe and view by view, with every eviction."""
    planned = plan_suite(whole, max_entries=size)
    backend = sized(cache_maxsize=size)
    result = run_suite(whole, backend)
    passes = {key: counts.forward_passes for key, counts in planned.series.items()}
    assert passes == {(one.probe, one.view_id, one.op): one.forward_passes for one in result.series}
    assert planned.evictions == backend.instrumentation.cache.evictions


def test_a_result_has_its_plan_by_series(whole: SuiteSpec) -> None:
    """They add up to what is expected of the run, whatever it paid."""
    result = run_suite(whole, sized(cache_maxsize=4))
    expected = [one.expected_forward_passes for one in result.series]
    assert sum(filter(None, expected)) == result.expected_forward_passes == 25
    assert any(one.forward_passes > (one.expected_forward_passes or 0) for one in result.series)


def test_enough_entries_pay_for_nothing_twice(whole: SuiteSpec) -> None:
    """And one fewer would; without a cache none is enough."""
    enough = enough_entries(whole)
    assert plan_suite(whole, max_entries=enough).forward_passes == 25
    assert plan_suite(whole, max_entries=enough - 1).forward_passes > 25
    off = whole.model_copy(update={"cache": CacheSpec(enabled=False)})
    assert enough_entries(off) == 0


def test_shared_work_is_told_by_who_asks_and_who_paid(make_spec: MakeSpec) -> None:
    """Each hit once; a probe that asks twice shares with itself."""
    spec = make_spec(
        DeltaKL(name="one", prompts=["a", "b"]), DeltaKL(name="two", prompts=["b", "c", "c"])
    )
    assert shared_work(spec) == {("two", "one"): 2, ("two", "two"): 2}
    total = plan_suite(spec).total
    assert sum(shared_work(spec).values()) == total.hits + total.coalesced == 4


def test_planning_asks_the_backend_nothing(whole: SuiteSpec, tmp_path: Path) -> None:
    """No lookup, no forward batch, no entry and no record is the plan's."""
    backend = sized(trace_path=tmp_path / "t.jsonl")
    assert expected_forward_passes(whole, backend) == 25
    assert backend.instrumentation.stats.total_lookups == 0
    assert backend.forward_batches == []
    assert len(backend.instrumentation.cache) == 0
    assert (tmp_path / "t.jsonl").read_text() == ""
    assert not backend.closed


def test_planning_makes_no_spans(whole: SuiteSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where the program has a tracer provider for all."""
    telemetry = InMemoryTelemetry()
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: telemetry.tracer_provider)
    expected_forward_passes(whole)
    assert telemetry.spans() == []
    with BackendInstrumentation().spans.around(names.SUITE_RUN, {}):
        pass
    assert [span.name for span in telemetry.spans()] == ["suite.run"]


# -- where it is told -------------------------------------------------------------------------


def test_the_gauge_stands_from_the_start(whole: SuiteSpec) -> None:
    """It has its value before the first probe, and the run's passes exceed it at the end."""
    shown, registry, seen = RunMetrics(whole), CollectorRegistry(), []
    registry.register(shown)

    def value(metric: names.Metric) -> float | None:
        return registry.get_sample_value(metric.name, {"suite": "tested", "model": "some-model"})

    class Watcher(Observer):
        def run_started(self, run: RunStarted) -> None:
            shown.run_started(run)
            seen.append((run.expected_forward_passes, value(names.RUN_EXPECTED)))

    result = run_suite(whole, sized(cache_maxsize=4), observer=Watcher())
    assert seen == [(25, 25.0)]
    assert value(names.RUN_FORWARD_PASSES) == paid(result) > value(names.RUN_EXPECTED) == 25


@pytest.mark.parametrize("strict", [True, False])
def test_a_plan_that_fails_does_not_fail_the_run(make_spec: MakeSpec, strict: bool) -> None:
    """It is warned of once, by its cause; the number is none, and the gauge NaN.

    NaN replaces the number of a run before at a Pushgateway, which no gauge would not.
    """
    spec = make_spec(Unplannable(name="odd", prompts=["a"], min_mean=1e-6))
    shown = RunMetrics(spec)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("error" if strict else "always")
        result = run_suite(spec, ScriptedBackend(), observer=shown)
    assert [str(one.message) for one in caught] == [
        "what the run should cost is not known: probe 'odd' cannot be planned: "
        "LookupError: no such expert"
    ] * (not strict)
    assert result.passed
    assert result.expected_forward_passes is None
    values = {family.name: family.samples[0].value for family in shown.collect()}
    assert values[names.RUN_FORWARD_PASSES.name] == paid(result)
    assert math.isnan(values[names.RUN_EXPECTED.name])
    assert math.isnan(values[names.RUN_PERIOD.name])


def test_a_backend_that_cannot_say_what_it_shares_does_not_fail_the_run(
    make_spec: MakeSpec,
) -> None:
    """An attribute that raises costs the plan alone."""

    class Broken(ScriptedBackend):
        @property
        def scaled_aliases(self) -> Mapping[float, str]:
            raise RuntimeError("not loaded")

    spec = make_spec(DeltaKL(name="one", prompts=["a"], min_mean=1e-6))
    with pytest.warns(RuntimeWarning, match="not known: RuntimeError: not loaded") as caught:
        result = run_suite(spec, Broken())
    assert len(caught) == 1
    assert (result.passed, result.expected_forward_passes) == (True, None)


def test_series_of_a_run_begin_before_it(make_spec: MakeSpec) -> None:
    """Those that a run counts, by probe, view family and op, are there at 0; no other probe is."""
    spec = make_spec(
        NullAdapter(name="null", runs=2),
        DeltaKL(name="change", prompts=["a", "b"]),
        AdapterAblation(name="response", prompts=["a"]),
    )
    inst = BackendInstrumentation()
    expect_series(spec, inst)
    begun = {(key.probe, view_family(key.view_id), key.op) for key in inst.ledger.snapshot().series}
    assert inst.stats.total_lookups == 0
    result = run_suite(spec, ScriptedBackend(instrumentation=inst))
    counted = {(one.probe, view_family(one.view_id), one.op) for one in result.series}
    assert counted <= begun
    assert {probe for probe, *_ in begun} == {None, "null", "change", "response"}


def test_a_probe_that_cannot_be_planned_expects_nothing(make_spec: MakeSpec) -> None:
    """It is no reason to fail before the model is there."""
    inst = BackendInstrumentation()
    expect_series(make_spec(Unplannable(name="expert", prompts=["a"])), inst)
    assert inst.ledger.snapshot().series == {}
