"""The cache changes no value, whoever asks and in whatever company; the trace says what ran."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forwardscope import BackendInstrumentation, TraceReader
from forwardscope.backends import ScoringView
from forwardscope.backends.hf import HFBackend, load_backend

Open = Callable[..., HFBackend]
InThread = Callable[[Callable[[], Any]], "Future[Any]"]

PROMPTS = [
    "the cat sat on the mat",
    "<pad><pad><pad>the cat",
    "x",
    "hello there world, the weather is together",
    "the",
    "<pad>" * 20 + "\n\nthe mat",
]
PAIRS = [("the c", "at sat"), ("hello", " there"), ("<pad>the cat", " sat on the mat")]


def _numbers(value: Any) -> np.ndarray:
    """A value as one array; a distribution by token id, so that ties cannot matter."""
    if isinstance(value, float):
        return np.array([value])
    if hasattr(value, "vocab_size"):
        order = np.argsort(value.token_ids)
        tail = -1.0 if value.tail_logprob is None else value.tail_logprob
        return np.array([*value.logprobs[order], tail])
    return np.array([*value.logprobs, value.total_logprob])


def _answers(backend: HFBackend, seed: int) -> Iterator[np.ndarray]:
    """Ask a random sequence of questions, single and batched, of several views."""
    rng = random.Random(seed)  # noqa: S311 - a reproducible sequence of questions
    opened = [
        backend.as_base,
        backend.as_finetuned,
        lambda: backend.as_scaled_adapter(rng.choice([0.0, 0.5, 1.0])),
        lambda: backend.as_null_adapter(rng.choice([1, 2]), init_scale=0.3),
    ]
    for _ in range(12):
        with rng.choice(opened)() as view:
            for _ in range(4):
                yield from map(_numbers, _ask(view, rng))


def _ask(view: ScoringView, rng: random.Random) -> Sequence[Any]:
    prompts = rng.choices(PROMPTS, k=rng.randint(1, 5))
    pairs = rng.choices(PAIRS, k=rng.randint(1, 3))
    questions: list[Callable[[], Sequence[Any]]] = [
        lambda: [view.next_token_dist(prompts[0], top_k=10_000)],
        lambda: view.next_token_dist_batch(prompts, top_k=10_000),
        lambda: [view.rolling_logprob(prompts[0])],
        lambda: view.rolling_logprob_batch(prompts),
        lambda: [view.logprob_of(*pairs[0])],
        lambda: view.logprob_of_batch(pairs),
    ]
    return rng.choice(questions)()


@pytest.mark.parametrize("adapter", ["llama_lora", "llama_dora", "llama_head", "gpt2_lora"])
@pytest.mark.parametrize("exactness", ["fast", "strict"])
@pytest.mark.parametrize("seed", [1, 2])
def test_cache_changes_no_value(
    open_backend: Open, adapter: str, exactness: str, seed: int
) -> None:
    """With the cache on and off a run's values are equal: bit for bit in `strict`."""
    on = open_backend(adapter, exactness=exactness)
    off = open_backend(adapter, exactness=exactness, cache_enabled=False)
    cached, paid = list(_answers(on, seed)), list(_answers(off, seed))
    assert len(cached) == len(paid) == on.instrumentation.stats.total_lookups
    for one, other in zip(cached, paid, strict=True):
        if exactness == "strict":
            assert np.array_equal(one, other)
        else:
            assert np.abs(one - other).max() < 1e-4
    saved, spent = on.instrumentation.stats, off.instrumentation.stats
    assert saved.forward_passes < spent.forward_passes
    assert saved.total_lookups == spent.total_lookups


@pytest.mark.parametrize("exactness", ["fast", "strict"])
def test_threads_of_one_view(open_backend: Open, in_thread: InThread, exactness: str) -> None:
    """Threads that ask inside one view all get its values, and pay for each question once."""
    with open_backend(exactness=exactness).as_scaled_adapter(0.5) as view:
        expected = [view.rolling_logprob(prompt).logprobs for prompt in PROMPTS]
    backend = open_backend(exactness=exactness)
    start = threading.Barrier(6)

    def ask(number: int) -> list[np.ndarray]:
        start.wait(timeout=60)
        if number % 2:
            return [roll.logprobs for roll in view.rolling_logprob_batch(PROMPTS)]
        return [view.rolling_logprob(prompt).logprobs for prompt in PROMPTS]

    with backend.as_scaled_adapter(0.5) as view:
        threads = [in_thread(lambda number=number: ask(number)) for number in range(6)]
        answers = [thread.result(timeout=60) for thread in threads]
    for answer in answers:
        for one, other in zip(answer, expected, strict=True):
            if exactness == "strict":
                assert np.array_equal(one, other)
            else:
                assert np.abs(one - other).max(initial=0.0) < 1e-4
    stats = backend.instrumentation.stats
    assert (stats.forward_passes, stats.cache_misses) == (len(PROMPTS), len(PROMPTS))
    assert stats.total_lookups == 6 * len(PROMPTS)


