"""Formats of measured values, for all reports."""

from __future__ import annotations

__all__ = ["format_interval", "format_percent", "format_raw", "format_z"]


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
