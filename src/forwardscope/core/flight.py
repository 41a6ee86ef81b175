"""A forward pass, and the mark on the thread that computes it."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from threading import get_ident
from types import TracebackType
from typing import Final, Protocol

from forwardscope.core.clock import Clock
from forwardscope.core.forks import reset_in_children

__all__ = [
    "PASSES",
    "Computing",
    "ForwardPass",
    "Told",
    "forget_threads_in_children",
]

#: Tokens of each prompt of a pass, and of these how many were taken over from an earlier one.
Told = tuple[Sequence[int], Sequence[int]]


class Computing(Protocol):
    """What marks a thread as inside: a `ForwardPass`, or a single miss's entry."""

    told: Told | None


class ForwardPass:
    """One call of a compute: marks its thread as inside, and keeps what came of it.

    A thread that computes never waits for another's pass. The mark is one per
    thread, over all backends, since a wait on any of them could close a circle.

    Args:
        clock: What times it.
        size: Prompts that are computed.

    Attributes:
        size: Prompts that are computed.
        told: What the compute told of their tokens.
        start_ns: The clock when it began.
        end_ns: The clock when it ended.
        error: Class of the exception where it failed.
        trace_id: The trace that has its span, 32 hex digits; None without one.
    """

    told: Told | None = None
    start_ns = 0
    end_ns = 0
    error: str | None
    trace_id: str | None = None

    def __init__(self, clock: Clock = time, size: int = 1) -> None:
        self.size = size
        self.error = KeyboardInterrupt.__name__  # nothing else can keep its end from being reached
        self._now = clock.perf_counter_ns

    @classmethod
    def over(
        cls, start_ns: int, end_ns: int, told: Told | None, error: str | None = None
    ) -> ForwardPass:
        """Return one of a single prompt that has ended."""
        self = cls()
        self.start_ns, self.end_ns, self.told, self.error = start_ns, end_ns, told, error
        return self

    @property
    def tokens(self) -> Sequence[int]:
        """Tokens of each prompt, where the compute told them."""
        return self.told[0] if self.told else ()

    @property
    def reused(self) -> Sequence[int]:
        """Of these, how many were taken over from an earlier pass, likewise."""
        return self.told[1] if self.told else ()

    @property
    def spent_ns(self) -> int:
        """Wall time of the call in nanoseconds."""
        return max(0, self.end_ns - self.start_ns)

    def token_sums(self) -> tuple[int, int]:
        """Return how many tokens of its prompts were computed, and how many taken over.

        Both are 0 where nothing was told, or no count: it costs no lookup.
        """
        if not self.tokens:
            return 0, 0
        try:
            reused = sum(map(int, self.reused[: self.size]))
            tokens = sum(map(int, self.tokens[: self.size]))
        except (TypeError, ValueError):
            return 0, 0
        return max(0, tokens - reused), max(0, reused)

    @staticmethod
    def tell(tokens: Sequence[int], reused: Sequence[int]) -> None:
        """Tell this thread's innermost pass of its tokens; outside any, nothing happens."""
        passes = PASSES[get_ident()]
        if passes:
            passes[-1].told = tokens, reused

    def __enter__(self) -> ForwardPass:
        self._passes = PASSES[get_ident()]
        self.start_ns = self._now()
        self._passes += (self,)  # last, and no call: an interrupt leaves no mark
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        del self._passes[-1]
        self.end_ns = self._now()
        self.error = None if exc_type is None else exc_type.__name__


#: What each thread computes, the innermost last, by the thread's id. Each reads and changes its
#: own alone, which takes half the time of a `threading.local`.
PASSES: Final[defaultdict[int, list[Computing]]] = defaultdict(list)


class _OtherThreads:
    """Those that a forked child does not have."""

    def after_fork(self) -> None:
        """Forget what they computed: a new thread may get the id of one of them."""
        mine = PASSES[get_ident()]
        PASSES.clear()
        PASSES[get_ident()] = mine


_others = _OtherThreads()


def forget_threads_in_children() -> None:
    """See to it that a forked child knows of no thread but its own; may be called again."""
    reset_in_children(_others)
