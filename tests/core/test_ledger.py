"""The ledger counts as a plain dict of numbers would."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from dataclasses import astuple
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from forwardscope.core.histogram import Histogram
from forwardscope.core.ledger import MAX_SERIES, OTHER, Batch, Ledger
from forwardscope.core.series import Counts, SeriesKey

series = st.builds(
    SeriesKey,
    st.sampled_from([None, "delta_kl", "ablation"]),
    st.sampled_from(["base", "ft"]),
    st.sampled_from(["next_token_dist", "logprob_of"]),
)
durations = st.integers(0, 10**9)
errors = st.sampled_from(["ValueError", "KeyboardInterrupt"])
few = st.integers(0, 5)


def _miss(
    ledger: Ledger, probe: str | None, view_id: str, op: str, *outcome: Any, **more: Any
) -> None:
    with ledger.lock:
        ledger.miss(ledger.series(probe, view_id, op), *outcome, **more)


class LedgerModel(RuleBasedStateMachine):
    """The model is one dict of numbers a series, and a list of batch sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.live = self.ledger.live_stats()
        self.model: dict[SeriesKey, Counter[str]] = {}
        self.batches: list[int] = []
        self.durations: defaultdict[str, list[float]] = defaultdict(list)

    @rule(key=series, ns=durations)
    def hit(self, key: SeriesKey, ns: int) -> None:
        self.ledger.hit(*key, ns)
        self._count(key, hits=1, scoring_ns=ns)

    @rule(key=series, spent=st.lists(durations, max_size=5), relieved=st.booleans())
    def queued_hits(self, key: SeriesKey, spent: list[int], relieved: bool) -> None:
        one = self.ledger.series(*key)
        one.hits += spent
        if relieved:
            self.ledger.relieve(one)
            assert not one.hits
        self._count(key, hits=len(spent), scoring_ns=sum(spent))

    @rule(
        key=series,
        spent=st.lists(st.tuples(durations, durations), max_size=5),
        relieved=st.booleans(),
    )
    def queued_passes(self, key: SeriesKey, spent: list[tuple[int, int]], relieved: bool) -> None:
        one = self.ledger.series(*key)
        one.passes += [ns for both in spent for ns in both]
        if relieved:
            self.ledger.relieve(one)
            assert not one.passes
        self._count(key, passes=len(spent), scoring_ns=sum(ns for ns, _ in spent))
        self._count(key, forward_ns=sum(ns for _, ns in spent))
        self.durations[key.op] += [ns / 1e9 for _, ns in spent]

    @rule(key=series, ns=durations)
    def coalesced(self, key: SeriesKey, ns: int) -> None:
        self.ledger.coalesced(*key, ns)
        self._count(key, coalesced=1, scoring_ns=ns)

    @rule(key=series, ns=durations, forward_ns=durations)
    def forward_pass(self, key: SeriesKey, ns: int, forward_ns: int) -> None:
        _miss(self.ledger, *key, ns, forward_ns)
        self.durations[key.op].append(forward_ns / 1e9)
        self._count(key, passes=1, scoring_ns=ns, forward_ns=forward_ns)

    @rule(key=series, ns=durations, forward_ns=durations, error=errors)
    def forward_error(self, key: SeriesKey, ns: int, forward_ns: int, error: str) -> None:
        _miss(self.ledger, *key, ns, forward_ns, error)
        self._count(key, **{error: 1}, scoring_ns=ns, forward_ns=forward_ns)

    @rule(
        key=series,
        numbers=st.tuples(few, few, few, durations, durations),
        failed=st.dictionaries(errors, st.integers(1, 5)),
        sizes=st.lists(st.integers(1, 9), max_size=3),
    )
    def batch_call(
        self,
        key: SeriesKey,
        numbers: tuple[int, int, int, int, int],
        failed: dict[str, int],
        sizes: list[int],
    ) -> None:
        hits, coalesced, passes, ns, forward_ns = numbers
        counts = Counts(hits, coalesced, passes, Counter(failed), ns, forward_ns)
        self.ledger.add(*key, counts, [Batch(size) for size in sizes])
        self._count(key, hits=hits, coalesced=coalesced, passes=passes, **failed)
        self._count(key, scoring_ns=ns, forward_ns=forward_ns)
        self.batches += sizes
        self.durations[key.op] += [0.0] * sum(sizes)

    @invariant()
    def series_agree(self) -> None:
        snapshot = self.ledger.snapshot()
        assert snapshot.keys() == self.model.keys()
        for key, counts in snapshot.items():
            expected = self.model[key]
            assert counts.hits == expected["hits"]
            assert counts.coalesced == expected["coalesced"]
            assert counts.forward_passes == expected["passes"]
            assert counts.errors == Counter(
                {name: expected[name] for name in ("ValueError", "KeyboardInterrupt")}
            )
            assert counts.scoring_ns == expected["scoring_ns"]
            assert counts.forward_ns == expected["forward_ns"]

    @invariant()
    def durations_agree(self) -> None:
        for op, seen in self.ledger.books().durations.items():
            one_by_one = Histogram(seen.bounds)
            for seconds in self.durations[op]:
                one_by_one.observe(seconds)
            assert seen.buckets == one_by_one.buckets
            assert seen.total == pytest.approx(one_by_one.total)

    @invariant()
    def totals_agree(self) -> None:
        total: Counter[str] = sum(self.model.values(), Counter())
        failed = total["ValueError"] + total["KeyboardInterrupt"]
        assert astuple(self.ledger.totals()) == (
            total["hits"] + total["coalesced"],
            total["passes"] + failed,
            total["passes"],
            total["scoring_ns"] / 1e9,
            len(self.batches),
            sum(self.batches),
            max(self.batches, default=0),
        )
        assert self.live == self.ledger.totals()

    @invariant()
    def lookups_and_misses_add_up(self) -> None:
        totals, snapshot = self.ledger.totals(), self.ledger.snapshot()
        assert totals.cache_hits + totals.cache_misses == totals.total_lookups
        assert totals.total_lookups == sum(counts.lookups for counts in snapshot.values())
        failed = sum(counts.forward_errors for counts in snapshot.values())
        assert totals.cache_misses == totals.forward_passes + failed

    def _count(self, key: SeriesKey, **numbers: int) -> None:
        self.model.setdefault(key, Counter()).update(numbers)


