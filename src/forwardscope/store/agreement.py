"""Whether a stored value is the value that was computed again."""

from __future__ import annotations

import math
from functools import singledispatch

__all__ = ["agree", "difference"]


def agree(stored: object, computed: object, tolerance: float) -> bool:
    """Return whether two values of one key agree.

    Args:
        stored: The stored value.
        computed: The computed value.
        tolerance: Largest difference of a log-probability, in nats. With 0.0 the values
            must be equal. A sum of log-probabilities may differ by as much, or by this
            share of it.
    """
    try:
        return type(stored) is type(computed) and difference(stored, computed) <= tolerance
    except Exception:  # noqa: BLE001 - foreign values may not be comparable
        return False


@singledispatch
def difference(stored: object, computed: object) -> float:
    """Return the largest difference between two values of one type.

    Other types register a function that returns it in nats, inf where the values cannot
    be compared. Values of a type without one must be equal.
    """
    return 0.0 if stored == computed else math.inf


@difference.register
def _of_floats(stored: float, computed: float) -> float:
    if stored == computed:
        return 0.0
    apart = abs(stored - computed) / max(1.0, abs(computed))
    return math.inf if math.isnan(apart) else apart


@difference.register
def _of_tuples(stored: tuple, computed: tuple) -> float:  # type: ignore[type-arg]
    if len(stored) != len(computed):
        return math.inf
    pairs = zip(stored, computed, strict=True)
    return max(
        (difference(one, other) if type(one) is type(other) else math.inf for one, other in pairs),
        default=0.0,
    )
