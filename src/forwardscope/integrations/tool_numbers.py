"""Numbers of other tools, which may be of any kind."""

from __future__ import annotations

import math
import numbers
from typing import Any

__all__ = ["finite_number"]


def finite_number(value: Any) -> float | int | None:
    """Return a finite number, also one of NumPy's, and None for anything else."""
    if not isinstance(value, numbers.Real) or not math.isfinite(value):
        return None
    return int(value) if isinstance(value, numbers.Integral) else float(value)
