"""A pass marks its thread, and keeps what came of it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from forwardscope.core.flight import (
    PASSES,
    ForwardPass,
    forget_threads_in_children,
)

InThread = Callable[[Callable[[], Any]], "Future[Any]"]


def _mine() -> list[Any]:
    return PASSES[threading.get_ident()]  # type: ignore[return-value]


def test_passes_nest() -> None:
    """The innermost is the last, and the marks are gone after the outermost, on errors too."""
    assert _mine() == []
    try:
        with ForwardPass() as outer:
            assert _mine() == [outer]
            with ForwardPass() as inner:
                assert _mine() == [outer, inner]
            assert _mine() == [outer]
            raise ValueError
    except ValueError:
        pass
    assert _mine() == []


def test_mark_of_a_pass_is_its_threads_own(in_thread: InThread) -> None:
    """Another thread is not computing because this one is."""
    with ForwardPass():
        assert in_thread(_mine).result(timeout=60) == []


def test_what_is_told_goes_to_the_innermost_pass() -> None:
    """Its tokens are the pass's; outside any pass nothing happens."""
    ForwardPass.tell([1], [])
    with ForwardPass() as outer, ForwardPass() as inner:
        ForwardPass.tell([3, 4], [0, 2])
    assert (inner.tokens, inner.reused, inner.token_sums()) == ([3, 4], [0, 2], (3, 0))
    assert (outer.tokens, outer.reused, outer.token_sums()) == ((), (), (0, 0))


def test_child_knows_no_thread_but_its_own() -> None:
    """A new thread of it that gets the id of one of the parent's is not computing."""
    forget_threads_in_children()
    PASSES[1] = [ForwardPass()]
    try:
        with ForwardPass():
            child = os.fork()
            if not child:
                os._exit(0 if 1 not in PASSES and len(_mine()) == 1 else 1)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        del PASSES[1]


def test_pass_that_is_over() -> None:
    """It is made from what was seen of it."""
    forward = ForwardPass.over(3, 8, ([5], [2]), "ValueError")
    assert (forward.size, forward.spent_ns, forward.error) == (1, 5, "ValueError")
    assert forward.token_sums() == (3, 2)
