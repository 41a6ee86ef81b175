"""Views share entries where their weights are the same, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from forwardscope.backends.hf import HFBackend
from forwardscope.core.keys import prompt_hash
from forwardscope.errors import ViewError
from forwardscope.probes import AdapterAblation, DeltaKL
from forwardscope.suite import SuiteSpec, run_suite
from forwardscope.suite.spec import ModelSpec

Open = Callable[..., HFBackend]

ADAPTERS = ["llama_lora", "llama_embeddings", "llama_dora", "llama_head", "llama_tokens"]
PROMPT = "the cat sat"


@pytest.mark.parametrize("adapter", [*ADAPTERS, "gpt2_lora", "gpt2_tied", "gpt2_tokens"])
@pytest.mark.parametrize(
    ("lam", "view_id"), [(0.0, "base"), (-0.0, "base"), (1.0, "ft"), (1, "ft")]
)
def test_ends_of_the_scale_are_base_and_tuned(
    open_backend: Open, adapter: str, lam: float, view_id: str
) -> None:
    """The scales 0 and 1 use the entries of the base and the fine-tuned view."""
    backend = open_backend(adapter)
    with backend.as_base() as base:
        known = {"base": base.next_token_dist(PROMPT)}
    with backend.as_finetuned() as tuned:
        known["ft"] = tuned.next_token_dist(PROMPT)
    with backend.as_scaled_adapter(lam) as view:
        assert view.id == view_id
        assert view.next_token_dist(PROMPT) is known[view_id]
    assert backend.instrumentation.stats.cache_hits == 1


@pytest.mark.parametrize("adapter", ["llama_lora", "llama_dora"])
def test_plan_has_the_aliases(open_backend: Open, adapter: str) -> None:
    """A run costs the planned passes, also with a `top_k` larger than the vocabulary."""
    spec = SuiteSpec(
        version=1,
        model=ModelSpec(path="some-model", adapter=adapter),
        probes=[
            DeltaKL(name="change", prompts=[PROMPT], top_k=10**6),
            AdapterAblation(
                name="response", prompts=[PROMPT], top_k=2**20, lambdas=(0.0, 0.5, 1.0)
            ),
        ],
    )
    result = run_suite(spec, open_backend(adapter))
    assert result.backend_stats["forward_passes"] == result.expected_forward_passes == 5


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda b: b.as_scaled_adapter(0.121), lambda b: b.as_scaled_adapter(0.124)),
        (lambda b: b.as_scaled_adapter(0.5), lambda b: b.as_scaled_adapter(-0.5)),
        (lambda b: b.as_null_adapter(1), lambda b: b.as_null_adapter(2)),
        (lambda b: b.as_null_adapter(1), lambda b: b.as_null_adapter(1, init_scale=0.021)),
        (lambda b: b.as_null_adapter(1), lambda b: b.as_null_adapter(1, rank_scale=2.0)),
        (lambda b: b.as_base(), lambda b: b.as_finetuned()),
    ],
)
def test_near_views_never_share(
    open_backend: Open,
    one: Callable[[HFBackend], object],
    other: Callable[[HFBackend], object],
) -> None:
    """Two views that differ a little each pay for their passes, and give different values."""
    backend = open_backend()
    answers = []
    for opened in (one, other):
        with opened(backend) as view:
            answers.append((view.id, view.rolling_logprob(PROMPT).total_logprob))
    assert answers[0][0] != answers[1][0]
    assert answers[0][1] != answers[1][1]
    stats = backend.instrumentation.stats
    assert (stats.cache_hits, stats.forward_passes) == (0, 2)


def test_same_null_view_is_answered_from_the_cache(open_backend: Open) -> None:
    """A null view of the same seed and scales finds its entries again, defaults given or not."""
    backend = open_backend()
    with backend.as_null_adapter(1) as view:
        known = view.next_token_dist(PROMPT)
    with backend.as_null_adapter(1, init_scale=0.02, rank_scale=1) as view:
        assert view.next_token_dist(PROMPT) is known


def test_second_view_is_refused_with_both_names(open_backend: Open) -> None:
    """Opening a view while another is open names the two, and leaves the first one working."""
    backend = open_backend()
    with backend.as_scaled_adapter(0.25) as view:
        with (
            pytest.raises(ViewError, match=r"'scaled_0\.25' is open.* view 'null_7'"),
            backend.as_null_adapter(7),
        ):
            pass
        assert view.next_token_dist(PROMPT).token_ids.size == 256
    with backend.as_null_adapter(7) as view:
        assert view.id == "null_7"


def test_closed_view_refuses_a_new_question(open_backend: Open) -> None:
    """A closed view answers what is known, refuses the rest, and stores nothing."""
    backend = open_backend()
    with backend.as_finetuned() as view:
        known = view.next_token_dist(PROMPT)
    with pytest.raises(ViewError, match="view 'ft' is closed"):
        view.next_token_dist("hello")
    with pytest.raises(ViewError, match="view 'ft' is closed"):
        view.logprob_of_batch([("the", " cat")])
    assert len(backend.instrumentation.cache) == 1
    assert view.next_token_dist(PROMPT) is known
    with backend.as_base(), pytest.raises(ViewError, match="view 'ft' is closed"):
        view.next_token_dist("hello")


def test_closed_backend_opens_no_view(open_backend: Open) -> None:
    """After close no view can be opened, and closing again does nothing."""
    backend = open_backend()
    backend.close()
    backend.close()
    with pytest.raises(ViewError, match="the backend is closed"), backend.as_base():
        pass
    with pytest.raises(ViewError, match="the backend is closed"):
        backend.identity()


def test_view_open_on_a_closed_backend_refuses(open_backend: Open) -> None:
    """A view whose backend was closed under it refuses new questions as a closed one does."""
    backend = open_backend()
    with backend.as_null_adapter(1) as view:
        known = view.next_token_dist(PROMPT)
        backend.close()
        assert view.next_token_dist(PROMPT) is known
        with pytest.raises(ViewError, match="view 'null_1' is closed"):
            view.next_token_dist("hello")


@pytest.mark.parametrize("lam", [float("nan"), float("inf")])
def test_scale_must_be_finite(open_backend: Open, lam: float) -> None:
    """A scale that is no number is refused before any view is opened."""
    backend = open_backend()
    with pytest.raises(ValueError, match="must be finite"):
        backend.as_scaled_adapter(lam)
    with backend.as_base() as view:
        assert view.id == "base"


def test_records_have_the_questions_hash(open_backend: Open) -> None:
    """A refused completion is named by the hash that its trace record has."""
    with open_backend().as_base() as view, pytest.raises(ValueError, match=prompt_hash("3:the")):
        view.logprob_of("the", "")
