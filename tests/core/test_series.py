"""Counts of a series: sums, differences and what follows from them."""

from __future__ import annotations

from collections import Counter

import hypothesis.strategies as st
from hypothesis import given

from forwardscope.core.series import Counts

few = st.integers(0, 9)
errors = st.dictionaries(st.sampled_from(["ValueError", "OSError"]), st.integers(1, 9))
counts = st.builds(Counts, few, few, few, errors.map(Counter), few, few)


def test_derived_counts() -> None:
    """A coalesced lookup is no miss, and a failed forward pass is one."""
    one = Counts(hits=3, coalesced=1, forward_passes=2, errors=Counter(a=1, b=1))
    assert (one.forward_errors, one.misses, one.lookups, one.hit_rate) == (2, 4, 8, 0.5)
    assert Counts().hit_rate == 0.0


def test_counts_add_and_subtract_by_field() -> None:
    """The difference of two snapshots is what was counted between them."""
    earlier = Counts(1, 2, 3, Counter(ValueError=1), 10, 5)
    later = Counts(2, 4, 6, Counter(ValueError=1, OSError=2), 30, 15)
    difference = Counts(1, 2, 3, Counter(OSError=2), 20, 10)
    assert later - earlier == difference
    assert earlier + difference == later


@given(one=counts, other=counts)
def test_subtraction_reverses_addition(one: Counts, other: Counts) -> None:
    """Derived counts add up as well."""
    both = one + other
    assert both - other == one
    assert both.lookups == one.lookups + other.lookups
    assert both.misses == one.misses + other.misses
