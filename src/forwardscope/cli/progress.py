"""Progress on stderr: what is loaded, then the probe, the forward passes and the time left."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Final

from rich.console import RenderableType
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
from rich.table import Column
from rich.text import Text

from forwardscope.cli.terminal import Terminal
from forwardscope.instrumentation import BackendInstrumentation
from forwardscope.probes import Probe
from forwardscope.suite.observer import Observer, RunStarted
from forwardscope.suite.spec import SuiteSpec
from forwardscope.text import shown

__all__ = ["PassesColumn", "Polled", "RunProgress", "TimesColumn", "steps"]

#: Columns of the bar, and of all that is beside a probe's name.
_BAR: Final = 16
_BESIDE_NAME: Final = 60
_MIN_NAME: Final = 8
#: Columns of a terminal that has room for the hit rate.
_WIDE: Final = 100


class RunProgress(Observer):
    """A progress bar over the loading of a model and the forward passes of its run.

    The counts are read whenever the bar is drawn, so no lookup waits for it.

    Args:
        spec: The suite that is run.
        instrumentation: Instrumentation of the run's backend.
        quiet: Draw nothing.
    """

    def __init__(
        self, spec: SuiteSpec, instrumentation: BackendInstrumentation, *, quiet: bool
    ) -> None:
        console = Terminal(stderr=True)
        self._total = len(spec.probes)
        self._max_name = max(_MIN_NAME, console.width - _BESIDE_NAME)
        self._quiet = quiet
        self._instrumentation = instrumentation
        self._counted: tuple[RunStarted, TaskID] | None = None
        self._done = 0
        self._progress = Polled(
            self._poll,
            SpinnerColumn(),
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=_BAR),
            PassesColumn(wide=console.width >= _WIDE),
            TimesColumn(),
            console=console,
            transient=True,
            disable=quiet or not console.is_terminal,
        )
        self._task = self._progress.add_task("starting", total=None, passes=None)

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

    def step(self, activity: str, done: int = 0, total: int = 0) -> None:
        """Show a step of the work before or after the probes, and the time since its start.

        Args:
            activity: What is done; another one than before begins at 0:00.
            done: The amount done.
            total: The total amount; 0 if it is not known.
        """
        self._counted = None
        description, known = escape(activity), total or None
        if self._progress.tasks[0].description != description:
            self._progress.remove_task(self._task)
            self._task = self._progress.add_task(description, total=known, passes=None)
        self._progress.update(self._task, completed=done, total=known)

    def print_line(self, line: str, *, failure: bool = False) -> None:
        """Print a line above the bar, also when no bar is drawn; when quiet, only of a failure."""
        if failure or not self._quiet:
            self._progress.console.print(line)

    def run_started(self, run: RunStarted) -> None:
        """Begin to count the forward passes of the plan."""
        self.step("before the first probe", total=run.expected_forward_passes or 0)
        self._done = 0
        self._counted = run, self._task

    def probe_started(self, index: int, probe: Probe) -> None:
        """Set the bar's text to the probe's name and position."""
        name = f"{shown(probe.name, self._max_name)} ({index + 1}/{self._total})"
        self._progress.update(self._task, description=escape(name))

    def _poll(self) -> None:
        """Read how many of the planned forward passes are computed or were stored."""
        if (counted := self._counted) is None:
            return
        run, task = counted
        counts = run.counters.total()
        done = counts.forward_passes + counts.store_hits + self._instrumentation.computed_in_flight
        self._done = max(self._done, done)
        total = run.expected_forward_passes
        if total is not None:
            total = max(total, self._done)
        hit_rate = (counts.hits + counts.coalesced) / max(1, counts.lookups)
        passes = self._done, total, hit_rate
        with suppress(KeyError):  # another thread has begun the next step, and removed the task
            self._progress.update(task, completed=self._done, total=total, passes=passes)


class Polled(Progress):
    """Progress that calls a function before it is drawn."""

    def __init__(self, poll: Callable[[], None], *columns: ProgressColumn, **options: Any) -> None:
        self._poll = poll
        super().__init__(*columns, **options)

    def get_renderables(self) -> Iterable[RenderableType]:
        """Yield what is drawn, after the call."""
        self._poll()
        return super().get_renderables()


class PassesColumn(ProgressColumn):
    """Forward passes, and where there is room the hit rate."""

    max_refresh = None

    def __init__(self, *, wide: bool) -> None:
        super().__init__(Column(no_wrap=True))
        self._wide = wide

    def render(self, task: Task) -> Text:
        """Return the text of a task; empty if nothing is counted."""
        if task.fields["passes"] is None:
            return Text()
        done, total, hit_rate = task.fields["passes"]
        passes = f"{done}/{total} passes" if total is not None else f"{done} passes"
        return Text(passes + f", {100 * hit_rate:.0f} % hits" * self._wide, style="cyan")


class TimesColumn(ProgressColumn):
    """Time since the start, and the time left if the other passes take as long as those so far.

    A task without passes can have the seconds left in its field `left`.
    """

    def __init__(self) -> None:
        super().__init__(Column(no_wrap=True))

    def render(self, task: Task) -> Text:
        """Return the times of a task."""
        elapsed = task.elapsed or 0.0
        times = _clock(elapsed)
        if task.fields["passes"] is not None and task.completed and task.remaining:
            times += f", {_clock(elapsed * task.remaining / task.completed)} left"
        elif left := task.fields.get("left"):
            times += f", {_clock(left)} left"
        return Text(times, style="yellow")


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


@contextmanager
def steps(*, quiet: bool, transient: bool = False) -> Iterator[Callable[[str, int, int], None]]:
    """Draw one progress bar per step.

    Args:
        quiet: Draw nothing.
        transient: Remove the bars at the end.

    Yields:
        A function of a step's name, the amount done and the total amount, which is 0
        where it is not known. A new name ends the step before it, and adds a bar below.
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

    def end_all() -> None:
        for task in bars.tasks:
            bars.update(task.id, completed=task.total or 1, total=task.total or 1)

    def report_progress(name: str, done: int, total: int) -> None:
        if name not in tasks:
            end_all()
            tasks[name] = bars.add_task(escape(name), total=total or None)
        bars.update(tasks[name], completed=done, total=total or None)

    with bars:
        yield report_progress
        end_all()
