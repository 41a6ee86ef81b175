"""Formats of names and measured values, for all reports."""

from __future__ import annotations

from typing import Final

__all__ = [
    "OUTSIDE",
    "format_interval",
    "format_percent",
    "format_probe",
    "format_raw",
    "format_z",
]

#: Stands for the name of a probe where lookups are outside all probes.
OUTSIDE: Final = "(outside)"


def format_probe(name: str | None) -> str:
    """Return the name of a probe, or what stands for it outside all probes."""
    return OUTSIDE if name is None else name


def format_raw(value: float) -> str:
    """Format what a probe measures with four significant digits."""
    return f"{value:.4g}"


def format_interval(ends: tuple[float, float]) -> str:
    """Format an interval of what a probe measures."""
    low, high = ends
    return f"{format_raw(low)} to {format_raw(high)}"


def format_z(z: float) -> str:
    """Format a z-score with three significant digits, or as a whole number from 100 on."""
    return f"{z:+.0f}" if abs(z) >= 100 else f"{z:+.3g}"


def format_percent(share: float) -> str:
    """Format a share as whole percent."""
    return f"{100 * share:.0f} %"
