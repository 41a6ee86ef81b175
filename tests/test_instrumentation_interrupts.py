"""Ctrl-C at any moment of a lookup: no one is stuck, and the books balance."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable
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
        _single(backend, "one more")  # where bytes are bounded it is the next one who tidies up
        assert len(backend.cache) <= 4
        stats = backend.stats
        total = sum(backend.ledger.snapshot().values(), Counts())
        assert stats.cache_misses == total.forward_passes + total.forward_errors
        assert backend.ledger.books().durations[_OP].count == total.forward_passes
        backend.close()
        reader = TraceReader(path)
        assert abs(len(list(reader)) - stats.total_lookups) <= 3
        assert reader.skipped == 0
    assert moment > 10


@pytest.mark.parametrize("hits", [0, 255])
@pytest.mark.parametrize("passes", [5, 255])
def test_interrupt_at_any_moment_without_a_trace(hits: int, passes: int) -> None:
    """Where nothing is written and no lock is taken, a lookup is counted once or not at all.

    With 255 before it in a queue, it is also the one that adds them up.
    """
    asks: list[Callable[[BackendInstrumentation], Any]] = [
        lambda backend: _single(backend, "new"),
        lambda backend: _single(backend, "last"),
    ]
    for ask in asks:
        moment, came = 0, True
        while came:
            backend = BackendInstrumentation(cache_maxsize=4)
            backend.spans.next_look_ns = sys.maxsize
            for number in range(passes - 1):
                _single(backend, str(number))
            _single(backend, "last")
            for _ in range(hits):
                _single(backend, "last")
            with contextlib.suppress(KeyboardInterrupt), _InterruptAt(moment) as interrupt:
                ask(backend)
            came, moment = interrupt.came, moment + 1

            assert PASSES[threading.get_ident()] == []
            assert not backend.cache.shelf.under_way
            before = hits + passes
            assert before <= backend.stats.total_lookups <= before + 1
            assert _single(backend, "new") == "NEW"
            assert len(backend.cache) == 4
            assert _in_another_thread(lambda backend=backend: backend.stats.total_lookups)  # type: ignore[misc]
            stats, books = backend.stats, backend.ledger.books()
            assert books.durations[_OP].count == stats.forward_passes
        assert moment > 5


def _in_another_thread(function: Callable[[], Any]) -> Any:
    """Give what it gives there, and fail where it has to wait for what this thread holds."""
    given: list[Any] = []
    thread = threading.Thread(target=lambda: given.append(function()), daemon=True)
    thread.start()
    thread.join(30)
    assert given, "the other thread waits"
    return given[0]
