"""The totals of a backend, as programs and results read them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass, fields
from typing import Any

__all__ = ["BackendStats", "LiveStats"]


@dataclass(slots=True, eq=False)
class BackendStats:
    """Totals over all lookups of one backend.

    Built by hand it is a plain value. `BackendInstrumentation.stats` is a live
    one: it shows the counts of the moment at which it is read.

    Attributes:
        cache_hits: Lookups that paid no forward pass, coalesced ones included.
        cache_misses: Lookups that led a compute, whether it succeeded or failed.
        forward_passes: Prompts computed by the model.
        scoring_wall_s: Wall time of the scoring calls in seconds, waiting included.
        batches_sent: Calls of `compute_misses`.
        batched_prompts: Prompts in those calls.
        max_batch_size: Prompts in the largest of them.
    """

    cache_hits: int = 0
    cache_misses: int = 0
    forward_passes: int = 0
    scoring_wall_s: float = 0.0
    batches_sent: int = 0
    batched_prompts: int = 0
    max_batch_size: int = 0

    @property
    def total_lookups(self) -> int:
        """Hits and misses."""
        return self.cache_hits + self.cache_misses

    @property
    def hit_rate(self) -> float:
        """Share of lookups that paid no forward pass; 0.0 without lookups."""
        return self.cache_hits / self.total_lookups if self.total_lookups else 0.0

    @property
    def avg_batch_size(self) -> float:
        """Mean prompts a batch; 0.0 when none was sent."""
        return self.batched_prompts / self.batches_sent if self.batches_sent else 0.0

    def to_dict(self) -> dict[str, int | float]:
        """Return the seven fields, `hit_rate` and `avg_batch_size`, as of one moment."""
        counts: dict[str, int | float] = {f.name: getattr(self, f.name) for f in fields(self)}
        return {**counts, "hit_rate": self.hit_rate, "avg_batch_size": self.avg_batch_size}

    def __eq__(self, other: object) -> bool:
        """Compare counts; a live object equals the plain value that it shows now."""
        if not isinstance(other, BackendStats):
            return NotImplemented
        return self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[type[BackendStats], tuple[int | float, ...]]:
        """Copy as a plain value, also where this object is live."""
        return BackendStats, astuple(self)


class LiveStats(BackendStats):
    """Totals that are read again at each access, so each method call is of one moment.

    Args:
        totals: Returns the totals of now.
    """

    __slots__ = ("_totals",)

    def __init__(self, totals: Callable[[], BackendStats]) -> None:
        object.__setattr__(self, "_totals", totals)

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("_"):
            return object.__getattribute__(self, name)
        return getattr(self._totals(), name)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{name} is counted by the backend and cannot be set")

    def __repr__(self) -> str:
        return repr(self._totals())

    def __reduce__(self) -> Any:
        return self._totals().__reduce__()
