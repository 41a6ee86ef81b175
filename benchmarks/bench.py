"""Compare forwardscope with dlm-sway, and with the libraries that it uses.

    python benchmarks/bench.py --peer PATH/TO/python [--repeats N] [--smoke] [--output FILE]

Two workers, one in each environment, take turns in one run. A repeat consists of short turns, so
that a change in the speed of the machine affects both sides. A ratio is computed for each repeat;
the table shows the median of all repeats. Both sides must return the same values, or nothing is
written. The suite's log-probabilities must agree within 1e-4, because one side computes in batches
and the other computes single prompts; each side has a divergence of its own. `--smoke` runs a
small part of each row to check that it works; its figures mean nothing. The peer is `dlm-sway`
0.1.0 in an environment of its own, which `make bench` creates.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from forwardscope.backends.hf.demo_model import demo_adapter, demo_model

_WORKER: Final = Path(__file__).with_name("worker.py")
#: Largest allowed difference between log-probabilities of both sides, in nats.
_CLOSE: Final = 1e-4
_UNITS: Final = (("µs", 1e3), ("ms", 1e6), ("s", 1e9))
_VERSIONS: Final = (
    "msgspec",
    "opentelemetry-sdk",
    "prometheus-client",
    "torch",
    "transformers",
    "peft",
)


@dataclass(frozen=True, slots=True)
class Side:
    """Measurement on one side of a row.

    Attributes:
        who: `ours` or `peer`.
        task: Name of a task of the worker.
        n: Size of the task in one repeat, such as a number of lookups.
        figure: Key of the figure in the worker's answer.
    """

    who: str
    task: str
    n: int
    figure: str = "ns"


@dataclass(frozen=True, slots=True)
class Row:
    """Two sides, and the target for their ratio.

    The ratio must be at most `target`, or at least `target` where `at_least` is true. A row with
    one side compares its figure, in `unit`, with `target`. A repeat has `turns` turns. A row has
    at most `repeats` repeats, which limits those that take minutes.
    """

    what: str
    one: Side
    other: Side | None
    target: float
    at_least: bool = False
    unit: str = ""
    turns: int = 4
    repeats: int = 100


def _ours(task: str, n: int, figure: str = "ns") -> Side:
    return Side("ours", task, n, figure)


def _peer(task: str, n: int) -> Side:
    return Side("peer", task, n)


ROWS: Final = (
    Row("a hit, no sinks; the peer's", _ours("hit", 100_000), _peer("hit", 100_000), 0.40),
    Row(
        "a hit with the trace on; the peer's with its own",
        _ours("traced", 20_000),
        _peer("traced", 20_000),
        0.40,
    ),
    Row(
        "a hit with trace, spans and collector, CPU time of its thread; the peer's with its trace",
        _ours("watched", 16_000),
        _peer("traced-cpu", 16_000),
        0.55,
    ),
    Row(
        "the same, CPU time of the process, flush included; a bare SDK span",
        _ours("watched", 8_000, "process_ns"),
        _ours("bare", 8_000, "process_ns"),
        1.30,
    ),
    Row(
        "a hit from 8 threads at once, in total; the peer's",
        _ours("threads", 200_000),
        _peer("threads", 200_000),
        1.0,
        turns=2,
    ),
    Row("a miss's own cost; the peer's", _ours("miss", 20_000), _peer("miss", 20_000), 1.0),
    Row("a hit in a batch of 64; a single hit", _ours("batch", 50_000), _ours("hit", 50_000), 0.6),
    Row(
        "a scrape of 1,000 series; `generate_latest` on as many native counters",
        _ours("scrape", 64),
        _ours("native", 64),
        1.5,
    ),
    Row(
        "a hit of 8 KB, a new equal string each time; the peer's",
        _ours("fresh", 3_000),
        _peer("fresh", 3_000),
        0.6,
    ),
    Row(
        "an entry beyond its value and prompt",
        _ours("memory", 10_000),
        None,
        450,
        unit="B",
        turns=1,
    ),
    Row(
        "the four-probe suite on SmolLM2-135M, float32; the peer's",
        _ours("suite", 6),
        _peer("suite", 6),
        0.25,
        turns=1,
        repeats=3,
    ),
    Row(
        "what lookups cost themselves, all sinks on, of that suite's time",
        _ours("share", 6, "percent"),
        None,
        0.5,
        unit="%",
        turns=1,
        repeats=3,
    ),
    Row(
        "a miss's own cost, of that suite's mean forward pass",
        _ours("miss-share", 6, "percent"),
        None,
        0.1,
        unit="%",
        turns=1,
        repeats=1,
    ),
    Row(
        "a probe of a suite of 500 with file, pushes, scrape endpoint and spans; without",
        _ours("exported", 500),
        _ours("unexported", 500),
        1.20,
        turns=1,
        repeats=5,
    ),
    Row(
        "a probe of a suite of 2,000 with all these, CPU time; of one of 200",
        _ours("exported", 2_000, "process_ns"),
        _ours("exported", 200, "process_ns"),
        1.20,
        turns=1,
        repeats=3,
    ),
    Row(
        "the store's get of a distribution of 256 tokens; a plain SELECT of its bytes",
        _ours("get", 4_000),
        _ours("select", 4_000),
        3.0,
    ),
    Row(
        "each of a batch of 64 such gets; a plain SELECT",
        _ours("get-batch", 6_400),
        _ours("select", 4_000),
        2.0,
    ),
    Row(
        "a put into the store, on its caller; a miss's own cost",
        _ours("put", 2_000),
        _ours("miss", 8_000),
        1.0,
    ),
    Row(
        "all identities of the model's views, remembered; loading it",
        _ours("identities", 1, "remembered"),
        _ours("identities", 1),
        0.05,
        turns=1,
    ),
    Row(
        "the same, computed; loading it",
        _ours("identities", 1, "computed"),
        _ours("identities", 1),
        1.0,
        turns=1,
    ),
    Row(
        "the four-probe suite with a warm store, 1/64 verified; without",
        _ours("warm-suite", 6),
        _ours("suite", 6),
        0.1,
        turns=1,
        repeats=3,
    ),
    Row(
        "that suite after one of another adapter on its base, with one store; the peer's",
        _ours("next-adapter", 6),
        _peer("suite", 6),
        1 / 6,
        turns=1,
        repeats=3,
    ),
    Row("files that a hit passes, all sinks on", _ours("files", 1, "hit"), None, 6, unit="files"),
    Row("files that a miss passes, likewise", _ours("files", 1, "miss"), None, 9, unit="files"),
    Row(
        "lines of `core` and of the four modules around it",
        _ours("lines", 1, "count"),
        None,
        1300,
        unit="lines",
    ),
)


class Worker:
    """Process that runs the tasks of one side; see worker.py."""

    def __init__(self, python: str, who: str, model: Path, adapter: Path) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - fixed arguments
            [python, str(_WORKER), who, str(model), str(adapter)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def do(self, task: str, n: int) -> dict[str, Any]:
        """Run a task and return its answer.

        Raises:
            SystemExit: The worker ended; its own error message is on standard error.
        """
        requests, answers = self._process.stdin, self._process.stdout
        if requests is None or answers is None:
            raise SystemExit("the worker has no pipes")
        requests.write(json.dumps({"task": task, "n": n}) + "\n")
        requests.flush()
        answer = answers.readline()
        if not answer:
            raise SystemExit(f"the worker ended at task {task!r}")
        return dict(json.loads(answer))

    def end(self) -> None:
        """Close the input of the worker and wait until it ends."""
        self._process.communicate()


def measure(
    row: Row, workers: dict[str, Worker], repeats: int, share: float
) -> tuple[list[float], list[float]]:
    """Run both sides in turns and return their figures.

    Raises:
        SystemExit: The sides returned different values.
    """
    figures: tuple[list[float], list[float]] = [], []
    sides = [side for side in (row.one, row.other) if side is not None]
    turns = max(1, round(row.turns * share))
    for _ in range(min(repeats, row.repeats)):
        by_turn = [
            [workers[side.who].do(side.task, _times(side.n * share / turns)) for side in sides]
            for _ in range(turns)
        ]
        for answers in by_turn:
            _check(row, answers)
        for found, side, answers in zip(figures, sides, zip(*by_turn, strict=True), strict=False):
            found.append(statistics.fmean(answer[side.figure] for answer in answers))
    return figures


def _times(n: float) -> int:
    return max(1, round(n))


def _check(row: Row, answers: Sequence[dict[str, Any]]) -> None:
    for answer in answers:
        for what in ("lines", "spans"):
            if what in answer and answer[what] != answer["n"]:
                raise SystemExit(f"{row.what}: {answer[what]} {what} of {answer['n']} lookups")
    same = [answer["same"] for answer in answers if "same" in answer]
    if len(same) == 2 and same[0] != same[1]:
        raise SystemExit(f"{row.what}: the two did not get the same: {same}")
    close = [answer["close"] for answer in answers if "close" in answer]
    if any(abs(one - other) > _CLOSE for one, other in zip(*close, strict=True)):
        raise SystemExit(f"{row.what}: the two did not get nearly the same: {close}")


def line_of(row: Row, figures: tuple[list[float], list[float]]) -> str:
    """Return a row in Markdown."""
    sign = "≥" if row.at_least else "≤"
    one, other = figures
    if row.other is None:
        ratios, one_shown, other_shown = one, _shown(one, row.unit, 1), "–"
    else:
        ratios = [mine / others for mine, others in zip(one, other, strict=True)]
        one_shown, other_shown = (_shown(side, *_unit(one)) for side in figures)
    ratio = statistics.median(ratios)
    met = ratio >= row.target if row.at_least else ratio <= row.target
    verdict = "met" if met else "**not met**"
    spread = "" if row.other is None else f" ({min(ratios):.2f}–{max(ratios):.2f})"
    shown = f"{ratio:.2f}{spread}" if row.unit in ("", "%") else f"{ratio:.0f}"
    target = f"{sign} {row.target:g}"
    return f"| {row.what} | {one_shown} | {other_shown} | {shown} | {target} | {verdict} |"


def _unit(ns: Sequence[float]) -> tuple[str, float]:
    fitting = (unit for unit in _UNITS if min(ns) < 1000 * unit[1])
    return next(fitting, _UNITS[-1])


def _shown(figures: Sequence[float], unit: str, scale: float) -> str:
    low, middle, high = (f"{of(figures) / scale:.3g}" for of in (min, statistics.median, max))
    return f"{middle} {unit} ({low}–{high})"


def table(lines: Sequence[str], repeats: int) -> str:
    """Return the rows in Markdown, with the versions and the machine."""
    libraries = ", ".join(f"{name} {version(name)}" for name in _VERSIONS)
    machine = f"{os.cpu_count()} cores of {platform.machine()}"
    about = (
        f"{repeats} repeats (of the suite at most 3), medians (range) of figures and of ratios; a "
        f"target is met where the median is. The peer is dlm-sway 0.1.0, which computes prompts "
        f"one by one; forwardscope {version('forwardscope')}, {libraries}, "
        f"Python {platform.python_version()}, {machine}. Made by `make bench`."
    )
    head = ["| what; beside what | one | the other | ratio | target | |", "| --- " * 6 + "|"]
    return "\n".join(["# Lookups and a suite", "", about, "", *head, *lines]) + "\n"


def _tell(done: int, of: int) -> None:
    if done == of:
        sys.stderr.write("the model and its adapter are there\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all rows, and print the table or write it to a file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer", required=True, help="the Python that has dlm-sway")
    parser.add_argument(
        "--repeats", type=int, default=15, help="15 by default, and at most 3 of what takes minutes"
    )
    parser.add_argument("--smoke", action="store_true", help="one short repeat, no figures kept")
    parser.add_argument("--output", type=Path, help="a Markdown file; by default it is printed")
    given = parser.parse_args(arguments)
    if given.smoke and given.output is not None:
        parser.error("--smoke measures nothing that is worth a file: leave --output out")
    repeats, share = (1, 0.02) if given.smoke else (given.repeats, 1.0)
    model = demo_model(_tell)
    adapter = demo_adapter(model, _tell)
    pythons = {"ours": sys.executable, "peer": given.peer}
    workers = {who: Worker(python, who, model, adapter) for who, python in pythons.items()}
    lines = []
    for row in ROWS:
        lines.append(line_of(row, measure(row, workers, repeats, share)))
        sys.stderr.write(f"{lines[-1]}\n")
    for worker in workers.values():
        worker.end()
    text = table(lines, repeats)
    if given.output is not None:
        given.output.write_text(text, encoding="utf-8")
    elif not given.smoke:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
