"""Correction of p-values by Holm's method."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwardscope.suite.holm import holm

P_VALUES = st.lists(st.floats(0, 1), max_size=20)


@pytest.mark.parametrize(
    ("given_values", "corrected"),
    [
        ([], []),
        ([0.2], [0.2]),
        ([0.01, 0.02, 0.03, 0.04], [0.04, 0.06, 0.06, 0.06]),  # computed by hand
        ([0.04, 0.01, 0.03], [0.06, 0.03, 0.06]),
        ([0.5, 0.9], [1.0, 1.0]),
    ],
)
def test_known_values(given_values: list[float], corrected: list[float]) -> None:
    """They keep the order of what was given."""
    assert holm(given_values) == pytest.approx(corrected)


@given(P_VALUES)
def test_a_corrected_value_is_no_smaller(values: list[float]) -> None:
    """It lies between the value and what Bonferroni's method gives, and keeps their order."""
    corrected = holm(values)
    for value, after in zip(values, corrected, strict=True):
        assert value <= after <= min(1.0, len(values) * value)
    pairs = sorted(zip(values, corrected, strict=True))
    assert [after for _, after in pairs] == sorted(corrected)
