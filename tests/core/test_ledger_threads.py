"""The ledger loses no count, and a snapshot is of one moment: threads, signals, interrupts."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import astuple
from typing import Any

import pytest

from forwardscope.core.ledger import Ledger, LedgerSnapshot
from forwardscope.core.series import Counts, SeriesKey
from forwardscope.core.stats import BackendStats
from forwardscope.recorder import Outcome

Together = Callable[[int, Callable[[int], Any]], list[Any]]
AtMoment = Callable[[int, Callable[[], None], Callable[[], Any]], bool]
InThread = Callable[[Callable[[], Any]], "Future[Any]"]
OnTimer = Callable[[Callable[[], None]], None]

pytestmark = pytest.mark.timeout(120)
_KEY = SeriesKey(None, "base", "op")


def _outcome(result: str, **more: Any) -> Outcome:
    return Outcome(("op", "base", "prompt", 1), None, result, 0, 1, **more)  # type: ignore[arg-type]


#: One lookup of each way to end; its counts are all 1, so a snapshot of a part of it shows.
_EACH = [
    _outcome("hit"),
    _outcome("coalesced"),
    _outcome("miss", tokens=2, reused=1),
    _outcome("miss", error="ValueError"),
]
_HIT = [_outcome("hit")]


class _Ns(int):
    """Nanoseconds whose addition is a function of Python, in which threads can switch."""

    def __radd__(self, other: int) -> int:
        return int(other) + int(self)


def _add_each(ledger: Ledger, key: SeriesKey = _KEY) -> None:
    ledger.add(key, _EACH, _Ns(1), [1])


def _is_whole(snapshot: LedgerSnapshot, n: int | None = None) -> bool:
    """Return whether a snapshot has each call of `_add_each` as a whole, n in all."""
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
def test_threads_lose_no_count(together: Together) -> None:
    """32 threads that count the same few series at once are all counted."""
    ledger, threads, each = Ledger(), 32, 60
    keys = [SeriesKey(probe, "base", f"op_{n}") for probe in (None, "probe") for n in range(3)]

    def work(me: int) -> None:
        for step in range(each):
            _add_each(ledger, keys[(me + step) % 6])
            ledger.expect(keys)

    together(threads, work)
    snapshot = ledger.snapshot()
    assert _is_whole(snapshot, threads * each)
    assert snapshot.series.keys() == set(keys)
    assert {counts.hits for counts in snapshot.series.values()} == {threads * each // 6}


@pytest.mark.usefixtures("fast_switching")
def test_snapshots_are_of_one_moment(together: Together) -> None:
    """Every snapshot that is taken while others count has each call as a whole, and none twice."""
    ledger, threads, each = Ledger(), 16, 40

    def work(me: int) -> tuple[bool, list[BackendStats]]:
        whole, totals = True, []
        for step in range(each):
            _add_each(ledger, SeriesKey(None, f"scaled_{me}", f"op_{step % 7}"))
            whole = whole and _is_whole(ledger.snapshot())
            totals.append(ledger.totals())
        return whole, totals

    for whole, totals in together(threads, work):
        assert whole
        assert all(one.cache_hits == one.cache_misses == 2 * one.forward_passes for one in totals)
        passes = [one.forward_passes for one in totals]
        assert passes == sorted(passes)
    assert _is_whole(ledger.snapshot(), threads * each)


@pytest.mark.usefixtures("fast_switching")
def test_new_series_while_others_read(together: Together) -> None:
    """A snapshot is taken while series begin in other threads."""
    ledger, each = Ledger(), 150

    def work(me: int) -> int:
        for step in range(each):
            ledger.expect([SeriesKey(None, f"scaled_{me}_{step}", f"op_{step}")])
        return len(ledger.snapshot().series)

    assert max(together(8, work)) == 8 * each


def test_other_threads_wait_for_a_change(in_thread: InThread) -> None:
    """A call that is being counted is in no snapshot of another thread until it is whole."""
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
    assert _is_whole(reading.result(timeout=30), 1)


def test_signal_handler_reads_within_a_change() -> None:
    """A handler that runs while its own thread counts reads what is counted so far."""
    ledger, seen = Ledger(), []

    def outcomes() -> Iterator[Outcome]:
        for outcome in _EACH:
            signal.raise_signal(signal.SIGUSR1)
            yield outcome

    before = signal.signal(signal.SIGUSR1, lambda *_: seen.append(ledger.totals()))
    try:
        ledger.add(_KEY, outcomes(), 1, [1])
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert [one.total_lookups for one in seen] == [0, 1, 2, 3]
    assert [one.cache_hits for one in seen] == [0, 1, 2, 2]
    assert _is_whole(ledger.snapshot(), 1)


def test_signal_handler_reads_at_any_moment(at_moment: AtMoment) -> None:
    """Reading at each moment of a change leaves each lookup counted once."""
    moment, came = 0, True
    while came:
        ledger = Ledger()
        _add_each(ledger)

        def read(ledger: Ledger = ledger) -> None:
            totals, snapshot = ledger.totals(), ledger.snapshot()
            assert 4 <= totals.total_lookups <= 8
            assert (
                totals.cache_misses == totals.forward_passes + snapshot.series[_KEY].forward_errors
            )

        came = at_moment(moment, read, lambda ledger=ledger: _add_each(ledger))  # type: ignore[misc]
        assert _is_whole(ledger.snapshot(), 2)
        moment += 1
    assert moment > 10


def test_signal_handler_reads_on_a_timer(on_timer: OnTimer) -> None:
    """While the main thread counts hits, totals never go back, and are exact at the end."""
    ledger, seen, added = Ledger(), [], 0

    def read() -> None:
        seen.append((added, ledger.totals().cache_hits, ledger.snapshot().totals().cache_hits))

    on_timer(read)
    while len(seen) < 50:
        ledger.add(_KEY, _HIT, 1)
        added += 1
    assert all(before <= hits == again <= before + 1 for before, hits, again in seen)
    assert ledger.totals().cache_hits == added
    assert ledger.snapshot().series[_KEY] == Counts(hits=added, scoring_ns=added)


def _interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("expected", [False, True])
def test_interrupt_at_any_moment(at_moment: AtMoment, in_thread: InThread, expected: bool) -> None:
    """A lookup is counted once or not at all, and no lock stays held."""
    moment, came = 0, True
    while came:
        ledger = Ledger()
        if expected:
            ledger.expect([_KEY])
        came = at_moment(moment, _interrupt, lambda ledger=ledger: _add_each(ledger))  # type: ignore[misc]
        totals = in_thread(ledger.totals).result(timeout=30)
        assert totals.total_lookups <= 4
        assert totals.total_lookups == 4 or came
        assert totals.forward_passes <= 1
        in_thread(lambda ledger=ledger: _add_each(ledger)).result(timeout=30)  # type: ignore[misc]
        assert ledger.totals().total_lookups == totals.total_lookups + 4
        moment += 1
    assert moment > 10


def test_interrupt_of_a_snapshot_at_any_moment(at_moment: AtMoment, in_thread: InThread) -> None:
    """It changes nothing, and no lock stays held."""
    ledger, moment = Ledger(), 0
    _add_each(ledger)
    while at_moment(moment, _interrupt, ledger.totals):
        assert _is_whole(in_thread(ledger.snapshot).result(timeout=30), 1)
        moment += 1
    assert moment > 10
