"""lm-evaluation-harness with its models behind the cache, and behind its own."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lm_eval.api.model import LM, CachingLM
from lm_eval.models.huggingface import HFLM

from forwardscope import BackendInstrumentation
from forwardscope.integrations.lm_eval import CachedLM, wrap

from ..conftest import Zoo
from .harness import GREEDY, CountingLM, evaluate, load, request, write_tasks

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tasks over local files."""
    return write_tasks(tmp_path_factory.mktemp("tasks"))


@contextmanager
def _behind(lm: LM, file: Path, **settings: Any) -> Iterator[CachedLM]:
    """Wrap a model, with a store in a file."""
    with closing(wrap(lm, store=str(file), **settings)) as cached:
        yield cached


def _computed(cached: CachedLM) -> int:
    return cached.instrumentation.stats.forward_passes


def test_metrics_and_answers_are_equal_cold_and_warm(zoo: Zoo, tasks: Path, tmp_path: Path) -> None:
    """All metrics of all kinds of tasks are as without us; the second run computes nothing."""
    plain = evaluate(load(zoo.path("llama")), tasks)
    with _behind(load(zoo.path("llama")), tmp_path / "s.db") as cold:
        assert evaluate(cold, tasks) == plain
        assert _computed(cold) == 15 + 5 + 5  # of choice-again none
    with _behind(load(zoo.path("llama")), tmp_path / "s.db") as warm:
        assert evaluate(warm, tasks) == plain
        assert _computed(warm) == 0
        series = warm.instrumentation.ledger.snapshot().series
    assert {key.probe: counts.hits + counts.coalesced for key, counts in series.items()} == {
        "choice": 15,
        "choice-again": 15,
        "rolling": 5,
        "generate": 5,
    }


def test_base_and_tuned_share_a_store_and_no_score(zoo: Zoo, tasks: Path, tmp_path: Path) -> None:
    """Neither gets an answer of the other, in any order; the harness's own cache serves them."""
    base, tuned = zoo.path("llama"), zoo.path("llama_lora")
    plain = [evaluate(load(base), tasks), evaluate(load(base, peft=str(tuned)), tasks)]
    assert plain[0]["answers"] != plain[1]["answers"]
    paid = []
    for _ in range(2):
        for expected, settings in zip(plain, ({}, {"peft": str(tuned)}), strict=True):
            with _behind(load(base, **settings), tmp_path / "s.db") as cached:
                assert evaluate(cached, tasks) == expected
                paid.append(_computed(cached))
    assert paid == [25, 25, 0, 0]
    theirs = str(tmp_path / "theirs")
    assert evaluate(load(base), tasks, use_cache=theirs)["answers"] == plain[0]["answers"]
    as_tuned = evaluate(load(base, peft=str(tuned)), tasks, use_cache=theirs)
    assert as_tuned["answers"] == plain[0]["answers"]  # the base's scores as the adapter's


def test_equal_names_with_other_weights_share_nothing(zoo: Zoo, tmp_path: Path) -> None:
    """A model whose weights were changed in memory is another model."""
    lm = load(zoo.path("llama"))
    asked = [request("loglikelihood", "the cat", " sat")]
    with _behind(lm, tmp_path / "s.db") as cached:
        before = cached.loglikelihood(asked)
    with torch.no_grad():
        next(iter(lm.model.parameters())).mul_(1.5)
    with _behind(lm, tmp_path / "s.db") as cached:
        after = cached.loglikelihood(asked)
        assert (_computed(cached), after == before) == (1, False)


def test_a_model_that_is_trained_between_evaluations_is_asked_again(
    zoo: Zoo, tmp_path: Path
) -> None:
    """Neither cache nor store has the answers of the weights of before, `.data` included."""
    lm = load(zoo.path("llama"))
    asked = [request("loglikelihood", "the cat", " sat")]
    with _behind(lm, tmp_path / "s.db") as cached:
        answers = [cached.loglikelihood(asked), cached.loglikelihood(asked)]
        weight = next(iter(lm.model.parameters()))
        before = weight.data.clone()
        weight.data.mul_(1.5)
        answers.append(cached.loglikelihood(asked))
        assert _computed(cached) == 2
        weight.data.copy_(before)
        assert cached.instrumentation.store is not None
        cached.instrumentation.store.flush(10.0)
        answers.append(cached.loglikelihood(asked))
        assert _computed(cached) == 2  # from the store
    assert answers[0] == answers[1] == answers[3] != answers[2]


def _hook(lm: HFLM) -> None:
    lm.model.model.layers[0].register_forward_hook(lambda *_: None)


def _train(lm: HFLM) -> None:
    lm.model.train()


def _replace_forward(lm: HFLM) -> None:
    lm.model.forward = lambda *_, **__: None


def _replace_method(lm: HFLM) -> None:
    lm._model_call = lambda *_, **__: None


