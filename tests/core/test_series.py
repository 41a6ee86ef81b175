"""The counts of a series add up, and say how its lookups ended."""

from __future__ import annotations

from collections import Counter

import hypothesis.strategies as st
from hypothesis import given

from forwardscope.core.series import Counts, SeriesKey

few = st.integers(0, 9)
counts = st.builds(
    Counts,
    hits=few,
    coalesced=few,
    forward_passes=few,
    errors=st.dictionaries(st.sampled_from(["ValueError", "OSError"]), st.integers(1, 9)).map(
        Counter
    ),
    scoring_ns=few,
    forward_ns=few,
)


def test_counts_of_one_series() -> None:
    """A coalesced lookup paid no pass, and a failed pass is a miss."""
    one = Counts(hits=3, coalesced=1, forward_passes=2, errors=Counter(a=1, b=1))
    assert (one.forward_errors, one.misses, one.lookups) == (2, 4, 8)
    assert one.hit_rate == 0.5


def test_without_lookups_the_hit_rate_is_zero() -> None:
    """New counts are all 0, and two of them share nothing."""
    one = Counts()
    assert (one.hits, one.lookups, one.hit_rate) == (0, 0, 0.0)
    one.errors["ValueError"] += 1
    assert Counts().errors == Counter()


def test_counts_add_and_subtract_by_field() -> None:
    """The difference of two snapshots is what was counted between them."""
    earlier = Counts(1, 2, 3, Counter(ValueError=1), 10, 5)
    later = Counts(2, 4, 6, Counter(ValueError=1, OSError=2), 30, 15)
    difference = Counts(1, 2, 3, Counter(OSError=2), 20, 10)
    assert later - earlier == difference
    assert earlier + difference == later


@given(one=counts, other=counts)
def test_a_sum_less_one_part_is_the_other(one: Counts, other: Counts) -> None:
    """Adding and subtracting undo each other, and lookups add up."""
    both = one + other
    assert both - other == one
    assert both.lookups == one.lookups + other.lookups
    assert both.misses == one.misses + other.misses


def test_a_series_key_is_a_tuple() -> None:
    """It has names for its parts, and is found under the plain tuple."""
    key = SeriesKey(None, "base", "op")
    assert {("probe", "ft", "op"): 1, key: 2}[None, "base", "op"] == 2
    assert (key.probe, key.view_id, key.op) == (None, "base", "op")
