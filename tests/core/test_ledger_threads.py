"""The ledger under threads, signal handlers and interrupts."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import astuple
from typing import Any

import pytest

from forwardscope.core.ledger import Ledger, LedgerSnapshot
from forwardscope.core.series import Counts, SeriesKey
from forwardscope.recorder import Outcome

pytestmark = pytest.mark.timeout(900)
_KEY = SeriesKey(None, "base", "op")


def _outcome(result: str, **more: Any) -> Outcome:
    return Outcome(("op", "base", "prompt", 1), None, result, 0, 1, 1, **more)  # type: ignore[arg-type]


#: One lookup of each result. Each adds 1 to its counts, so an incomplete copy is recognised.
_EACH = [
    _outcome("hit"),
    _outcome("coalesced"),
    _outcome("miss", tokens=2, reused=1),
    _outcome("miss", error="ValueError"),
]


class _Ns(int):
    """Nanoseconds with an addition in Python, in which threads can switch."""

    def __radd__(self, other: int) -> int:
        return int(other) + int(self)


def _add_each(ledger: Ledger, key: SeriesKey = _KEY) -> None:
    ledger.add(key, _EACH, _Ns(1), [1])


def _is_complete(snapshot: LedgerSnapshot, n: int | None = None) -> bool:
    """Return whether a snapshot has all of n calls of `_add_each`; by default any number."""
    total = sum(snapshot.series.values(), Counts())
    n = total.hits if n is None else n
    errors = Counter(ValueError=n) if n else Counter()
    totals = snapshot.totals()
    return (
        total == Counts(n, n, n, errors, scoring_ns=n, forward_ns=2 * n)
        and sum(seen.count for seen in snapshot.durations.values()) == n
        and (snapshot.tokens_computed, snapshot.tokens_reused) == (n, n)
        and astuple(totals) == (2 * n, 2 * n, n, n / 1e9, n, n, min(n, 1))
        and totals.total_lookups == total.lookups == 4 * n
    )


@pytest.mark.usefixtures("fast_switching")
def test_counts_are_exact_and_snapshots_complete_under_threads(together: Any) -> None:
    """No count is lost, and a snapshot has each concurrent call completely or not at all."""
    ledger, threads, each = Ledger(), 32, 10
    shared = [SeriesKey(None, "base", f"op_{number}") for number in range(3)]

    def work(me: int) -> list[int]:
        passes = []
        for step in range(each):
            ledger.expect([SeriesKey(None, f"scaled_{me}_{step}", "op")])
            _add_each(ledger, shared[step % 3] if step % 2 else SeriesKey("p", f"ft_{me}", "op"))
            if step % 8 == 0:
                assert _is_complete(ledger.snapshot())
            passes.append(ledger.totals().forward_passes)
        return passes

    assert all(passes == sorted(passes) for passes in together(threads, work))
    snapshot = ledger.snapshot()
    assert _is_complete(snapshot, threads * each)
    assert len(snapshot.series) == threads * each + threads + len(shared)


def test_snapshot_waits_for_a_change_in_another_thread(in_thread: Any) -> None:
    """A call that is being counted is in no snapshot until all of it is counted."""
    ledger, began, go_on = Ledger(), threading.Event(), threading.Event()

    def outcomes() -> Iterator[Outcome]:
        yield _EACH[0]
        began.set()
        assert go_on.wait(30)
        yield from _EACH[1:]

    adding = in_thread(lambda: ledger.add(_KEY, outcomes(), 1, [1]))
    assert began.wait(30)
    reading = in_thread(ledger.snapshot)
    with pytest.raises(TimeoutError):
        reading.result(timeout=0.05)
    go_on.set()
    adding.result(timeout=30)
    assert _is_complete(reading.result(timeout=30), 1)


def test_signal_handler_reads_at_any_moment(at_moment: Any) -> None:
    """A handler that reads while its own thread counts or reads leaves each lookup counted once."""
    moment, came = 0, True
    while came:
        ledger = Ledger()
        _add_each(ledger)

        def read(ledger: Ledger = ledger) -> None:
            totals, snapshot = ledger.totals(), ledger.snapshot()
            failed = snapshot.series[_KEY].forward_errors
            assert 4 <= totals.total_lookups <= 8
            assert totals.cache_misses == totals.forward_passes + failed

        came = at_moment(moment, read, lambda ledger=ledger: (_add_each(ledger), ledger.totals()))
        assert _is_complete(ledger.snapshot(), 2)
        moment += 1
    assert moment > 20


def test_interrupt_at_any_moment(at_moment: Any, in_thread: Any) -> None:
    """A lookup is counted once or not at all, and no lock stays held."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    moment, came = 0, True
    while came:
        ledger = Ledger()
        came = at_moment(
            moment, interrupt, lambda ledger=ledger: (_add_each(ledger), ledger.totals())
        )
        totals = in_thread(ledger.totals).result(timeout=30)
        assert totals.total_lookups <= 4
        assert totals.total_lookups == 4 or came
        in_thread(lambda ledger=ledger: _add_each(ledger)).result(timeout=30)
        assert ledger.totals().total_lookups == totals.total_lookups + 4
        moment += 1
    assert moment > 20
