"""Numbers of other tools: values of any kind, and how much rounding may change them."""

from __future__ import annotations

import math
import numbers
from typing import Any, Final

__all__ = ["finite_number", "tolerance_of"]

#: By the dtype of the weights; 0.1 for all others.
_TOLERANCES: Final = {"float32": 1e-4, "float16": 0.02}
_COARSE: Final = 0.1


def finite_number(value: Any) -> float | int | None:
    """Return a finite number, also one of NumPy's, and None for anything else."""
    if not isinstance(value, numbers.Real) or not math.isfinite(value):
        return None
    return int(value) if isinstance(value, numbers.Integral) else float(value)


def tolerance_of(dtype: str = "") -> float:
    """Return the largest difference of a log-probability between two computations, in nats.

    It is what rounding may do, with room for long sums, and only decides what a verification
    calls equal.

    Args:
        dtype: Dtype of the weights; empty where it is not known.
    """
    return _TOLERANCES.get(dtype, _COARSE)
