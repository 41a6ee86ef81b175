"""Cache, stats, ledger and trace agree after any sequence of lookups."""

from __future__ import annotations

import contextlib
import random
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from forwardscope import MISS, BackendInstrumentation, TraceReader
from forwardscope.core.cache import size_of, size_of_strings
from forwardscope.core.keys import prompt_hash
from forwardscope.core.series import Counts

pytestmark = pytest.mark.timeout(900)

_OP, _TOP_K = "logprob_of", 0


class _Call(NamedTuple):
    """What is looked up, and how the forward call ends where one is needed."""

    view_id: str
    prompts: Sequence[str]
    batched: bool
    outcome: str


class _Line(NamedTuple):
    """The expected record of one lookup."""

    view_id: str
    prompt_hash: str
    hit: bool
    result: str | None = None
    batch: int | None = None
    error: str | None = None


def _total(backend: BackendInstrumentation) -> Counts:
    return sum(backend.ledger.snapshot().series.values(), Counts())


class _Model:
    """A least-recently-used dict with a few counters, which the backend must agree with."""

    def __init__(self, maxsize: int) -> None:
        self.maxsize = maxsize
        self.entries: OrderedDict[tuple[str, str], int] = OrderedDict()
        self.lines: list[_Line] = []
        self.passes = 0
        self.batches: list[int] = []
        self.evictions = 0

    def look_up(self, call: _Call, new_values: Sequence[int]) -> list[int] | None:
        """Return the values that the call must return, or None where it must raise."""
        values: dict[str, int] = {}
        for prompt in call.prompts:
            if (call.view_id, prompt) in self.entries:
                self.entries.move_to_end((call.view_id, prompt))
                values[prompt] = self.entries[call.view_id, prompt]
        misses = [prompt for prompt in dict.fromkeys(call.prompts) if prompt not in values]
        failed = bool(misses) and call.outcome != "ok"
        if misses and call.batched:
            self.batches.append(len(misses))
        self._write(call, misses, failed)
        if failed:
            return None
        self.passes += len(misses)
        for prompt, value in zip(misses, new_values, strict=True):
            values[prompt] = value
            self.entries[call.view_id, prompt] = value
            if len(self.entries) > self.maxsize:
                self.entries.popitem(last=False)
                self.evictions += 1
        return [values[prompt] for prompt in call.prompts]

    def _write(self, call: _Call, misses: list[str], failed: bool) -> None:
        batch = len(misses) if call.batched else None
        error = {"raise": "KeyError", "short": "RuntimeError"}[call.outcome] if failed else None
        led = set(misses)
        for prompt in call.prompts:
            key = (call.view_id, prompt_hash(prompt))
            if prompt in led:
                self.lines.append(_Line(*key, hit=False, batch=batch, error=error))
                led.remove(prompt)
            elif prompt not in misses:
                self.lines.append(_Line(*key, hit=True))
            elif not failed:
                self.lines.append(_Line(*key, hit=True, result="coalesced"))


def _call(
    backend: BackendInstrumentation, call: _Call, fresh: Iterator[int]
) -> tuple[list[int] | None, list[int]]:
    """Make a call; return its values, or None where it raised, and what was computed."""
    made: list[int] = []

    def compute(indices: list[int]) -> list[int]:
        if call.outcome == "raise":
            raise KeyError
        made.extend(next(fresh) for _ in indices)
        return made[1:] if call.outcome == "short" else made

    try:
        if call.batched:
            return backend.cached_batch(_OP, call.view_id, call.prompts, _TOP_K, compute), made
        (prompt,) = call.prompts
        return [backend.cached(_OP, call.view_id, prompt, _TOP_K, lambda: compute([0])[0])], made
    except (KeyError, RuntimeError):
        return None, made


views = st.sampled_from(["base", "ft"])
prompts = st.sampled_from("abcde")
singles = st.builds(
    _Call,
    views,
    st.lists(prompts, min_size=1, max_size=1),
    st.just(False),
    st.sampled_from(["ok", "ok", "raise"]),
)
batches = st.builds(
    _Call,
    views,
    st.lists(prompts, max_size=7),
    st.just(True),
    st.sampled_from(["ok", "ok", "raise", "short"]),
)


