"""How one call with several questions is answered."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from threading import get_ident
from typing import Any, Literal

from forwardscope.core.cache import MISS, Entry, ForwardCache, Shelf, new_entry
from forwardscope.core.clock import Clock
from forwardscope.core.flight import PASSES, ForwardPass
from forwardscope.core.keys import LookupKey

__all__ = ["Answer", "BatchCall"]


@dataclass(frozen=True, slots=True)
class Answer:
    """How one lookup was answered.

    Attributes:
        result: `hit`, `miss` or `coalesced`.
        wall_ns: Compute time of a miss, an even share of its batch's; else the
            time that the lookup took, waiting included.
        start_ns: The clock when it began; hits of one call each get an even
            share of the time in which all were looked up.
        batch: Prompts in the forward batch of a miss; None for a single call.
        tokens: Tokens of the prompt, where the compute told them.
        reused: Of these, how many were taken over from an earlier pass, likewise.
        error: Class of the exception where the compute failed.
    """

    result: Literal["hit", "miss", "coalesced"]
    wall_ns: int
    start_ns: int = 0
    batch: int | None = None
    tokens: int | None = None
    reused: int | None = None
    error: str | None = None


class BatchCall:
    """One call of `cached_batch`: what it found, led, awaited and got.

    It works in rounds. Each round claims all that nobody computes in one step,
    computes it as one batch, wakes its waiters, and only then waits for what
    others compute; so two overlapping batches cannot wait for each other. What
    others failed to compute is the next round.

    Args:
        keys: What is asked, in order.
        cache: Where it may be, or be under way.
        clock: What times it.
        forward: Makes the forward pass of some indices of `keys`.
    """

    def __init__(
        self,
        keys: Sequence[LookupKey],
        cache: ForwardCache,
        clock: Clock,
        forward: Callable[[list[int]], ForwardPass],
    ) -> None:
        self._keys = keys
        self._cache = cache
        self._clock = clock
        self._forward = forward
        self._first: dict[LookupKey, int] = {}
        self._values: dict[LookupKey, Any] = {}
        self._led: list[tuple[ForwardPass, list[LookupKey]]] = []
        self._coalesced: dict[LookupKey, Answer] = {}
        self._start_ns = clock.perf_counter_ns()
        self._lookup_ns = 0

    @property
    def forwards(self) -> list[ForwardPass]:
        """Each call of `compute_misses` so far."""
        return [forward for forward, _ in self._led]

    @property
    def forward_ns(self) -> int:
        """Wall time spent in `compute_misses`, in nanoseconds."""
        return sum(forward.spent_ns for forward in self.forwards)

    def answer(self, compute_misses: Callable[[list[int]], Sequence[Any]]) -> list[Any]:
        """Return the values in the order of the keys; see `BackendInstrumentation.cached_batch`."""
        for index, key in enumerate(self._keys):
            self._first.setdefault(key, index)
            # a repeated prompt is a lookup as well, and refreshes its entry
            self._found(self._cache.shelf, key)
        unanswered = [key for key in self._first if key not in self._values]
        looked_up_ns = self._clock.perf_counter_ns() - self._start_ns
        self._lookup_ns = looked_up_ns // max(1, len(self._keys))
        while unanswered:
            unanswered = self._round(unanswered, compute_misses)
        return [self._values[key] for key in self._keys]

    def lookups(self) -> Iterator[tuple[LookupKey, Answer]]:
        """Yield each prompt that was answered, in order; also after a failure.

        A repeated prompt is a hit where the first was one, and else coalesced:
        the pass that answered it was paid by the first. One that was still
        waiting when the call failed is not counted.
        """
        answers = self._coalesced | dict(self._missed())
        for index, key in enumerate(self._keys):
            begin = self._start_ns + index * self._lookup_ns
            quick = Answer("hit", self._lookup_ns, begin)
            answer = answers.get(key, quick if key in self._values else None)
            if answer is None:
                continue
            if index == self._first[key] or answer.result == "hit":
                yield key, answer
            elif answer.error is None:
                yield key, replace(quick, result="coalesced")

    def _found(self, shelf: Shelf, key: LookupKey) -> bool:
        entry = shelf.find(key)
        if entry is None:
            return False
        self._values[key] = entry.value
        return True

    def _round(
        self, keys: list[LookupKey], compute_misses: Callable[[list[int]], Sequence[Any]]
    ) -> list[LookupKey]:
        """Answer what can be answered now; return what others failed to compute."""
        shelf, passes = self._cache.shelf, PASSES[get_ident()]
        depth = len(passes)
        claims = [(key, new_entry()) for key in keys]
        led: list[tuple[LookupKey, Entry]] = []
        awaited: list[tuple[LookupKey, Entry]] = []
        try:
            with self._cache.lock:  # so that of two batches one claims all that both ask
                for key, entry in claims:
                    other = shelf.under_way.setdefault(key, entry)
                    if self._found(shelf, key):  # stored between our look and our claim
                        shelf.release(key, entry)
                    elif other is entry or depth:
                        led.append((key, entry))
                    else:
                        awaited.append((key, other))
            if led:
                self._compute(shelf, led, compute_misses)
        finally:
            del passes[depth:]  # where an interrupt kept a pass from taking its mark away
            try:
                _release(shelf, claims)
            except KeyboardInterrupt:
                _release(shelf, claims)
                raise
        return [key for key, other in awaited if not self._joined(shelf, key, other)]

    def _compute(
        self,
        shelf: Shelf,
        led: list[tuple[LookupKey, Entry]],
        compute_misses: Callable[[list[int]], Sequence[Any]],
    ) -> None:
        indices = [self._first[key] for key, _ in led]
        forward = self._forward(indices)
        with forward:
            self._led.append((forward, [key for key, _ in led]))
            values = list(compute_misses(indices))
            if len(values) != forward.size:
                raise RuntimeError(
                    f"compute_misses returned {len(values)} values for {forward.size} prompts"
                )
        for (key, entry), value in zip(led, values, strict=True):
            self._values[key] = entry.value = value
            self._cache.store(shelf, key, entry)

    def _missed(self) -> Iterator[tuple[LookupKey, Answer]]:
        """Yield each prompt that was led, in the order of the passes."""
        for forward, keys in self._led:
            size, share = forward.size, forward.spent_ns // forward.size
            told = zip_longest(keys, forward.tokens[:size], forward.reused[:size])
            for key, tokens, reused in told:
                start, error = forward.start_ns, forward.error
                yield key, Answer("miss", share, start, size, tokens, reused, error)

    def _joined(self, shelf: Shelf, key: LookupKey, other: Entry) -> bool:
        start = self._clock.perf_counter_ns()
        value = self._cache.wait(shelf, key, other)
        if value is MISS:
            return False
        self._values[key] = value
        self._coalesced[key] = Answer("coalesced", self._clock.perf_counter_ns() - start, start)
        return True


def _release(shelf: Shelf, claims: list[tuple[LookupKey, Entry]]) -> None:
    for key, entry in claims:
        shelf.release(key, entry)
