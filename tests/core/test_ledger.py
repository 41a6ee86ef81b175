"""The ledger counts as a plain dict of numbers does."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import astuple
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from forwardscope.core.ledger import (
    BATCH_BOUNDS,
    DURATION_BOUNDS_S,
    MAX_OPS,
    MAX_SERIES,
    OTHER,
    Exemplar,
    Histogram,
    Ledger,
)
from forwardscope.core.series import Counts, SeriesKey
from forwardscope.recorder import Outcome

_KEY = SeriesKey("probe", "base", "op")

durations = st.integers(0, 10**9)
tokens = st.none() | st.integers(0, 20)
series = st.builds(
    SeriesKey,
    st.sampled_from([None, "delta_kl", "ablation"]),
    st.sampled_from(["base", "ft"]),
    st.sampled_from(["next_token_dist", "logprob_of"]),
)


def _outcome(result: str, wall_ns: int = 0, **more: Any) -> Outcome:
    return Outcome(("op", "base", "prompt", 1), None, result, 0, wall_ns, **more)  # type: ignore[arg-type]


outcomes = st.lists(
    st.builds(_outcome, st.sampled_from(["hit", "coalesced"]), durations)
    | st.builds(
        _outcome,
        st.just("miss"),
        durations,
        tokens=tokens,
        reused=tokens,
        error=st.none() | st.sampled_from(["ValueError", "KeyboardInterrupt"]),
        trace_id=st.none() | st.sampled_from(["a" * 32, "b" * 32]),
    ),
    max_size=6,
)


class LedgerModel(RuleBasedStateMachine):
    """The model is one counter a series, and lists of all that was observed."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.series: dict[SeriesKey, Counter[str]] = {}
        self.passes: defaultdict[str, list[tuple[Outcome, float]]] = defaultdict(list)
        self.batches: list[int] = []

    @rule(
        key=series,
        several=outcomes,
        ns=durations,
        batches=st.lists(st.integers(1, 600), max_size=3),
        ts=st.integers(1, 9),
    )
    def add(
        self, key: SeriesKey, several: list[Outcome], ns: int, batches: list[int], ts: int
    ) -> None:
        self.ledger.add(tuple(key), iter(several), ns, iter(batches), ts)
        model = self.series.setdefault(key, Counter())
        model["scoring_ns"] += ns
        self.batches += batches
        for one in several:
            if one.result != "miss":
                model[one.result] += 1
                continue
            model["forward_ns"] += one.wall_ns
            model[one.error or "passes"] += 1
            if one.error is None:
                self.passes[key.op].append((one, ts))

    @rule(several=st.lists(series, max_size=3))
    def expect(self, several: list[SeriesKey]) -> None:
        self.ledger.expect(several)
        for key in several:
            self.series.setdefault(key, Counter())

    @invariant()
    def series_agree(self) -> None:
        snapshot = self.ledger.snapshot()
        assert list(snapshot.series) == list(self.series)  # in the order of their beginning
        for key, model in self.series.items():
            errors = {name: n for name, n in model.items() if name[0].isupper()}
            assert snapshot.series[key] == Counts(
                *(model["hit"], model["coalesced"], model["passes"], Counter(errors)),
                *(model["scoring_ns"], model["forward_ns"]),
            )

    @invariant()
    def durations_agree(self) -> None:
        snapshot = self.ledger.snapshot()
        assert snapshot.durations.keys() == {key.op for key in self.series}
        for op, seen in snapshot.durations.items():
            expected = Histogram(DURATION_BOUNDS_S)
            for one, ts in self.passes[op]:
                seconds = one.wall_ns / 1e9
                expected.observe(seconds, one.trace_id and Exemplar(one.trace_id, seconds, ts))  # type: ignore[arg-type]
            assert seen.buckets == expected.buckets
            assert seen.exemplars == expected.exemplars
            assert seen.total == pytest.approx(expected.total)

    @invariant()
    def tokens_agree(self) -> None:
        counted = [one for passes in self.passes.values() for one, _ in passes if one.tokens]
        reused = sum(min(one.reused or 0, one.tokens or 0) for one in counted)
        snapshot = self.ledger.snapshot()
        assert snapshot.tokens_reused == reused
        assert snapshot.tokens_computed == sum(one.tokens or 0 for one in counted) - reused

    @invariant()
    def batches_agree(self) -> None:
        snapshot, expected = self.ledger.snapshot(), Histogram(BATCH_BOUNDS)
        for size in self.batches:
            expected.observe(size)
        assert snapshot.batch_prompts.buckets == expected.buckets
        assert snapshot.max_batch_size == max(self.batches, default=0)

    @invariant()
    def totals_agree(self) -> None:
        total: Counter[str] = sum(self.series.values(), Counter())
        failed = sum(n for name, n in total.items() if name[0].isupper())
        totals = self.ledger.totals()
        assert astuple(totals) == (
            total["hit"] + total["coalesced"],
            total["passes"] + failed,
            total["passes"],
            total["scoring_ns"] / 1e9,
            len(self.batches),
            sum(self.batches),
            max(self.batches, default=0),
        )
        assert totals == self.ledger.snapshot().totals()


