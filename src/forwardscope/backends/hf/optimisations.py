"""State of the optimisations of `fast`: on, or off for a reason."""

from __future__ import annotations

from typing import Final

__all__ = ["PADDED_BATCHES", "PREFIX_SHARING", "TOLERANCE", "Optimisations"]

#: Largest difference of a log-probability, in nats: the bound of `fast` in float32.
TOLERANCE: Final = 1e-4
PADDED_BATCHES: Final = "padded batches"
PREFIX_SHARING: Final = "prefix sharing"
_NAMES: Final = (PREFIX_SHARING, PADDED_BATCHES)


class Optimisations:
    """State of each optimisation. An optimisation that is off stays off, for its first reason.

    Attributes:
        tolerance: Largest difference of a log-probability that they may make, in nats.
    """

    def __init__(self) -> None:
        self.tolerance = TOLERANCE
        self._off: dict[str, str] = {}
        self._limits: dict[str, list[str]] = {name: [] for name in _NAMES}

    def turn_off(self, reason: str, *names: str) -> None:
        """Turn optimisations off; without names all of them."""
        for name in names or _NAMES:
            self._off.setdefault(name, reason)

    def join(self, other: Optimisations) -> None:
        """Turn off what is off in another state, and take the larger tolerance."""
        for name, reason in other._off.items():
            self.turn_off(reason, name)
        self.tolerance = max(self.tolerance, other.tolerance)

    def limit(self, limit: str, *names: str) -> None:
        """State for which prompts optimisations are used; without names all of them."""
        for name in names or _NAMES:
            if limit not in self._limits[name]:
                self._limits[name].append(limit)

    def is_on(self, name: str) -> bool:
        """Whether an optimisation is used."""
        return name not in self._off

    def to_dict(self) -> dict[str, str]:
        """Return `on`, `on (limit)` or `off (reason)` by the name of the optimisation."""
        return {name: self._state(name) for name in _NAMES}

    def _state(self, name: str) -> str:
        if name in self._off:
            return f"off ({self._off[name]})"
        limits = "; ".join(self._limits[name])
        return f"on ({limits})" if limits else "on"
