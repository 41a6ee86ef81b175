"""Suites of dlm-sway on our batched backend."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dlm_sway.backends import build
from dlm_sway.core.errors import ProbeError, SpecValidationError
from dlm_sway.core.scoring import (
    NullCalibratedBackend,
    PreflightCheckable,
    RollingLogprob,
    ScalableDifferentialBackend,
    TokenDist,
)
from dlm_sway.suite.spec import SwaySpec

from forwardscope.integrations.dlm_sway import Backend

from ..conftest import Zoo
from .sway_suites import PROBES, PROMPTS, Runs, embedder, model, own_backend, run_suite, suite

pytestmark = pytest.mark.filterwarnings("default")
__all__ = ["embedder"]

_ENTRY = "forwardscope.integrations.dlm_sway:Backend"
_PAIRS = [("the cat", " sat on the mat"), ("hello there wor", "ld, the weather"), ("the", " cat")]


@pytest.fixture
def backend(zoo: Zoo) -> Iterator[Backend]:
    """Our backend, as dlm-sway makes it."""
    made: Any = build(model(zoo, kind="custom", entry_point=_ENTRY))
    yield made
    made.close()


def _suite(zoo: Zoo) -> SwaySpec:
    """Return a suite of all kinds but one, whose texts are longer than the model's context.

    The mean of `section_internalization` is 0 but for rounding, so that its z-score would
    be a quotient of rounding errors.
    """
    null, *others = [one for one in PROBES if one["kind"] != "external_perplexity"]
    return suite(model(zoo), [null | {"calibrate_kinds": ["delta_kl", "preference_flip"]}, *others])


def test_it_has_all_abilities(backend: Backend) -> None:
    """dlm-sway finds the protocols of its own backend, and a check that passes."""
    for protocol in (NullCalibratedBackend, ScalableDifferentialBackend, PreflightCheckable):
        assert isinstance(backend, protocol)
    assert backend.preflight_finite_check() == (True, "")


def test_values_are_those_of_the_own_backend(zoo: Zoo, backend: Backend) -> None:
    """In all views, also where a completion's first token is one with the prompt's last."""
    own = own_backend(model(zoo))
    openings: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
        ("as_base", (), {}),
        ("as_finetuned", (), {}),
        ("as_scaled_adapter", (0.4,), {}),
        ("as_null_adapter", (3,), {}),
        ("as_null_adapter", (3,), {"init_scale": 0.1, "rank_scale": 0.5}),
    ]
    for method, given, scales in openings:
        seen = []
        for one in (own, backend):
            with getattr(one, method)(*given, **scales) as view:
                dist = view.next_token_dist(PROMPTS[0], top_k=296)
                short = view.next_token_dist(PROMPTS[0], top_k=8)
                rolled = view.rolling_logprob(PROMPTS[1])
                sums = [view.logprob_of(*pair) for pair in _PAIRS]
                text = view.generate(PROMPTS[0], max_new_tokens=4)
            assert (type(dist), type(rolled)) == (TokenDist, RollingLogprob)
            assert dist.tail_logprob is None
            seen.append((dist, short, rolled, sums, text))
        (dist, short, rolled, sums, text), ours = seen
        order, own_order = np.argsort(dist.token_ids), np.argsort(ours[0].token_ids)
        np.testing.assert_allclose(
            dist.logprobs[order], ours[0].logprobs[own_order], rtol=0, atol=1e-4
        )
        assert short.tail_logprob == pytest.approx(ours[1].tail_logprob, abs=1e-3)
        np.testing.assert_allclose(rolled.logprobs, ours[2].logprobs, rtol=0, atol=1e-4)
        assert rolled.total_logprob == pytest.approx(ours[2].total_logprob, abs=1e-3)
        assert sums == pytest.approx(ours[3], abs=1e-3)
        assert text == ours[4]


def test_a_drawn_text_is_that_of_its_seed(zoo: Zoo, backend: Backend) -> None:
    """Equal seeds draw equal texts, those of the own backend."""
    own, texts = own_backend(model(zoo)), []
    settings = {"max_new_tokens": 6, "temperature": 1.5, "top_p": 0.9}
    for one in (own, backend, backend):
        with one.as_finetuned() as view:
            texts.append([view.generate("the cat", seed=seed, **settings) for seed in (1, 2)])
    assert texts[0] == texts[1] == texts[2]


def test_a_completion_without_tokens_is_an_error_of_its_probe(backend: Backend) -> None:
    """The probes expect this class."""
    with backend.as_base() as view, pytest.raises(ProbeError, match="adds no token"):
        view.logprob_of("the cat", "")


def test_a_suite_has_equal_verdicts_and_is_computed_in_batches(zoo: Zoo, backend: Backend) -> None:
    """Each lookup is counted once, and those of a view and probe are one batch."""
    spec = _suite(zoo)
    plain, runs = run_suite(spec, own_backend(model(zoo))), Runs()
    ours = runs.run(spec, backend)
    for name, one in plain.items():
        assert ours[name].verdict == one.verdict, (name, ours[name].message, one.message)
        if name != "adapter_ablation":  # it mixes up scales that round alike
            assert ours[name].raw == pytest.approx(one.raw, abs=1e-3)
    run = runs.ended[-1]
    series = run.instrumentation.ledger.snapshot().series
    asked = {
        key.view_id: counts.lookups for key, counts in series.items() if key.probe == "delta_kl"
    }
    assert asked == {"base": len(PROMPTS), "ft": len(PROMPTS)}
    texts = sum(one.forward_passes for key, one in series.items() if key.op == "generate")
    stats, checks = run.instrumentation.stats, 2  # those of the runner, before the probes
    assert texts > 0
    assert stats.forward_passes - stats.batched_prompts == texts + checks


def test_it_batches_under_the_runner_alone(zoo: Zoo, backend: Backend) -> None:
    """A suite that dlm-sway runs without us is batched as well."""
    run_suite(suite(model(zoo), PROBES[:3]), backend)
    assert backend.backend.instrumentation.stats.max_batch_size >= len(PROMPTS)


def test_a_store_answers_the_second_run(zoo: Zoo, tmp_path: Path) -> None:
    """Nothing is computed again but texts."""
    runs, spec = Runs(tmp_path / "s.db"), model(zoo, kind="custom", entry_point=_ENTRY)
    for expected in (True, False):
        made: Any = build(spec)
        runs.run(suite(spec, PROBES[:7]), made)
        made.close()
        assert (runs.passes > 0) is expected


def test_made_up_values_reach_no_file(zoo: Zoo, backend: Backend, user_cache: Path) -> None:
    """dlm-sway's file of random adapters has the values of the model."""
    null = {"kind": "null_adapter", "runs": 2}
    spec = suite(model(zoo), [null, PROBES[1]])
    plain = run_suite(spec, own_backend(model(zoo)))["null_adapter"].evidence["null_stats"]
    kept = set((user_cache.parent / "dlm-sway").rglob("*.json"))
    run_suite(spec, backend)
    [file] = set((user_cache.parent / "dlm-sway").rglob("*.json")) - kept
    stats = json.loads(file.read_text())["null_stats"]
    assert stats["delta_kl"]["mean"] == pytest.approx(plain["delta_kl"]["mean"], rel=1e-3)
    before = backend.backend.instrumentation.stats.forward_passes
    run_suite(suite(model(zoo), [null, {**PROBES[1], "enabled": False}]), backend)
    assert backend.backend.instrumentation.stats.forward_passes == before  # the file has it


def test_mistakes_are_those_of_a_suite(zoo: Zoo, tmp_path: Path) -> None:
    """dlm-sway prints them as a sentence and exits with 2."""
    spec = model(zoo, kind="custom", entry_point=_ENTRY)
    for changed, says in (
        ({"adapter": None}, "give the adapter"),
        ({"adapter": tmp_path}, "adapter"),
        ({"trust_remote_code": True}, "leave out trust_remote_code"),
        ({"base": str(tmp_path)}, "model"),
    ):
        with pytest.raises(SpecValidationError, match=says):
            build(spec.model_copy(update=changed))
