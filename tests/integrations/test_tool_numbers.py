"""Numbers of other tools."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from forwardscope.integrations.tool_numbers import finite_number, tolerance_of


@pytest.mark.parametrize(
    ("value", "number"),
    [
        *((1.5, 1.5), (2, 2), (np.float32(0.5), 0.5), (np.int64(3), 3), (math.nan, None)),
        *((math.inf, None), (-math.inf, None), ("1", None), (None, None), ([1.0], None)),
    ],
)
def test_only_finite_numbers_are_numbers(value: Any, number: float | None) -> None:
    """What JSON and a chart have no place for is None."""
    found = finite_number(value)
    assert found == number
    assert type(found) in (int, float, type(None))


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", 1e-4), ("float16", 0.02), ("bfloat16", 0.1), ("", 0.1)]
)
def test_the_tolerance_follows_the_dtype(dtype: str, tolerance: float) -> None:
    """A dtype that is not known has the largest."""
    assert tolerance_of(dtype) == tolerance