@pytest.mark.parametrize("change", [_hook, _train, _replace_forward, _replace_method])
def test_a_model_whose_calls_were_changed_has_no_identity(
    zoo: Zoo, change: Callable[[HFLM], None]
) -> None:
    """Its content does not show a hook, dropout or a replaced method; so nothing is stored."""
    lm = load(zoo.path("llama"))
    change(lm)
    assert wrap(lm).identity.digest is None


def test_a_hook_on_all_modules_leaves_no_identity(zoo: Zoo) -> None:
    """It may change what each module returns."""
    lm = load(zoo.path("llama"))
    hook = torch.nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        assert wrap(lm).identity.digest is None
    finally:
        hook.remove()
    assert wrap(lm).identity.digest is not None


def test_weights_without_an_identity_are_asked_again(zoo: Zoo) -> None:
    """Nothing says whether a program has changed them between two calls."""

    class Mine(HFLM):
        """A model whose content is not known."""

    lm = Mine(pretrained=str(zoo.path("llama")), device="cpu", dtype="float32")
    cached = wrap(lm)
    asked = [request("loglikelihood", "the cat", " sat")] * 2
    before = cached.loglikelihood(asked)
    assert (_computed(cached), cached.identity.digest) == (1, None)
    with torch.no_grad():
        next(iter(lm.model.parameters())).mul_(1.5)
    assert cached.loglikelihood(asked) != before


def test_surrogates_are_not_the_character_that_they_stand_for() -> None:
    """JSON escapes a character and its two surrogates alike; an answer is for one alone."""
    cached = wrap(CountingLM())
    one, other = [request("loglikelihood", text, "x") for text in ("\U0001f600", "\ud83d\ude00")]
    cached.loglikelihood([one, other])
    assert _computed(cached) == 2


def test_two_models_do_not_share_an_instrumentation(zoo: Zoo) -> None:
    """Their answers would have equal keys in memory."""
    inst = BackendInstrumentation()
    lm = CountingLM()
    wrap(lm, instrumentation=inst)
    wrap(lm, instrumentation=inst)
    with pytest.raises(ValueError, match="another model"):
        wrap(CountingLM("b"), instrumentation=inst)


@pytest.mark.parametrize(
    "settings", [{"max_length": 32}, {"add_bos_token": True}, {"prefix_token_id": 3}], ids=str
)
def test_settings_that_change_answers_are_in_the_identity(
    zoo: Zoo, settings: dict[str, Any]
) -> None:
    """A model with another setting has another identity, one with another batch size the same."""
    plain = wrap(load(zoo.path("llama"))).identity
    assert plain.digest is not None
    assert wrap(load(zoo.path("llama"), **settings)).identity.digest != plain.digest
    larger = load(zoo.path("llama"))
    larger.batch_size_per_gpu = 64
    assert wrap(larger).identity.digest == plain.digest


def test_generation_arguments_are_in_the_key() -> None:
    """Requests that differ in one argument alone have answers of their own."""
    cached = wrap(CountingLM())
    one, other = [
        request("generate_until", "q", {"until": ["."], "max_gen_toks": n}) for n in (4, 5)
    ]
    first = cached.generate_until([one, other])
    assert first[0] != first[1]
    assert cached.generate_until([other, one]) == [first[1], first[0]]


@pytest.mark.parametrize(
    ("settings", "repeats"),
    [
        ({"do_sample": True}, 1),
        ({"temperature": 0.7}, 1),
        ({"do_sample": False, "temperature": 0.7}, 1),  # some servers drop do_sample
        ({"do_sample": False}, 2),
    ],
    ids=str,
)
def test_what_is_drawn_anew_is_never_answered_from_the_cache(
    settings: dict[str, Any], repeats: int
) -> None:
    """Each answer is computed, and counted as bypassed; equal greedy requests beside it are not."""
    cached = wrap(CountingLM())
    drawn = [request("generate_until", "q", settings, repeats=repeats)] * 2
    greedy = request("generate_until", "q", {"do_sample": False})
    answers = [*cached.generate_until([*drawn, greedy]), *cached.generate_until([*drawn, greedy])]
    assert len({*answers[:2], *answers[3:5]}) == 4
    assert answers[2] == answers[5]
    (counts,) = cached.instrumentation.ledger.snapshot().series.values()
    assert (counts.bypasses, counts.forward_passes, counts.hits) == (4, 5, 1)


def test_repeats_collapse_in_the_cache_of_the_harness(tmp_path: Path) -> None:
    """Why ours bypasses them: its cache answers all repeats of a request with one text."""
    drawn = [request("generate_until", "q", {"temperature": 0.7}, repeats=2)] * 2
    theirs = CachingLM(CountingLM(), str(tmp_path / "theirs.db"))
    assert len(set(theirs.generate_until(drawn))) == 2
    assert len(set(theirs.generate_until(drawn))) == 1


