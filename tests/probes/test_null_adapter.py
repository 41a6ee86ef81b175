"""`null_adapter`: baselines of later probes from random adapters."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

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
from forwardscope.probes.divergence import divergence
from forwardscope.probes.general import GENERAL_PROMPTS
from forwardscope.testing import ScriptedBackend, ScriptedView, pseudo_random_logits

SENTINELS = ("calm", "still")
ONE = DeltaKL(name="one", prompts=["a", "b"])


def run(
    *later: Probe, backend: ScriptedBackend | None = None, **settings: object
) -> tuple[Outcome, ScriptedBackend]:
    """Calibrate probes; return the outcome and the backend."""
    backend = backend or ScriptedBackend()
    probe = NullAdapter(name="null", sentinel_prompts=SENTINELS, **settings)
    return probe.run(ProbeContext(backend, later=later)), backend


def test_each_view_is_one_batch() -> None:
    """The sentinels are scored once in the base view and in the null view of each seed."""
    _, backend = run(ONE, runs=3, seed_base=70)
    views = ("base", "null_70", "null_71", "null_72")
    assert backend.forward_batches == [(view, list(SENTINELS)) for view in views]


def test_scale_of_the_random_adapters_is_passed_on() -> None:
    """The id of the null view contains `init_scale`."""
    _, backend = run(ONE, runs=1, init_scale=0.5)
    assert [view for view, _ in backend.forward_batches] == ["base", "null_1000_init0.5"]


def test_mean_and_deviation_are_over_the_seeds() -> None:
    """The baseline has the mean and the sample deviation (n-1) of the raw values."""
    outcome, _ = run(ONE, runs=4, seed_base=5)
    fresh = ScriptedBackend()
    with fresh.as_base() as view:
        base = view.next_token_dist_batch(SENTINELS)
    raws = []
    for seed in range(5, 9):
        with fresh.as_null_adapter(seed) as view:
            null = view.next_token_dist_batch(SENTINELS)
        raws.append(np.mean([divergence(p, q) for p, q in zip(base, null, strict=True)]))
    assert outcome.verdict is Verdict.PASS
    assert outcome.baseline is not None
    (stats,) = outcome.baseline.stats.values()
    assert stats.n == 4
    assert stats.mean == pytest.approx(np.mean(raws), rel=1e-9)
    assert stats.std == pytest.approx(np.std(raws, ddof=1), rel=1e-9)
    assert stats.largest == max(raws)
    (calibration,) = outcome.evidence["calibrations"]
    assert calibration["samples"] == pytest.approx(raws, rel=1e-9)


def test_later_probes_get_their_z_score() -> None:
    """A z-score is (raw - mean) / deviation over the samples in the evidence."""
    outcome, backend = run(ONE, runs=5)
    judged = ONE.run(ProbeContext(backend, baseline=outcome.baseline))
    samples = outcome.evidence["calibrations"][0]["samples"]
    assert judged.raw is not None
    expected = (judged.raw - np.mean(samples)) / np.std(samples, ddof=1)
    assert judged.z_score == pytest.approx(expected, rel=1e-9)
    assert judged.verdict is Verdict.PASS


def test_equal_calibrations_share_a_baseline() -> None:
    """Probes that differ in name, prompts or thresholds are calibrated once."""
    other = DeltaKL(name="two", prompts=["c"], min_z=9.0, min_mean=5.0)
    outcome, backend = run(ONE, other, runs=2)
    assert outcome.baseline is not None
    assert len(outcome.baseline.stats) == 1
    assert len(backend.forward_batches) == 3
    assert backend.instrumentation.stats.cache_hits == len(SENTINELS)  # base view, second seed


def test_different_calibrations_have_their_own_baselines() -> None:
    """Probes that differ in divergence or top_k have different baselines."""
    kl = DeltaKL(name="kl", prompts=["a"], divergence="kl")
    narrow = DeltaKL(name="narrow", prompts=["a"], top_k=4)
    outcome, backend = run(ONE, kl, narrow, runs=2)
    assert outcome.baseline is not None
    described = [(c["divergence"], c["top_k"]) for c in outcome.evidence["calibrations"]]
    assert described == [("js", None), ("kl", None), ("js", 4)]
    for probe in (ONE, kl, narrow):
        alone, _ = run(probe, runs=2)
        assert alone.baseline is not None
        key = probe.calibration(SENTINELS)
        assert outcome.baseline.stats[key] == alone.baseline.stats[key]
    means = {stats.mean for stats in outcome.baseline.stats.values()}
    assert len(means) == 3
    assert len(backend.forward_batches) == 6  # kl has only hits


def same_for_all_seeds(view: ScriptedView, prompt: str) -> npt.NDArray[np.float64]:
    """Return the same logits for every random adapter."""
    logits = pseudo_random_logits(ScriptedView("base", 0.0), prompt)
    return logits + (0.1 if view.id != "base" else 0.0) * np.arange(logits.size)


@pytest.mark.parametrize(("backend", "runs"), [(None, 1), (ScriptedBackend(same_for_all_seeds), 3)])
def test_without_a_deviation_there_is_no_z_score(
    backend: ScriptedBackend | None, runs: int
) -> None:
    """With one run, or equal runs, a probe uses its own threshold."""
    outcome, used = run(ONE, backend=backend, runs=runs)
    assert outcome.baseline is not None
    (stats,) = outcome.baseline.stats.values()
    assert (stats.std, stats.n) == (pytest.approx(0.0, abs=1e-12), runs)
    judged = DeltaKL(name="one", prompts=["a", "b"], min_mean=1e-6).run(
        ProbeContext(used, baseline=outcome.baseline)
    )
    assert (judged.verdict, judged.z_score) == (Verdict.PASS, None)


def test_probes_without_calibration_are_not_run() -> None:
    """Only probes with a calibration are run on random adapters."""
    ablation = AdapterAblation(name="ablation", prompts=["x"])
    collapse = PromptCollapse(name="collapse", prompts=["x"])
    outcome, backend = run(ablation, ONE, collapse, runs=1)
    assert outcome.message == "1 baseline over 1 random adapter"
    assert {prompt for _, prompts in backend.forward_batches for prompt in prompts} == {*SENTINELS}


def test_nothing_to_calibrate_is_skipped() -> None:
    """Without a later probe to calibrate there are no forward passes."""
    for later in ((), (AdapterAblation(name="ablation", prompts=["x"]),)):
        outcome, backend = run(*later)
        assert (outcome.verdict, outcome.baseline, outcome.score) == (Verdict.SKIP, None, None)
        assert backend.forward_batches == []


def test_a_backend_without_random_adapters_is_skipped(plain_backend: Any) -> None:
    """A backend without null views gives the verdict skip, with its reason if it has one."""
    outcome = NullAdapter(name="null").run(ProbeContext(plain_backend, later=(ONE,)))
    assert (outcome.verdict, outcome.baseline) == (Verdict.SKIP, None)
    assert "cannot make random adapters" in outcome.message
    plain_backend.refused_views = {"null": "there is no adapter"}
    outcome = NullAdapter(name="null").run(ProbeContext(plain_backend, later=(ONE,)))
    assert (outcome.verdict, outcome.message) == (Verdict.SKIP, "there is no adapter")


def test_an_older_baseline_is_not_used_while_calibrating() -> None:
    """A second `null_adapter` gives the same baseline as the first."""
    first, backend = run(ONE, runs=3)
    again = NullAdapter(name="again", sentinel_prompts=SENTINELS, runs=3).run(
        ProbeContext(backend, baseline=first.baseline, later=(ONE,))
    )
    assert again.baseline == first.baseline


def test_the_backend_stays_open() -> None:
    """The probe does not close the backend."""
    _, backend = run(ONE, runs=1)
    assert not backend.closed
    with backend.as_base() as view:
        assert view.id == "base"


def test_evidence_is_json_without_prompts() -> None:
    """The evidence can be written as JSON and contains no sentinel."""
    outcome, _ = run(ONE, runs=2)
    text = json.dumps(outcome.evidence)
    assert "calm" not in text
    assert outcome.evidence["calibrations"][0]["kind"] == "delta_kl"


def test_the_general_prompts_are_the_default() -> None:
    """By default the general prompts are scored."""
    backend = ScriptedBackend()
    NullAdapter(name="null", runs=1).run(ProbeContext(backend, later=(ONE,)))
    assert backend.forward_batches[0] == ("base", list(GENERAL_PROMPTS))
