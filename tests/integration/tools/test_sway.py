"""Suites of dlm-sway on our instrumentation, on dlm-sway's own backends."""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import ref

import pytest
from dlm_sway import backends
from dlm_sway.backends import build_two_separate, two_model
from dlm_sway.backends.dummy import DummyDifferentialBackend, DummyResponses
from dlm_sway.core.model import ModelSpec
from dlm_sway.core.result import ProbeResult, Verdict
from dlm_sway.probes import base
from dlm_sway.probes.base import Probe, ProbeSpec
from dlm_sway.suite import runner
from dlm_sway.suite.spec import SuiteModels

from forwardscope import BackendInstrumentation
from forwardscope.cli.otlp_provider import OwnRandomIds
from forwardscope.errors import UserError
from forwardscope.integrations.dlm_sway_run import instrumented
from forwardscope.integrations.dlm_sway_views import PassedThrough, WatchedView, watched
from forwardscope.integrations.tool_run import ToolRun
from forwardscope.testing import InMemoryTelemetry

from ..conftest import Zoo
from .sway_suites import (
    PROBES,
    PROMPTS,
    Runs,
    embedder,
    model,
    own_backend,
    run_suite,
    suite,
    values,
)

pytestmark = pytest.mark.filterwarnings("default")
__all__ = ["embedder"]


def test_all_kinds_of_probes_are_as_without_us_and_the_second_run_computes_nothing(
    zoo: Zoo, tmp_path: Path
) -> None:
    """Verdicts, values and messages of all thirteen are equal, cold and warm."""
    spec = model(zoo)
    kept = [one for one in PROBES if one["kind"] != "adapter_ablation"]
    ablation = {**PROBES[2], "lambdas": [0.0, 0.5, 1.0]}  # it mixes up those that round alike
    probes = suite(spec, [*kept, ablation])
    plain = run_suite(probes, own_backend(spec))
    assert not {str(one.verdict) for one in plain.values()} & {"skip", "error"}
    runs = Runs(tmp_path / "s.db")
    assert values(runs.run(probes, own_backend(spec))) == values(plain)
    assert runs.passes > 0
    assert values(runs.run(probes, own_backend(spec))) == values(plain)
    assert runs.passes == 0
    result = runs.ended[-1].result
    assert result is not None
    assert {one.name: one.kind for one in result.probes} == {name: name for name in plain}
    assert all(one.stats.cache_hits for one in result.probes)
    assert {one.name: one.raw for one in result.probes} == {
        name: one.raw for name, one in plain.items()
    }


def test_scales_that_round_to_one_name_do_not_share_values(zoo: Zoo) -> None:
    """A value at 1.251 is not one at 1.254, nor is one of a null view of another scale."""
    backend, inst = own_backend(model(zoo)), BackendInstrumentation()
    with watched(backend, inst):
        found = []
        for lam in (1.251, 1.254):
            with backend.as_scaled_adapter(lam) as view:
                found.append(view.next_token_dist(PROMPTS[0], top_k=4).logprobs.tolist())
        for scales in ({}, {"init_scale": 0.05}, {"rank_scale": 1.001}, {"rank_scale": 1.004}):
            with backend.as_null_adapter(1, **scales) as view:
                found.append(view.next_token_dist(PROMPTS[0], top_k=4).logprobs.tolist())
    assert inst.stats.forward_passes == len(found)
    assert len({tuple(one) for one in found}) == len(found)
    assert len({key.view_id for key in inst.ledger.snapshot().series}) == len(found)


def test_prompt_and_completion_are_apart_in_the_key() -> None:
    """Two pairs that are one text when joined have two values."""
    asked = []

    class View:
        id = "base"

        def logprob_of(self, prompt: str, completion: str) -> float:
            asked.append((prompt, completion))
            return -float(len(asked))

    view = WatchedView(View(), "base", BackendInstrumentation())
    pairs = [("a\0b", "c"), ("a", "b\0c"), ("a\0b", "c")]
    assert [view.logprob_of(*pair) for pair in pairs] == [-1.0, -2.0, -1.0]