def test_all_misses_of_all_tasks_go_to_the_model_in_one_call() -> None:
    """So that the model's own batches are as without us."""
    lm = CountingLM()
    cached = wrap(lm)
    cached.loglikelihood([request("loglikelihood", "a", "b", task="one")])
    asked = [request("loglikelihood", "a", str(n), task=f"task {n % 3}") for n in range(9)]
    cached.loglikelihood([*asked, request("loglikelihood", "a", "b", task="two")])
    assert lm.calls == [1, 9]
    assert cached.loglikelihood([]) == []


def test_an_interrupted_evaluation_goes_on_where_it_stopped(tasks: Path, tmp_path: Path) -> None:
    """What was computed before the interrupt is not computed again."""
    expected = evaluate(CountingLM(), tasks, *GREEDY[:2])
    with (
        _behind(CountingLM(fail_at=7), tmp_path / "s.db", revision="1") as cached,
        pytest.raises(KeyboardInterrupt),
    ):
        evaluate(cached, tasks, *GREEDY[:2])
    assert _computed(cached) == 7
    with _behind(CountingLM(), tmp_path / "s.db", revision="1") as cached:
        assert evaluate(cached, tasks, *GREEDY[:2]) == expected
        assert _computed(cached) == 15 - 7


def test_a_model_whose_content_is_unknown_is_stored_under_its_revision(tmp_path: Path) -> None:
    """Without a revision nothing is stored, and the reason is known; another one misses."""
    asked = [request("loglikelihood", "a", "b")]
    paid = []
    for revision in (None, None, "1", "1", "2"):
        with _behind(CountingLM(), tmp_path / "s.db", revision=revision) as cached:
            cached.loglikelihood(asked)
            paid.append(_computed(cached))
            assert (cached.identity.reason is None) == (revision is not None)
    assert paid == [1, 1, 1, 0, 1]


def test_a_revision_does_not_stand_for_content_that_can_be_read(zoo: Zoo) -> None:
    """With one revision for all, a base and its adapter keep their own identities."""
    base, tuned = zoo.path("llama"), str(zoo.path("llama_lora"))
    plain = wrap(load(base)).identity
    assert wrap(load(base), revision="1").identity == plain
    assert wrap(load(base, peft=tuned), revision="1").identity.digest != plain.digest


def test_the_cache_of_the_harness_gets_the_answers_as_well(tmp_path: Path) -> None:
    """With `use_cache` beside ours, both have the answers, also those of an interrupted call."""
    theirs = CachingLM(wrap(CountingLM(fail_at=1)), str(tmp_path / "theirs.db"))
    with pytest.raises(KeyboardInterrupt):
        theirs.loglikelihood([request("loglikelihood", "a", text) for text in "bc"])
    assert len(theirs.dbdict) == 1


def test_a_wrapped_model_is_a_model_with_all_its_attributes(zoo: Zoo) -> None:
    """The harness takes it for an LM, and finds what its own has."""
    lm = load(zoo.path("llama"))
    cached = wrap(lm)
    assert isinstance(cached, LM)
    assert cached.tokenizer_name == lm.tokenizer_name
    assert (cached.rank, cached.world_size, cached.max_length) == (0, 1, lm.max_length)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = cached.nothing


def test_ranks_that_meet_in_each_call_make_equally_many(tmp_path: Path) -> None:
    """In a rolling evaluation the ranks wait for each other, so one that verifies makes one."""
    rolling = [request("loglikelihood_rolling", text) for text in "abc"]
    scored = [request("loglikelihood", text, "x") for text in "abc"]
    calls = []
    for texts in (2, 3):
        lm = CountingLM()
        lm._world_size = 2
        with _behind(lm, tmp_path / "s.db", revision="1") as cached:
            cached.loglikelihood_rolling(rolling[:texts])
            cached.loglikelihood(scored[:texts])
        calls.append(lm.calls)
    assert calls == [[2, 2], [3, 1, 1]]


@pytest.mark.parametrize(
    "parts",
    [
        {
            "_world_size": 2,
            "accelerator": SimpleNamespace(distributed_type=SimpleNamespace(value="FSDP")),
        },
        {"model": SimpleNamespace(tp_size=2)},  # tensor parallel: each process is rank 0 of 1
    ],
)
def test_ranks_that_share_one_model_bypass_the_cache(parts: dict[str, Any]) -> None:
    """Parts of one model need the same batches in each rank, which a cache would change."""
    lm = CountingLM()
    vars(lm).update(parts)
    cached = wrap(lm)
    for _ in range(2):
        cached.loglikelihood([request("loglikelihood", text, "x") for text in "aab"])
    assert lm.calls == [3, 3]


def test_a_wrapped_model_is_freed_with_its_last_reference() -> None:
    """Nothing of this package keeps the weights of a model that its user has dropped."""
    lm = CountingLM()
    cached = wrap(lm)
    cached.loglikelihood([request("loglikelihood", "a", "b")])
    cached.close()
    alive = weakref.ref(lm)
    del cached, lm
    gc.collect()
    assert alive() is None
