"""Progress on stderr: the current probe, the number of lookups, and the hit rate."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Final

from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
)
from rich.progress import TimeElapsedColumn as Elapsed
from rich.text import Text

from forwardscope.cli.terminal import Terminal
from forwardscope.core.stats import BackendStats
from forwardscope.probes import Probe
from forwardscope.suite.observer import Observer
from forwardscope.suite.result import ProbeResult
from forwardscope.suite.spec import SuiteSpec
from forwardscope.text import shown

__all__ = ["RunProgress", "steps"]

#: Characters of a probe's name beside the bar.
_MAX_NAME: Final = 60


class RunProgress(Observer):
    """A progress bar over a suite's probes, with live counts.

    Args:
        spec: The suite that is run.
        stats: The backend's live stats, read whenever the bar is drawn.
        quiet: Draw nothing.
    """

    def __init__(self, spec: SuiteSpec, stats: BackendStats, *, quiet: bool) -> None:
        console = Terminal(stderr=True)
        self._total = len(spec.probes)
        self._quiet = quiet
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            _LookupsColumn(stats),
            Elapsed(),
            console=console,
            transient=True,
            disable=quiet or not console.is_terminal,
        )
        self._task = self._progress.add_task("loading the model", total=None)

    def __enter__(self) -> RunProgress:
        self._progress.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def describe(self, activity: str) -> None:
        """Set the bar's text."""
        self._progress.update(self._task, description=activity)

    def print_line(self, line: str, *, failure: bool = False) -> None:
        """Print a line above the bar, also when no bar is drawn; when quiet, only of a failure."""
        if failure or not self._quiet:
            self._progress.console.print(line)

    def probe_started(self, index: int, probe: Probe) -> None:
        """Set the bar's text to the probe's name and position."""
        self._progress.update(
            self._task,
            description=f"{escape(shown(probe.name, _MAX_NAME))} ({index + 1}/{self._total})",
            total=self._total,
            completed=index,
        )

    def probe_finished(self, result: ProbeResult) -> None:  # noqa: ARG002 - of the base class
        """Advance the bar."""
        self._progress.advance(self._task)


class _LookupsColumn(ProgressColumn):
    def __init__(self, stats: BackendStats) -> None:
        super().__init__()
        self._stats = stats

    def render(self, task: Task) -> Text:  # noqa: ARG002 - of the base class
        now = self._stats.to_dict()
        lookups = now["cache_hits"] + now["cache_misses"]
        return Text(f"{lookups:.0f} lookups, {100 * now['hit_rate']:.0f} % hits", style="cyan")


@contextmanager
def steps(*, quiet: bool, transient: bool = False) -> Iterator[Callable[[str, int, int], None]]:
    """Draw one progress bar per step.

    Args:
        quiet: Draw nothing.
        transient: Remove the bars at the end.

    Yields:
        A function of a step's name, the amount done and the total amount. A new
        name adds a bar below the others.
    """
    console = Terminal(stderr=True)
    bars = Progress(
        SpinnerColumn(finished_text="[green]✓[/]"),
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        Elapsed(),
        console=console,
        transient=transient,
        disable=quiet or not console.is_terminal,
    )
    tasks: dict[str, TaskID] = {}

    def report_progress(name: str, done: int, total: int) -> None:
        if name not in tasks:
            tasks[name] = bars.add_task(escape(name), total=total)
        bars.update(tasks[name], completed=done, total=total)

    with bars:
        yield report_progress