def test_a_drawn_text_is_never_answered_from_the_cache() -> None:
    """A greedy one is; one of another seed or length is another."""

    class View:
        id, n = "base", 0

        def generate(self, prompt: str, **settings: Any) -> str:
            self.n += 1
            return f"{prompt} {self.n}"

    view = WatchedView(View(), "base", BackendInstrumentation())
    drawn = [view.generate("a", max_new_tokens=2, temperature=0.7, seed=1) for _ in range(2)]
    assert drawn == ["a 1", "a 2"]
    greedy = [view.generate("a", max_new_tokens=n, seed=1) for n in (2, 3, 2)]
    assert greedy == ["a 3", "a 4", "a 3"]


def test_two_adapters_on_one_store_pay_for_the_base_once(zoo: Zoo, tmp_path: Path) -> None:
    """A second adapter computes its own views alone, with its own values."""
    probes, runs = PROBES[1:2], Runs(tmp_path / "s.db")
    found = {}
    for adapter in ("llama_lora", "llama_other"):
        spec = model(zoo, adapter)
        plain = run_suite(suite(spec, probes), own_backend(spec))
        found[adapter] = runs.run(suite(spec, probes), own_backend(spec))["delta_kl"].raw
        assert found[adapter] == plain["delta_kl"].raw
    assert len(set(found.values())) == 2
    assert runs.passes == len(PROMPTS) + 1  # of the base none, and one is that of the check
    assert {
        key.view_id: counts.forward_passes
        for key, counts in runs.ended[-1].instrumentation.ledger.snapshot().series.items()
        if key.probe == "delta_kl"
    } == {"base": 0, "ft": len(PROMPTS)}


def test_two_models_have_two_sets_of_values(zoo: Zoo, tmp_path: Path) -> None:
    """With `differential: false` no model has a value of another, nor another tuned model's."""
    base, runs = model(zoo, "gpt2_lora"), Runs(tmp_path / "s.db")
    for adapter, expected in (("llama_lora", 12), ("llama_lora", 1), ("llama_other", 7)):
        tuned = model(zoo, adapter)
        models = SuiteModels(base=base, ft=tuned)
        spec = suite(tuned, PROBES[4:5]).model_copy(update={"models": models})
        plain = run_suite(spec, build_two_separate(models))
        assert values(runs.run(spec, build_two_separate(models))) == values(plain)
        assert runs.passes == expected  # one is of a view that only the check opens


def test_a_backend_that_cannot_be_identified_is_not_stored(tmp_path: Path) -> None:
    """The result says so; with a version given it is stored, under that version."""
    spec = suite(ModelSpec(base="dummy", kind="dummy"), PROBES[1:2])
    runs = Runs(tmp_path / "s.db")
    for _ in range(2):
        runs.run(spec, _dummy())
        result = runs.ended[-1].result
        assert result is not None
        assert "give --model-revision" in result.warnings[0]
        assert runs.passes > 0
    for revision, computes in (("1", True), ("1", False), ("2", True)):
        runs.run(spec, _dummy(), revision=revision)
        assert (runs.passes > 0) is computes


def test_a_version_does_not_stand_for_content_that_can_be_read(zoo: Zoo, tmp_path: Path) -> None:
    """A suite of `kind: hf` finds its values with a version given and without."""
    spec, runs = model(zoo), Runs(tmp_path / "s.db")
    for revision, computes in ((None, True), ("1", False), ("2", False)):
        runs.run(suite(spec, PROBES[1:2]), own_backend(spec), revision=revision)
        assert (runs.passes > 0) is computes


