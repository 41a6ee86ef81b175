"""A store answers what is planned, and the run pays the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

import hypothesis.strategies as st
from hypothesis import given

from forwardscope import BackendInstrumentation
from forwardscope.probes import (
    AdapterAblation,
    CompletionPreference,
    DeltaKL,
    NullAdapter,
    PerplexityShift,
    PromptCollapse,
)
from forwardscope.store.base import Store
from forwardscope.suite import RunMetrics, SuiteResult, SuiteSpec, run_suite
from forwardscope.suite.spec import ModelSpec
from forwardscope.suite.stored import StoredPlan, stored_plan
from forwardscope.telemetry import run_names
from forwardscope.testing import MemoryStore, ScriptedBackend

MakeSpec = Callable[..., SuiteSpec]

PAIRS = [
    {"prompt": "a", "wanted": "b", "unwanted": "c"},
    {"prompt": "ab", "wanted": "c", "unwanted": "d"},
]

prompts = st.lists(st.sampled_from(["hello", "a", "b", "."]), min_size=1, max_size=3)
any_probe = st.one_of(
    st.builds(
        DeltaKL, name=st.just("x"), prompts=prompts, top_k=st.sampled_from([1, 8, 32, 33, 300])
    ),
    st.builds(AdapterAblation, name=st.just("x"), prompts=prompts),
    st.builds(
        PromptCollapse, name=st.just("x"), prompts=prompts, context_lengths=st.just((0, 1, 3))
    ),
    st.builds(NullAdapter, name=st.just("x"), runs=st.integers(1, 2), sentinel_prompts=prompts),
    st.builds(PerplexityShift, name=st.just("x"), texts=st.just(["hello", "ab"])),
    st.builds(
        CompletionPreference,
        name=st.just("x"),
        pairs=st.lists(st.sampled_from(PAIRS), min_size=1, max_size=2),
    ),
)
any_suite = st.builds(
    lambda probes, chat: SuiteSpec(
        version=1,
        model=ModelSpec(path="some-model", adapter="some-adapter"),
        chat=chat,
        probes=[one.model_copy(update={"name": f"{i}"}) for i, one in enumerate(probes)],
    ),
    st.lists(any_probe, min_size=1, max_size=4),
    st.booleans(),
)


def backend_with(store: Store) -> ScriptedBackend:
    """Return a backend whose fine-tuned view is not the one of another adapter."""
    return ScriptedBackend(
        instrumentation=BackendInstrumentation(store=store), view_identity=lambda view: view
    )


def answered(result: SuiteResult) -> Mapping[tuple[str | None, str], int]:
    """Return the store hits of a run by probe and view."""
    found = Counter[tuple[str | None, str]]()
    for one in result.series:
        found[one.probe, one.view_id] += one.store_hits
    return {place: number for place, number in found.items() if number}


@given(first=any_suite, second=any_suite)
def test_a_run_is_answered_what_is_planned(first: SuiteSpec, second: SuiteSpec) -> None:
    """After a run of any suite, for any other one, by probe and view."""
    store = MemoryStore()
    run_suite(first, backend_with(store))
    asked = backend_with(store)
    planned = stored_plan(second, asked, store)
    assert asked.forward_batches == []
    result = run_suite(second, backend_with(store))
    assert dict(planned.answered) == answered(result)
    assert result.backend_stats["forward_passes"] + planned.total == result.expected_forward_passes


def test_a_warm_run_reaches_its_plan(full_suite: SuiteSpec) -> None:
    """Its lookups, and the passes that it needed, are those planned; only paid ones are fewer."""
    store, metrics = MemoryStore(), RunMetrics(full_suite)
    run_suite(full_suite, backend_with(store))
    result = run_suite(full_suite, backend_with(store), observer=metrics)
    values = {family.name: family.samples[0].value for family in metrics.collect()}
    needed = values[run_names.RUN_FORWARD_PASSES.name] + values[run_names.RUN_STORE_HITS.name]
    assert needed == values[run_names.RUN_EXPECTED.name] == result.demand == 25
    assert values[run_names.RUN_LOOKUPS.name] == values[run_names.RUN_EXPECTED_LOOKUPS.name]
    assert values[run_names.RUN_FORWARD_PASSES.name] == 0
    assert [one.demand for one in result.series] == [
        one.expected_forward_passes for one in result.series
    ]


def test_planning_stores_nothing(full_suite: SuiteSpec) -> None:
    """Made-up values do not get into the store, and no identity is described."""
    store = MemoryStore()
    assert stored_plan(full_suite, backend_with(store), store) == StoredPlan()
    assert store.stats().entries == 0
    assert store.identities() == {}


def test_identities_are_counted_once(full_suite: SuiteSpec) -> None:
    """A run verifies one value of each identity: of base, ft, two null and four scaled views."""
    store = MemoryStore()
    run_suite(full_suite, backend_with(store))
    planned = stored_plan(full_suite, backend_with(store), store)
    assert (planned.total, planned.identities) == (25, 8)


def test_views_without_an_identity(make_spec: MakeSpec) -> None:
    """They are named, and nothing is found for them."""
    spec, store = make_spec(DeltaKL(name="one", prompts=["a"])), MemoryStore()
    run_suite(spec, backend_with(store))
    planned = stored_plan(spec, ScriptedBackend(view_identity={"base": "base"}.get), store)
    assert planned.unidentified_views == ("ft",)
    assert {view for _, view in planned.answered} == {"base"}
