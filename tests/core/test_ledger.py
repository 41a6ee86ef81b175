"""The ledger agrees with a plain dict of counters, and a histogram with a list."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import astuple
from itertools import pairwise
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from forwardscope.core.ledger import (
    BATCH_BOUNDS,
    DURATION_BOUNDS_S,
    MAX_ERROR_CLASSES,
    MAX_OPS,
    MAX_SERIES,
    OTHER,
    Exemplar,
    Histogram,
    Ledger,
)
from forwardscope.core.series import Counts, SeriesKey
from forwardscope.recorder import Outcome
from forwardscope.telemetry.span_factory import CallIds

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
    return Outcome(("op", "base", "prompt", 1), None, result, 0, wall_ns, wall_ns, **more)  # type: ignore[arg-type]


outcomes = st.lists(
    st.builds(_outcome, st.sampled_from(["hit", "coalesced"]), durations)
    | st.builds(
        _outcome,
        st.just("miss"),
        durations,
        tokens=tokens,
        reused=tokens,
        error=st.none() | st.sampled_from(["ValueError", "KeyboardInterrupt"]),
        call=st.none()
        | st.sampled_from([CallIds(trace, "c" * 16) for trace in ("a" * 32, "b" * 32)]),
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


_BOUNDS = (1.0, 2.5, 10.0)
# halves are exact, so sums are too; the bounds themselves occur often
values = st.sampled_from(_BOUNDS) | st.integers(0, 30).map(lambda half: half / 2)
exemplars = st.none() | st.builds(Exemplar, st.just("a" * 32), values, st.floats(0, 9))


@given(seen=st.lists(st.tuples(values, exemplars), max_size=40))
def test_histogram_agrees_with_a_list(seen: list[tuple[float, Exemplar | None]]) -> None:
    """Buckets, count, sum and the latest exemplar of each bucket; a bound is in its bucket."""
    histogram = Histogram(_BOUNDS)
    for value, exemplar in seen:
        histogram.observe(value, exemplar)
    edges = pairwise((float("-inf"), *_BOUNDS, float("inf")))
    buckets = [[one for one in seen if low < one[0] <= high] for low, high in edges]
    assert histogram.buckets == [len(bucket) for bucket in buckets]
    assert (histogram.count, histogram.total) == (len(seen), sum(value for value, _ in seen))
    assert histogram.exemplars == [
        next((exemplar for _, exemplar in reversed(bucket) if exemplar is not None), None)
        for bucket in buckets
    ]


def test_series_past_the_limit_fold_into_other() -> None:
    """The first 4,096 series stay separate; all later ones are counted as one."""
    ledger = Ledger()
    for number in range(MAX_SERIES):
        ledger.add((None, f"scaled_{number}", "op"), [_outcome("hit")], 1)
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


def test_error_classes_past_the_limit_fold_into_other() -> None:
    """The first 32 classes of all series stay separate, and an interrupt always does."""
    ledger = Ledger()
    for number in range(1000):
        key = (f"probe {number % 2}", "base", "op")
        ledger.add(key, [_outcome("miss", error=f"Error{number}")], 1)
    ledger.add(("late", "base", "op"), [_outcome("miss", error="LateError")], 1)
    ledger.add(("late", "base", "op"), [_outcome("miss", error="KeyboardInterrupt")], 1)
    ledger.add(("late", "base", "op"), [_outcome("miss", error="Error0")], 1)
    series = ledger.snapshot().series
    errors = sum((counts.errors for counts in series.values()), Counter())
    assert len(errors) == MAX_ERROR_CLASSES + 1 == 33
    assert errors.total() == 1003
    late = series[SeriesKey("late", "base", "op")]
    assert late.errors == {OTHER: 1, "KeyboardInterrupt": 1, "Error0": 1}


def test_durations_past_the_limit_fold_into_other() -> None:
    """The first 64 ops have a histogram each; all later ones share one."""
    ledger = Ledger()
    for op in [*(f"op_{number}" for number in range(MAX_OPS)), "late_1", "late_2", "op_7"]:
        ledger.add((None, "base", op), [_outcome("miss", 10**9)], 1)
    durations = ledger.snapshot().durations
    folded = durations.pop(OTHER)
    assert (folded.count, folded.total) == (2, 2.0)
    assert (len(durations), durations["op_7"].count) == (MAX_OPS, 2)


def test_snapshot_is_a_copy() -> None:
    """Neither a later count nor a change to the copy affects the other."""
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


def test_series_of_one_probe_are_a_copy() -> None:
    """They are those of the whole snapshot, and later lookups do not change them."""
    ledger = Ledger()
    for probe in (None, "one", "two"):
        for view in ("base", "ft"):
            ledger.add((probe, view, "op"), [], 5)
    for probe in (None, "one", "none"):
        found, whole = ledger.series_of(probe), ledger.snapshot().series
        assert found == {key: counts for key, counts in whole.items() if key.probe == probe}
    found = ledger.series_of("one")
    ledger.add(("one", "base", "op"), [], 5)
    assert found[SeriesKey("one", "base", "op")].scoring_ns == 5
