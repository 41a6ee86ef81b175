"""The report of a sweep: in the terminal, as JSON and as a page."""

from __future__ import annotations

from rich.console import Console

from forwardscope.sweep import SweepFolder, SweepResult

__all__ = ["print_sweep", "write_sweep"]


def write_sweep(result: SweepResult, folder: SweepFolder) -> None:
    """Write sweep.json and report.html.

    Raises:
        OutputError: One cannot be written.
    """
    result.write(folder.result)


def print_sweep(result: SweepResult, folder: SweepFolder, console: Console) -> None:
    """Print what each adapter measured, what that cost, and what happened."""
    console.print(f"wrote {folder.path}: {len(result.rows)}")