def test_an_error_keeps_its_class_and_texts_stay_out_of_the_result(zoo: Zoo) -> None:
    """Evidence has the numbers of a probe; its prompts are in dlm-sway's own report alone."""
    spec, runs = model(zoo), Runs()
    probes = [PROBES[4], {"kind": "delta_kl", "prompts": [""]}]
    runs.run(suite(spec, probes), own_backend(spec))
    result = runs.ended[-1].result
    assert result is not None
    drift, failed = result.probes
    assert drift.evidence["total_items"] == 5
    assert "prompt" not in str(drift.evidence)
    assert (failed.verdict.value, bool(failed.error_type)) == ("error", True)


@pytest.mark.parametrize("show_errors", [False, True])
def test_the_message_of_an_error_needs_a_permission(
    show_errors: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have a prompt; by default the result has the class alone."""
    backend, runs = _dummy(), Runs()
    with backend.as_base() as view:
        answer = type(view).next_token_dist

    def fail(self: Any, prompt: str, **settings: Any) -> Any:
        if prompt == "mine":
            raise ValueError(f"cannot score {prompt}")
        return answer(self, prompt, **settings)

    monkeypatch.setattr(type(view), "next_token_dist", fail)
    spec = suite(ModelSpec(base="dummy", kind="dummy"), [{"kind": "delta_kl", "prompts": ["mine"]}])
    with instrumented(lambda one: runs.open(one.model_copy(update={"show_errors": show_errors}))):
        assert "mine" in run_suite(spec, backend)["delta_kl"].message
    assert runs.ended[-1].result is not None
    (failed,) = runs.ended[-1].result.probes
    assert ("mine" in failed.message, failed.error_type) == (show_errors, "ValueError")


class _ForeignSpec(ProbeSpec):
    kind: str = "foreign"
    prompts: list[str]


@pytest.fixture
def foreign() -> Iterator[str]:
    """The kind of a probe of another package, whose texts have its prompt."""

    class Foreign(Probe):
        kind, spec_cls = "foreign", _ForeignSpec

        def run(self, spec: Any, ctx: Any) -> Any:
            (prompt,) = spec.prompts
            return ProbeResult(
                *(spec.name, "foreign", Verdict.PASS, 1.0),
                message=f"{prompt} was scored",
                evidence={prompt: 1.0},
            )

    yield "foreign"
    del base._REGISTRY["foreign"]


@pytest.mark.parametrize("show_errors", [False, True])
def test_texts_of_a_probe_of_another_package_need_a_permission(
    foreign: str, show_errors: bool
) -> None:
    """Its message and the keys of its evidence may be prompts; its numbers are there."""
    runs = Runs()
    spec = suite(ModelSpec(base="dummy", kind="dummy"), [{"kind": foreign, "prompts": ["mine"]}])
    with instrumented(lambda one: runs.open(one.model_copy(update={"show_errors": show_errors}))):
        run_suite(spec, _dummy())
    assert runs.ended[-1].result is not None
    (measured,) = runs.ended[-1].result.probes
    assert (measured.score, measured.verdict.value) == (1.0, "pass")
    assert ("mine" in measured.message) is show_errors
    assert measured.evidence == ({"mine": 1.0} if show_errors else {})


@pytest.mark.parametrize("ci_95", [(0.1,), (0.1, math.nan), "ab", 5])
@pytest.mark.parametrize("evidence", [[1.0], 5, None, {1: {"a": math.inf}, "b": "text"}])
def test_a_result_of_another_form_is_no_error(
    ci_95: Any, evidence: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is no interval, and no evidence by name, is left out."""
    answer = ProbeResult("delta_kl", "delta_kl", Verdict.PASS, 1.0, ci_95=ci_95, evidence=evidence)
    monkeypatch.setattr(base.registry()["delta_kl"], "run", lambda *_: answer)
    runs = Runs()
    runs.run(suite(ModelSpec(base="dummy", kind="dummy"), PROBES[1:2]), _dummy())
    assert runs.ended[-1].result is not None
    (measured,) = runs.ended[-1].result.probes
    assert (measured.ci_95, measured.score) == (None, 1.0)
    assert measured.evidence in ({}, {"1": {}})


def test_a_backend_is_freed_when_the_tool_drops_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while suites are instrumented, as `diff` loads one after another."""
    monkeypatch.setattr(backends, "build", lambda *_, **__: _dummy())
    with instrumented(Runs().open):
        backend = backends.build(ModelSpec(base="dummy", kind="dummy"))
        dropped = ref(backend)
        run_suite(suite(ModelSpec(base="dummy", kind="dummy"), PROBES[1:2]), backend)
        del backend
        gc.collect()
        assert dropped() is None


def test_a_version_without_what_is_replaced_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence names what is missing."""
    monkeypatch.delattr(two_model, "TwoModelDifferential")
    with (
        pytest.raises(UserError, match=r"has no dlm_sway\.backends\.two_model\.TwoModelDiff"),
        instrumented(Runs().open),
    ):
        pass


def test_a_lookup_outside_any_view_is_counted_and_not_kept() -> None:
    """As a backend behind an API makes it to check itself; one inside a view is counted once."""
    inst = BackendInstrumentation()
    own = PassedThrough(inst)
    computed = iter((1, 2))
    found = [own.cached("op", "api:m", "a", 1, lambda: next(computed)) for _ in range(2)]
    assert found == [1, 2]
    assert (inst.stats.forward_passes, inst.stats.total_lookups) == (2, 2)
    asked = ("op", "base", "a", 1)
    assert inst.cached(*asked, lambda: own.cached(*asked, lambda: 3)) == 3
    assert inst.stats.total_lookups == 3


def test_a_run_is_one_trace() -> None:
    """Suite, probes, lookups, forward passes; an error of a probe is one of its span."""
    telemetry = InMemoryTelemetry()
    telemetry.tracer_provider.id_generator = OwnRandomIds()  # dlm-sway seeds Python's

    @contextmanager
    def open_run(spec: Any) -> Iterator[ToolRun]:
        with ToolRun(spec, telemetry.instrumentation()) as run:
            yield run

    probes = [PROBES[1], {"kind": "delta_kl", "name": "empty", "prompts": []}]
    with instrumented(open_run, name="nightly"):
        run_suite(suite(ModelSpec(base="dummy", kind="dummy"), probes), _dummy())
    spans = {one.id: one for one in telemetry.spans()}
    tree = {
        (spans[one.parent].name if one.parent in spans else "", one.name) for one in spans.values()
    }
    assert tree == {
        ("", "suite nightly"),
        ("suite nightly", "probe delta_kl"),
        ("suite nightly", "probe empty"),
        ("suite nightly", "lookup miss"),  # of the check before the probes
        ("probe delta_kl", "lookup miss"),
        ("lookup miss", "forward base"),
        ("lookup miss", "forward ft"),
    }
    failed = [one.name for one in spans.values() if one.status == "error"]
    assert sorted(failed) == ["probe empty", "suite nightly"]


def test_a_backend_whose_methods_are_fixed_is_refused() -> None:
    """One sentence names its class."""

    class Fixed:
        __slots__ = ()

    with pytest.raises(UserError, match="Fixed cannot be instrumented"):
        Runs().run(suite(ModelSpec(base="fixed", kind="custom")), Fixed())


def test_all_is_as_before_when_a_run_has_ended(zoo: Zoo) -> None:
    """Runner and backend are dlm-sway's own again, also after an error."""
    backend, before = own_backend(model(zoo)), (runner.run, runner.build_probe)
    own = backend._inst

    @contextmanager
    def fail(_: Any) -> Iterator[Any]:
        raise UserError("no")
        yield

    with pytest.raises(UserError), instrumented(fail):
        run_suite(suite(model(zoo)), backend)
    Runs().run(suite(model(zoo), PROBES[1:2]), backend)
    assert (runner.run, runner.build_probe) == before
    assert backend._inst is own
    assert "as_base" not in vars(backend)


def _dummy() -> DummyDifferentialBackend:
    return DummyDifferentialBackend(base=DummyResponses(), ft=DummyResponses())
