"""Changes of a probe between two runs, and their p-values.

**Change.** The value of a probe less that of another run. It is *clear* where each of the two
values lies outside the other's 95 % interval.

**p** is the probability of a change as large as that, in either direction, if there were none:
from the normal distribution, with a standard error of the difference of sqrt(a² + b²), where
a and b are those of the two values, each its 95 % interval's width / (2 · 1.96). Equal prompts
make the two values alike, so it is rather too large than too small. A value without an interval
has none. All p of one comparison are corrected together, see `forwardscope.suite.holm`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final, Protocol

from forwardscope.suite.holm import holm

__all__ = ["Change", "change_between", "corrected"]

_NORMAL: Final = NormalDist()
_WIDTH: Final = 2 * _NORMAL.inv_cdf(0.975)


class _Value(Protocol):
    """What a probe measured."""

    @property
    def raw(self) -> float | None: ...

    @property
    def ci_95(self) -> tuple[float, float] | None: ...


@dataclass(frozen=True, slots=True)
class Change:
    """A change of one probe.

    Attributes:
        value: The value less that of the other run; None without both.
        clear: Whether each value lies outside the other's interval; None without both.
        p: Of such a change if there were none, not corrected; None without both intervals.
    """

    value: float | None = None
    clear: bool | None = None
    p: float | None = None


def change_between(first: _Value, now: _Value) -> Change:
    """Return the change of a probe from one run to another."""
    if first.raw is None or now.raw is None:
        return Change()
    change = now.raw - first.raw
    if not math.isfinite(change):  # of two values that are as good as infinite
        return Change()
    if first.ci_95 is None or now.ci_95 is None:
        return Change(change)
    clear = not (
        first.ci_95[0] <= now.raw <= first.ci_95[1] or now.ci_95[0] <= first.raw <= now.ci_95[1]
    )
    widths = [high - low for low, high in (first.ci_95, now.ci_95)]
    error = math.hypot(*widths) / _WIDTH
    if error == 0.0:
        return Change(change, clear, 0.0 if change else 1.0)
    return Change(change, clear, 2.0 * _NORMAL.cdf(-abs(change) / error))


def corrected(p_values: Sequence[float | None]) -> list[float | None]:
    """Return p-values corrected for all that are not None, by Holm's method, in their order."""
    values = iter(holm([p for p in p_values if p is not None]))
    return [None if p is None else next(values) for p in p_values]