@settings(max_examples=300)
@given(st.lists(singles | batches, max_size=25), st.integers(1, 6))
def test_backend_agrees_with_a_plain_model(
    tmp_path_factory: pytest.TempPathFactory, calls: list[_Call], maxsize: int
) -> None:
    """Values, hits, misses, passes, evictions and each record are those of a plain dict."""
    path = tmp_path_factory.getbasetemp() / "model.jsonl"
    path.unlink(missing_ok=True)
    backend, model = BackendInstrumentation(cache_maxsize=maxsize, trace_path=path), _Model(maxsize)
    fresh = count()
    for call in calls:
        values, made = _call(backend, call, fresh)
        assert values == model.look_up(call, made)
    backend.close()

    lines = [
        _Line(one.view_id, one.prompt_hash, one.hit, one.result, one.batch, one.error)
        for one in TraceReader(path)
    ]
    assert lines == model.lines
    stats, total = backend.stats, _total(backend)
    assert len(lines) == stats.total_lookups == backend.trace.records
    assert stats.cache_hits == sum(line.hit for line in lines)
    assert stats.cache_misses == sum(not line.hit for line in lines)
    assert stats.cache_misses == stats.forward_passes + total.forward_errors
    assert stats.forward_passes == model.passes
    assert total.errors == Counter(line.error for line in lines if line.error)
    assert total.coalesced == sum(line.result == "coalesced" for line in lines)
    assert stats.batches_sent == len(model.batches)
    assert stats.batched_prompts == sum(model.batches)
    assert stats.max_batch_size == max(model.batches, default=0)
    assert (len(backend.cache), backend.cache.evictions) == (len(model.entries), model.evictions)


@pytest.mark.usefixtures("fast_switching")
@pytest.mark.parametrize(("maxsize", "max_bytes"), [(1, None), (4, 1 << 20), (100, None)])
@pytest.mark.parametrize("threads", [8, 32])
def test_counts_agree_under_threads(
    tmp_path: Path, together: Any, threads: int, maxsize: int, max_bytes: int | None
) -> None:
    """Single lookups and batches in many threads, some of which fail: all counts add up."""
    path = tmp_path / "trace.jsonl"
    backend = BackendInstrumentation(
        cache_maxsize=maxsize, cache_max_bytes=max_bytes, trace_path=path
    )
    expected, lock = Counter[str](), threading.Lock()

    def forward(prompts: list[str], batched: bool, fails: bool) -> list[str]:
        with lock:
            expected["errors" if fails else "passes"] += len(prompts)
            if batched:
                expected["batches"] += 1
                expected["batched prompts"] += len(prompts)
        if fails:
            raise ValueError("no")
        return [prompt.upper() for prompt in prompts]

    def look_up(prompts: list[str], batched: bool, fails: bool) -> None:
        def compute_misses(indices: list[int]) -> list[str]:
            return forward([prompts[index] for index in indices], batched, fails)

        with contextlib.suppress(ValueError):
            if batched:
                values = backend.cached_batch(_OP, "base", prompts, _TOP_K, compute_misses)
                assert values == [prompt.upper() for prompt in prompts]
            else:
                value = backend.cached(
                    _OP, "base", prompts[0], _TOP_K, lambda: compute_misses([0])[0]
                )
                assert value == prompts[0].upper()

    def work(seed: int) -> None:
        rng = random.Random(seed)  # noqa: S311 - a schedule, no secret
        for _ in range(1200 // threads):
            prompts = rng.choices("abcdefgh", k=rng.randint(1, 5))
            look_up(prompts, batched=rng.random() < 0.5, fails=rng.random() < 0.2)

    together(threads, work)
    total, stats, events = _total(backend), backend.stats, list(TraceReader(path))
    assert (total.forward_passes, total.forward_errors) == (expected["passes"], expected["errors"])
    assert stats.cache_misses == stats.forward_passes + total.forward_errors
    assert (stats.batches_sent, stats.batched_prompts) == (
        expected["batches"],
        expected["batched prompts"],
    )
    assert len(events) == stats.total_lookups == backend.trace.records
    assert sum(not event.hit for event in events) == stats.cache_misses
    assert sum(event.error is not None for event in events) == total.forward_errors
    assert sum(event.result == "coalesced" for event in events) == total.coalesced
    assert stats.forward_passes == len(backend.cache) + backend.cache.evictions
    durations = backend.ledger.snapshot().durations
    assert sum(seen.count for seen in durations.values()) == expected["passes"]
    keys = [(_OP, "base", prompt, _TOP_K) for prompt in "abcdefgh"]
    stored = [key for key in keys if backend.cache.get(key) is not MISS]
    assert len(stored) == len(backend.cache) <= maxsize
    assert backend.cache.nbytes == sum(size_of("A") + size_of_strings(key) for key in stored)
    assert [backend.flights.waiters(key) for key in keys] == [0] * 8