TestLedgerModel = LedgerModel.TestCase
TestLedgerModel.settings = settings(max_examples=100, stateful_step_count=30)


def test_series_past_the_limit_fold_into_other() -> None:
    """The first 4,096 series stay apart for good; all later ones are counted as one."""
    ledger = Ledger()
    for number in range(MAX_SERIES):
        ledger.hit(None, f"scaled_{number}", "op", 1)
    ledger.hit("probe", "late_1", "op", 1)
    _miss(ledger, "probe", "late_2", "other_op", 1, 1, "ValueError")
    ledger.add(None, "late_3", "op", Counts(coalesced=2), [Batch(3)])
    ledger.hit(None, "scaled_7", "op", 1)
    snapshot = ledger.snapshot()
    folded = snapshot.pop(SeriesKey(OTHER, OTHER, OTHER))
    assert (folded.hits, folded.coalesced, folded.forward_errors) == (1, 2, 1)
    assert len(snapshot) == MAX_SERIES == 4096
    assert snapshot[SeriesKey(None, "scaled_7", "op")].hits == 2
    assert ledger.totals().total_lookups == MAX_SERIES + 5


def test_snapshot_is_a_copy() -> None:
    """Neither a later count nor a change to the copy reaches the other."""
    ledger, key = Ledger(), SeriesKey("probe", "base", "op")
    _miss(ledger, *key, 5, 4, "ValueError")
    taken = ledger.snapshot()
    _miss(ledger, *key, 5, 4, "ValueError")
    ledger.hit(*key, 1)
    assert taken == {key: Counts(errors=Counter(ValueError=1), scoring_ns=5, forward_ns=4)}
    taken[key].hits = 99
    taken[key].errors["ValueError"] = 99
    taken.clear()
    assert ledger.snapshot()[key].errors == Counter(ValueError=2)
    assert ledger.totals().cache_hits == 1


def test_totals_are_of_their_moment() -> None:
    """A plain total does not move when more is counted."""
    ledger = Ledger()
    ledger.hit(None, "base", "op", 1)
    totals = ledger.totals()
    ledger.hit(None, "base", "op", 1)
    assert (totals.cache_hits, ledger.totals().cache_hits) == (1, 2)


def test_counts_add_and_subtract_by_field() -> None:
    """What lies between two snapshots is their difference; sums go the other way."""
    earlier = Counts(1, 2, 3, Counter(ValueError=1), 10, 5)
    later = Counts(2, 4, 6, Counter(ValueError=1, OSError=2), 30, 15)
    difference = Counts(1, 2, 3, Counter(OSError=2), 20, 10)
    assert later - earlier == difference
    assert earlier + difference == later


def test_counts_of_one_series() -> None:
    """A coalesced lookup paid no pass, and a failed pass is a miss."""
    counts = Counts(hits=3, coalesced=1, forward_passes=2, errors=Counter(a=1, b=1))
    assert (counts.forward_errors, counts.misses, counts.lookups) == (2, 4, 8)
    assert counts.hit_rate == 0.5
    assert Counts().hit_rate == 0.0


def test_threads_lose_no_count() -> None:
    """Eight threads that count the same series at once are all counted."""
    ledger, threads, each = Ledger(), 8, 1_000
    start = threading.Barrier(threads)

    def work() -> None:
        start.wait()
        for _ in range(each):
            ledger.hit(None, "base", "op", 1)
            ledger.coalesced(None, "base", "op", 1)
            _miss(ledger, None, "base", "op", 1, 1)
            ledger.add(None, "base", "op", Counts(hits=1, scoring_ns=1), [Batch(2)])

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    total = threads * each
    assert astuple(ledger.totals()) == (
        3 * total,
        total,
        total,
        4 * total / 1e9,
        total,
        2 * total,
        2,
    )


def test_what_is_expected_begins_at_zero() -> None:
    """An expected series is in the books with nothing counted, and then counts as any other."""
    ledger = Ledger()
    key = SeriesKey("probe", "base", "next_token_dist")
    ledger.expect([key, key])
    assert ledger.snapshot() == {key: Counts()}
    assert ledger.books().durations["next_token_dist"].count == 0
    assert ledger.totals().total_lookups == 0
    _miss(ledger, *key, 5, 3)
    ledger.expect([key])
    assert ledger.snapshot()[key].forward_passes == 1


def test_what_is_put_down_while_others_are_added_up() -> None:
    """Of both queues as many are counted as were there, and the rest is left for later."""
    ledger = Ledger()
    series = ledger.series(None, "base", "op")
    series.hits += [1, 2, 3]
    series.passes += [40, 30, 60, 50]
    series.add_up(2, 1)
    assert (series.hits, series.passes) == ([3], [60, 50])
    assert series.counts == Counts(hits=2, forward_passes=1, scoring_ns=43, forward_ns=30)
    assert series.durations.count == 1