def test_thread_that_outlives_its_view(zoo: Any, open_backend: Open, in_thread: InThread) -> None:
    """A pass under way when its view closes is ended first, on the view's own weights."""
    with open_backend().as_null_adapter(1, init_scale=0.3) as view:
        expected = view.rolling_logprob("the cat sat").logprobs
    model = zoo.tuned("llama_lora")
    backend = HFBackend(model, zoo.tokenizer())
    running, closing = threading.Event(), threading.Event()

    def hold(*arguments: Any) -> None:
        running.set()
        assert closing.wait(timeout=60)

    hook = model.register_forward_pre_hook(hold)
    with backend.as_null_adapter(1, init_scale=0.3) as view:
        thread = in_thread(lambda: view.rolling_logprob("the cat sat"))
        assert running.wait(timeout=60)
        closing.set()
    hook.remove()
    assert np.array_equal(thread.result(timeout=60).logprobs, expected)


def test_records_have_tokens_and_batch(zoo: Any, open_backend: Open, tmp_path: Path) -> None:
    """A miss's record has its prompt's tokens and its batch's size; a hit's has neither."""
    path = tmp_path / "trace.jsonl"
    tokenizer = zoo.tokenizer()

    def tokens(text: str) -> int:
        return len(tokenizer(text)["input_ids"])

    with open_backend(trace_path=path).as_finetuned() as view:
        view.next_token_dist(PROMPTS[0])
        view.next_token_dist_batch([PROMPTS[1], PROMPTS[0], PROMPTS[3], PROMPTS[1]])
        view.rolling_logprob_batch(PROMPTS)
        view.logprob_of_batch(PAIRS)
    got = [(e.op, e.hit, e.result, e.tokens, e.batch) for e in TraceReader(path)]
    dist, roll, pair = "next_token_dist", "rolling_logprob", "logprob_of"
    assert got == [
        (dist, False, None, tokens(PROMPTS[0]), None),
        (dist, False, None, tokens(PROMPTS[1]), 2),
        (dist, True, None, None, None),
        (dist, False, None, tokens(PROMPTS[3]), 2),
        (dist, True, "coalesced", None, None),
        *((roll, False, None, tokens(prompt), len(PROMPTS)) for prompt in PROMPTS),
        *((pair, False, None, tokens(p + c), len(PAIRS)) for p, c in PAIRS),
    ]


def test_records_of_a_failed_batch_have_tokens(zoo: Any, tmp_path: Path) -> None:
    """A batch that fails in the model is traced with what it would have computed."""
    path = tmp_path / "trace.jsonl"
    model = zoo.tuned("llama_lora")
    instrumentation = BackendInstrumentation(trace_path=path)
    backend = HFBackend(model, zoo.tokenizer(), instrumentation=instrumentation)

    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    model.register_forward_pre_hook(fail)
    with backend.as_base() as view, pytest.raises(RuntimeError, match="out of memory"):
        view.next_token_dist_batch(["the", "the cat"])
    got = [(e.error, e.tokens, e.batch) for e in TraceReader(path)]
    assert got == [("RuntimeError", 1, 2), ("RuntimeError", 2, 2)]


class _Watched(BackendInstrumentation):
    """Records each number of computed prompts."""

    def __setattr__(self, name: str, value: object) -> None:
        if name == "computed_in_flight":
            self.seen: list[object] = [*getattr(self, "seen", ()), value]
        super().__setattr__(name, value)


def test_a_forward_call_tells_how_many_prompts_it_has_computed(zoo: Any) -> None:
    """The number grows with each batch of the model, and is 0 after the call."""
    watched = _Watched()
    backend = load_backend(zoo.source("llama_lora"), exactness="strict", instrumentation=watched)
    with backend.as_finetuned() as view:
        view.next_token_dist_batch(PROMPTS[:3], top_k=4)
    backend.close()
    assert watched.seen == [0, 1, 2, 3, 0]