TestLedgerModel = LedgerModel.TestCase
TestLedgerModel.settings = settings(max_examples=100, stateful_step_count=20)


def test_new_ledger_is_empty() -> None:
    """It has no series, and all totals are 0."""
    snapshot = Ledger().snapshot()
    assert (snapshot.series, snapshot.durations, snapshot.batch_prompts.count) == ({}, {}, 0)
    assert (snapshot.tokens_computed, snapshot.tokens_reused) == (0, 0)
    assert astuple(snapshot.totals()) == (0, 0, 0, 0.0, 0, 0, 0)


def test_series_past_the_limit_fold_into_other() -> None:
    """The first 4,096 series stay apart for good; all later ones are counted as one."""
    ledger = Ledger()
    for number in range(MAX_SERIES):
        ledger.add((None, f"scaled_{number}", "op"), [_outcome("hit")], 1)
    ledger.expect([SeriesKey(None, "scaled_7", "op")])
    assert len(ledger.snapshot().series) == MAX_SERIES
    ledger.expect([SeriesKey("probe", "late_0", "op")])
    ledger.add(("probe", "late_1", "op"), [_outcome("hit")], 1)
    ledger.add(("probe", "late_2", "op"), [_outcome("miss", error="ValueError")], 1)
    ledger.add((None, "late_3", "op"), [_outcome("coalesced")] * 2, 1, [3])
    ledger.add((None, "scaled_7", "op"), [_outcome("hit")], 1)
    series = ledger.snapshot().series
    folded = series.pop(SeriesKey(OTHER, OTHER, OTHER))
    assert folded == Counts(1, 2, 0, Counter(ValueError=1), scoring_ns=3)
    assert len(series) == MAX_SERIES == 4096
    assert series[SeriesKey(None, "scaled_7", "op")].hits == 2
    assert ledger.totals().total_lookups == MAX_SERIES + 5


def test_series_named_other_is_the_folded_one() -> None:
    """Where it was counted before the limit, the later series join it."""
    ledger = Ledger()
    ledger.add((OTHER, OTHER, OTHER), [_outcome("hit")], 1)
    ledger.expect(SeriesKey(None, f"scaled_{number}", "op") for number in range(MAX_SERIES))
    ledger.add(("late", "base", "op"), [_outcome("hit")], 1)
    series = ledger.snapshot().series
    assert len(series) == MAX_SERIES
    assert series[SeriesKey(OTHER, OTHER, OTHER)].hits == 2


