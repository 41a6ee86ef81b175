"""Progress of a sweep on stderr: over all adapters, and of the one that is measured."""

from __future__ import annotations

from contextlib import suppress
from types import TracebackType
from typing import Final

from rich.markup import escape
from rich.progress import BarColumn, SpinnerColumn, TextColumn
from rich.table import Column

from forwardscope.cli.progress import PassesColumn, Polled, TimesColumn
from forwardscope.cli.terminal import Terminal
from forwardscope.instrumentation import BackendInstrumentation
from forwardscope.probes import Probe
from forwardscope.suite.observer import Observer, RunStarted
from forwardscope.suite.result import SuiteResult
from forwardscope.sweep import AdapterRow, SweepObserver, SweepStarted, Task
from forwardscope.sweep.worker import worker_name
from forwardscope.text import MAX_SENTENCE, plural, shown

__all__ = ["SweepProgress"]

_BAR: Final = 16
#: Columns of all that is beside a description.
_BESIDE: Final = 54
_MIN_TEXT: Final = 20
#: Columns of the forward passes, which runs in other processes do not have.
_PASSES: Final = 18


class SweepProgress(SweepObserver, Observer):
    """Two bars: adapters of the sweep, and forward passes of the current one.

    Each adapter that ends has a line, also where no bar is drawn. The counts are read whenever
    the bars are drawn. Runs in other processes have no events of their own; then the second bar
    names the adapters that are measured.

    Args:
        quiet: Draw and print nothing.
    """

    def __init__(self, *, quiet: bool) -> None:
        console = Terminal(stderr=True)
        self._room = max(_MIN_TEXT, console.width - _BESIDE)
        self._quiet = quiet
        self._total = 0
        self._measured = 0
        self._ended = 0
        self._label = ""
        self._elsewhere: list[str] = []
        self._run: RunStarted | None = None
        self._instrumentation: BackendInstrumentation | None = None
        self._bars = Polled(
            self._poll,
            SpinnerColumn(),
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=_BAR),
            PassesColumn(wide=False),
            TimesColumn(),
            console=console,
            transient=True,
            disable=quiet or not console.is_terminal,
        )
        self._all = self._bars.add_task("starting", total=None, passes=None)
        self._one = self._bars.add_task("", total=None, passes=None, visible=False)

    def __enter__(self) -> SweepProgress:
        self._bars.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def print_line(self, line: str, *, failure: bool = False) -> None:
        """Print a line above the bars; when quiet, only of a failure."""
        if failure or not self._quiet:
            self._bars.console.print(line)

    def step(self, activity: str, done: int = 0, total: int = 0) -> None:
        """Show a step of loading."""
        self._describe(activity, done, total or None)

    def opened(self, instrumentation: BackendInstrumentation) -> None:
        """Use the counts of the next run's backend."""
        self._instrumentation = instrumentation

    # -- the sweep ----------------------------------------------------------------------

    def sweep_started(self, sweep: SweepStarted) -> None:
        """Begin to count adapters."""
        self._total = len(sweep.tasks)
        self._show_all()

    def adapter_started(self, task: Task, worker: str) -> None:
        """Name the adapter that is measured."""
        if worker == worker_name():
            self._label = task.label
            self._describe("starting", 0, None)
        else:
            self._elsewhere = [one for one in self._elsewhere if one != task.label] + [task.label]
            self._show_elsewhere()
        self._show_all()

    def adapter_finished(self, row: AdapterRow) -> None:
        """Print the outcome of an adapter."""
        self._ended += 1
        self._measured += row.status != "resumed"
        self._run = None
        if row.label in self._elsewhere:
            self._elsewhere.remove(row.label)
            self._show_elsewhere()
        line = f"{self._ended}/{self._total} {row.label}: {_outcome(row)}"
        self.print_line(shown(line, MAX_SENTENCE))
        self._show_all()

    def worker_lost(self, worker: str, reason: str) -> None:
        """Print that a worker was lost."""
        self.print_line(shown(f"{worker} was lost: {reason}", MAX_SENTENCE), failure=True)

    def noticed(self, what: str) -> None:
        """Print it."""
        self.print_line(shown(what, MAX_SENTENCE))

    # -- one run ------------------------------------------------------------------------

    def run_started(self, run: RunStarted) -> None:
        """Begin to count the forward passes of a run."""
        self._describe("before the first probe", 0, run.expected_forward_passes)
        self._run = run

    def probe_started(self, index: int, probe: Probe) -> None:
        """Name the probe."""
        position = f" ({index + 1}/{len(self._run.spec.probes)})" if self._run else ""
        text = shown(probe.name, self._room - len(position))
        self._bars.update(self._one, description=escape(text + position))

    def run_finished(self, result: SuiteResult | None) -> None:  # noqa: ARG002 - of the base class
        """Stop counting."""
        self._run = None

    # -- drawing ------------------------------------------------------------------------

    def _describe(self, text: str, done: int, total: int | None) -> None:
        self._run = None
        description = escape(shown(text, self._room + _PASSES * bool(self._elsewhere)))
        with suppress(KeyError):
            self._bars.reset(
                self._one, description=description, total=total, completed=done, passes=None
            )
            self._bars.update(self._one, visible=True)

    def _show_elsewhere(self) -> None:
        names = ", ".join(self._elsewhere) or "waiting for workers"
        fits = len(names) <= self._room + _PASSES
        self._describe(names if fits else plural(len(self._elsewhere), "adapter"), 0, None)

    def _show_all(self) -> None:
        done = f"{self._ended}/{self._total} "
        text = done + shown(self._label or "adapters", self._room - len(done))
        self._bars.update(
            self._all,
            description=escape(text),
            completed=self._ended,
            total=self._total or None,
            left=self._left_s(),
        )

    def _left_s(self) -> float:
        """Return the time that the other adapters take if each takes as long as those so far."""
        elapsed = self._bars.tasks[0].elapsed or 0.0
        return elapsed / self._measured * (self._total - self._ended) if self._measured else 0.0

    def _poll(self) -> None:
        run, instrumentation = self._run, self._instrumentation
        if run is None or instrumentation is None:
            return
        counts = run.counters.total()
        done = counts.forward_passes + counts.store_hits + instrumentation.computed_in_flight
        total = run.expected_forward_passes
        total = total if total is None else max(total, done)
        with suppress(KeyError):
            self._bars.update(self._one, completed=done, total=total, passes=(done, total, 0.0))


def _outcome(row: AdapterRow) -> str:
    """Describe in one line what became of an adapter."""
    if row.status == "error":
        return f"ERROR {row.error}"
    verdict = "passed" if row.passed else "did not pass"
    score = "" if row.score is None else f", score {row.score:.2f}"
    if row.status == "resumed":
        return f"{verdict}{score}, kept from before"
    paid = f"{row.passes.forward_passes} of {plural(row.passes.demand, 'forward pass')} paid"
    return f"{verdict}{score}, {row.wall_s:.1f} s, {paid}"
