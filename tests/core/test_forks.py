"""Objects that are reset in a forked child; test_instrumentation_forks.py has the lookups."""

from __future__ import annotations

import gc
import os
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from forwardscope.core.forks import reset_in_children
from forwardscope.core.ledger import Ledger
from forwardscope.core.series import SeriesKey
from forwardscope.recorder import Outcome

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
    pytest.mark.timeout(900),
    pytest.mark.no_cover,  # a child hangs where another thread holds the lock of coverage's data
]


class _Counting:
    """Counts the calls of `after_fork`."""

    def __init__(self) -> None:
        self.calls = 0

    def after_fork(self) -> None:
        self.calls += 1


def test_object_is_reset_in_children(in_child: Any) -> None:
    """Each is reset once a fork, in the child, also where it was registered in a child."""
    one, other = _Counting(), _Counting()
    reset_in_children(one)
    reset_in_children(one)

    def grandchild() -> None:
        assert (one.calls, other.calls) == (2, 1)

    def child() -> None:
        assert (one.calls, other.calls) == (1, 0)
        reset_in_children(other)
        in_child(grandchild)

    in_child(child)
    assert (one.calls, other.calls) == (0, 0)


def test_registration_keeps_no_object_alive() -> None:
    """An object that is no longer used is released."""
    one = _Counting()
    reset_in_children(one)
    released = weakref.ref(one)
    del one
    gc.collect()
    assert released() is None


def test_child_reads_a_ledger_that_was_being_changed(in_thread: Any, in_child: Any) -> None:
    """It has what was counted until the fork, and counts on its own."""
    ledger, key = Ledger(), SeriesKey(None, "base", "op")
    hit = Outcome(("op", "base", "prompt", 1), None, "hit", 0, 1, 1)
    began, forked = threading.Event(), threading.Event()
    ledger.add(key, [hit], 1)

    def outcomes() -> Iterator[Outcome]:
        began.set()
        assert forked.wait(50)
        yield hit

    def child() -> None:
        assert ledger.totals().total_lookups == 1
        ledger.add(key, [hit], 1)
        assert ledger.totals().total_lookups == 2

    adding = in_thread(lambda: ledger.add(key, outcomes(), 1))
    assert began.wait(30)
    in_child(child)
    forked.set()
    adding.result(timeout=30)
    assert ledger.totals().total_lookups == 2
