"""Compare how forwardscope and dlm-sway read the same trace file.

    python benchmarks/traces.py --peer PATH/TO/sway [--lines N] [--repeats N] [--output FILE]

The two commands take turns. Times are wall times of whole processes, as medians of all
repeats; memory is the peak of a process. Both must count the same lookups and hits, or
nothing is written. The peer is `dlm-sway` 0.1.0 in an environment of its own, which
`make bench-traces` creates.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from forwardscope.analysis.curve import curve_of
from forwardscope.analysis.summary import summarize
from forwardscope.trace import TraceReader

_OURS: Final = [sys.executable, "-m", "forwardscope", "trace"]
_PROBES: Final = ("null_baseline", "divergence", "ablation", "collapse")
_VIEWS: Final = ("base", "ft", "scaled_0.25", "scaled_0.5", "null_1", "null_2")
_PROMPTS: Final = 4000


@dataclass(frozen=True, slots=True)
class Ran:
    """Wall time in seconds, peak memory in MiB and output of one process."""

    seconds: float
    mib: float
    output: str


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: two figures, their ratio and the target for it."""

    what: str
    ours: str
    other: str
    ratio: float
    target: float | None

    def text(self) -> str:
        """Return the row in Markdown."""
        target = "–" if self.target is None else f"≤ {self.target:g}"
        return f"| {self.what} | {self.ours} | {self.other} | {self.ratio:.2f} | {target} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all rows, and print the table or write it to a file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--peer", type=Path, required=True, help="the peer's program `sway`")
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, help="a Markdown file; by default it is printed")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        small, large = Path(folder, "small.jsonl"), Path(folder, "large.jsonl")
        write_trace(small, given.lines)
        for _ in range(10):  # repeats lookups, so that only the length grows
            with small.open("rb") as one, large.open("ab") as ten:
                shutil.copyfileobj(one, ten)
        rows = [
            *beside_the_peer(small, [str(given.peer), "trace"], given.repeats),
            *in_memory(small, large),
            *of_the_curve(small, given.repeats),
        ]
    text = table(rows, given.lines, given.repeats)
    if given.output is None:
        sys.stdout.write(text)
    else:
        given.output.write_text(text, encoding="utf-8")


def write_trace(path: Path, lines: int) -> None:
    """Write lookups of a few thousand prompts, some far more frequent than others."""
    rng = random.Random(7)  # noqa: S311 - not for security
    hashes = [f"{rng.getrandbits(48):012x}" for _ in range(_PROMPTS)]
    often = rng.choices(hashes, [1 / (1 + place) for place in range(_PROMPTS)], k=lines)
    seen: set[tuple[str, str]] = set()
    with path.open("w", encoding="ascii") as file:
        for place, prompt in enumerate(often):
            view = rng.choice(_VIEWS)
            hit = (view, prompt) in seen
            seen.add((view, prompt))
            record = {
                "ts": 1.79e9 + place / 1000,
                "probe": rng.choice(_PROBES),
                "view_id": view,
                "prompt_hash": prompt,
                "top_k": 256,
                "op": "next_token_dist",
                "wall_ms": rng.random() * (0.02 if hit else 100),
                "hit": hit,
            }
            file.write(json.dumps(record) + "\n")


def beside_the_peer(trace: Path, peer: list[str], repeats: int) -> list[Row]:
    """Compare time and memory of the summary with the peer's; the commands take turns."""
    commands = {
        "ours": [*_OURS, "summary", str(trace), "--format", "json"],
        "peer": [*peer, str(trace), "--format", "json"],
    }
    ran: dict[str, list[Ran]] = {"ours": [], "peer": []}
    for _ in range(repeats):
        for who, command in commands.items():
            ran[who].append(run(command))
    _check(json.loads(ran["ours"][0].output), json.loads(ran["peer"][0].output))
    ours, theirs = ([one.seconds for one in ran[who]] for who in ("ours", "peer"))
    our_mib, their_mib = (max(one.mib for one in ran[who]) for who in ("ours", "peer"))
    return [
        Row(
            "`trace summary`, time; `sway trace`", _s(ours), _s(theirs), _ratio(ours, theirs), 0.25
        ),
        Row(
            "the same, memory",
            f"{our_mib:.0f} MiB",
            f"{their_mib:.0f} MiB",
            our_mib / their_mib,
            None,
        ),
    ]


def in_memory(small: Path, large: Path) -> list[Row]:
    """Compare the memory of the summary for a file and for one with ten times the lines."""
    one, ten = (run([*_OURS, "summary", str(path)]).mib for path in (large, small))
    what = "`trace summary`, memory at ten times the lines; at one"
    return [Row(what, f"{one:.0f} MiB", f"{ten:.0f} MiB", one / ten, 1.1)]


def of_the_curve(trace: Path, repeats: int) -> list[Row]:
    """Compare the time of the curve, and of the whole command, with that of the summary."""
    summaries, curves, commands = [], [], []
    for _ in range(repeats):
        summaries.append(timed(lambda: summarize(TraceReader(trace))))
        curves.append(timed(lambda: curve_of(TraceReader(trace))))
        commands.append(run([*_OURS, "curve", str(trace)]).seconds)
    return [
        Row("the LRU curve; the summary", _s(curves), _s(summaries), _ratio(curves, summaries), 5),
        Row(
            "`trace curve`, with the optimum at a dozen sizes; the summary",
            _s(commands),
            _s(summaries),
            _ratio(commands, summaries),
            None,
        ),
    ]


def run(command: list[str]) -> Ran:
    """Run a program to its end.

    Raises:
        CalledProcessError: The program failed.
    """
    with tempfile.TemporaryFile("w+") as output:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=output)  # noqa: S603 - fixed arguments
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command)
        output.seek(0)
        return Ran(seconds, usage.ru_maxrss / 1024, output.read())


def timed(call: Callable[[], object]) -> float:
    """Return the duration of a call in seconds."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def table(rows: Sequence[Row], lines: int, repeats: int) -> str:
    """Return the rows in Markdown, with the versions and the machine."""
    about = (
        f"{lines:,} lines, {repeats} repeats in turns, medians (range); forwardscope "
        f"{version('forwardscope')}, dlm-sway 0.1.0, Python {platform.python_version()}, "
        f"{os.cpu_count()} cores of {platform.machine()}. Made by `make bench-traces`."
    )
    head = "| what; beside what | ours | the other | ratio | target |"
    lines_of_text = ["# Reading traces", "", about, "", head, "| --- | --- | --- | ---: | --- |"]
    return "\n".join([*lines_of_text, *(row.text() for row in rows)]) + "\n"


def _check(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    (total,) = ours["total"]
    counted = (total["lookups"], total["hit_rate"])
    expected = (theirs["total_events"], theirs["overall_hit_rate"])
    if counted[0] != expected[0] or abs(counted[1] - expected[1]) > 1e-9:
        raise SystemExit(f"the two do not count the same: {counted} and {expected}")


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    return statistics.median(ours) / statistics.median(theirs)


def _s(times: Sequence[float]) -> str:
    return f"{statistics.median(times):.2f} s ({min(times):.2f}–{max(times):.2f})"


if __name__ == "__main__":
    main()