def test_durations_past_the_limit_fold_into_other() -> None:
    """The first 64 ops have a histogram each, for good; all later ones share one."""
    ledger = Ledger()
    for number in range(MAX_OPS):
        ledger.add((None, "base", f"op_{number}"), [_outcome("miss", 10**6)], 1)
    ledger.expect([SeriesKey(None, "base", "late_0")])
    ledger.add((None, "base", "late_1"), [_outcome("miss", 10**9)], 1)
    ledger.add((None, "base", "late_2"), [_outcome("miss", 10**9)], 1)
    ledger.add((None, "base", "op_7"), [_outcome("miss", 10**6)], 1)
    snapshot = ledger.snapshot()
    folded = snapshot.durations.pop(OTHER)
    assert (folded.count, folded.total) == (2, 2.0)
    assert len(snapshot.durations) == MAX_OPS
    assert snapshot.durations["op_7"].count == 2
    assert snapshot.totals().forward_passes == MAX_OPS + 3


def test_histogram_begins_with_its_series() -> None:
    """An op has a duration histogram from its first lookup on, also without a forward pass."""
    ledger = Ledger()
    ledger.add((None, "base", "hits"), [_outcome("hit")], 1)
    ledger.add((None, "base", "errors"), [_outcome("miss", error="ValueError")], 1)
    durations = ledger.snapshot().durations
    assert {op: seen.count for op, seen in durations.items()} == {"hits": 0, "errors": 0}


def test_expected_series_begin_at_zero() -> None:
    """They are in the snapshot with nothing counted, and then count as any other."""
    ledger = Ledger()
    ledger.expect([_KEY, _KEY])
    snapshot = ledger.snapshot()
    assert snapshot.series == {_KEY: Counts()}
    assert snapshot.durations["op"].count == 0
    assert ledger.totals().total_lookups == 0
    ledger.add(_KEY, [_outcome("miss", 3)], 5)
    ledger.expect([_KEY])
    expected = Counts(forward_passes=1, scoring_ns=5, forward_ns=3)
    assert ledger.snapshot().series == {_KEY: expected}


def test_exemplar_is_the_latest_of_its_bucket() -> None:
    """It has the trace, the seconds and the time; a pass without a trace leaves it there."""
    ledger = Ledger()
    for wall_ms, trace_id, ts in ((3, "a" * 32, 1.5), (4, "b" * 32, 2.5), (4, None, 3.5)):
        ledger.add(_KEY, [_outcome("miss", wall_ms * 10**6, trace_id=trace_id)], 1, (), ts)
    failed = _outcome("miss", 4 * 10**6, trace_id="c" * 32, error="ValueError")
    ledger.add(_KEY, [failed], 1, (), 4.5)
    exemplars = ledger.snapshot().durations["op"].exemplars
    assert [one for one in exemplars if one] == [Exemplar("b" * 32, 0.004, 2.5)]


def test_snapshot_is_a_copy() -> None:
    """Neither a later count nor a change to the copy reaches the other."""
    ledger = Ledger()
    failed, passed = _outcome("miss", 4, error="ValueError"), _outcome("miss", 1)
    ledger.add(_KEY, [failed, passed], 5, [2])
    taken = ledger.snapshot()
    ledger.add(_KEY, [failed, passed], 5, [2])
    assert taken.series == {_KEY: Counts(0, 0, 1, Counter(ValueError=1), 5, 5)}
    assert (taken.durations["op"].count, taken.batch_prompts.count) == (1, 1)
    taken.series[_KEY].hits = 99
    taken.series[_KEY].errors["ValueError"] = 99
    taken.series.clear()
    taken.durations["op"].observe(1.0, Exemplar("a" * 32, 1.0, 1.0))
    taken.durations.clear()
    taken.batch_prompts.observe(9)
    later = ledger.snapshot()
    assert later.series == {_KEY: Counts(0, 0, 2, Counter(ValueError=2), 10, 10)}
    assert (later.durations["op"].count, later.batch_prompts.count) == (2, 2)
    assert not any(later.durations["op"].exemplars)


def test_totals_are_of_their_moment() -> None:
    """A plain total does not change when more is counted."""
    ledger = Ledger()
    ledger.add(_KEY, [_outcome("hit")], 1)
    totals = ledger.totals()
    ledger.add(_KEY, [_outcome("hit")], 1)
    assert (totals.cache_hits, ledger.totals().cache_hits) == (1, 2)
