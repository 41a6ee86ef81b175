"""Ctrl-C at any moment of a lookup: no one is stuck, and the books balance."""

from __future__ import annotations

import contextlib
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from forwardscope import MISS, BackendInstrumentation, TraceReader
from forwardscope.core.flight import PASSES
from forwardscope.core.series import Counts

_OP, _VIEW, _TOP_K = "next_token_dist", "base", 8


class _InterruptAt:
    """Raises KeyboardInterrupt at one of the moments when Python may look for one.

    These are, in what runs inside the block: when a function begins, and when one of Python's own
    has returned. (At a loop's end as well, which comes down to the last call in it.)
    """

    def __init__(self, moment: int) -> None:
        self._left = moment
        self.came = False

    def __enter__(self) -> _InterruptAt:
        sys.setprofile(self._look)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _look(self, frame: FrameType, event: str, _: Any) -> None:
        ours = "forwardscope" in frame.f_code.co_filename
        if event not in ("call", "c_return") or not ours or self.came:
            return
        self._left -= 1
        if self._left < 0:
            self.came = True
            raise KeyboardInterrupt


def _single(backend: BackendInstrumentation, prompt: str) -> Any:
    return backend.cached(_OP, _VIEW, prompt, _TOP_K, lambda: prompt.upper())


def _batch(backend: BackendInstrumentation, prompt: str) -> Any:
    asked = [prompt, prompt + "2"]
    values = backend.cached_batch(
        _OP, _VIEW, asked, _TOP_K, lambda indices: [asked[index].upper() for index in indices]
    )
    return values[0]


def _nested(backend: BackendInstrumentation, prompt: str) -> Any:
    return backend.cached(_OP, _VIEW, prompt, _TOP_K, lambda: _single(backend, prompt))


def _failing(backend: BackendInstrumentation, prompt: str) -> Any:
    with contextlib.suppress(ZeroDivisionError):
        backend.cached(_OP, _VIEW, prompt, _TOP_K, lambda: 1 // 0)
    return _single(backend, prompt)


def _failing_batch(backend: BackendInstrumentation, prompt: str) -> Any:
    with contextlib.suppress(ZeroDivisionError):
        backend.cached_batch(_OP, _VIEW, [prompt, "x"], _TOP_K, lambda _: [1 // 0])
    return _single(backend, prompt)


@pytest.mark.parametrize("max_bytes", [None, 1 << 20])
@pytest.mark.parametrize("ask", [_single, _batch, _nested, _failing, _failing_batch])
@pytest.mark.parametrize("stored", [True, False])
def test_interrupt_at_any_moment(
    tmp_path: Path, ask: Any, stored: bool, max_bytes: int | None
) -> None:
    """What is counted adds up, nothing stays under way, and the next lookup is answered."""
    moment, came = 0, True
    while came:
        path = tmp_path / f"{moment}.jsonl"
        backend = BackendInstrumentation(
            cache_maxsize=4, cache_max_bytes=max_bytes, trace_path=path
        )
        for prompt in "abcd":
            _single(backend, prompt)
        if stored:
            ask(backend, "p")
        before = backend.stats.total_lookups
        with contextlib.suppress(KeyboardInterrupt), _InterruptAt(moment) as interrupt:
            ask(backend, "p")
        came = interrupt.came
        moment += 1

        assert PASSES[threading.get_ident()] == []
        assert not backend.cache.shelf.under_way
        assert before <= backend.stats.total_lookups <= before + 3
        assert ask(backend, "p") == "P"
        assert backend.cache.get((_OP, _VIEW, "p", _TOP_K)) == "P"
        assert backend.cache.get((_OP, _VIEW, "unknown", _TOP_K)) is MISS
        # an entry that was just stored and not yet counted keeps its place beside the others
        assert len(backend.cache) <= 5
        stats = backend.stats
        total = sum(backend.ledger.snapshot().values(), Counts())
        assert stats.cache_misses == total.forward_passes + total.forward_errors
        assert backend.ledger.books().durations[_OP].count == total.forward_passes
        backend.close()
        reader = TraceReader(path)
        assert abs(len(list(reader)) - stats.total_lookups) <= 3
        assert reader.skipped == 0
    assert moment > 10
