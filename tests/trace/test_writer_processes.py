"""Processes that share a file, forked children, and a killed process."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from forwardscope import TraceEvent, TraceReader, TraceWriter

pytestmark = pytest.mark.timeout(900)

_APPEND = """
import sys
from forwardscope import TraceEvent, TraceWriter

path, me, records = sys.argv[1], sys.argv[2], int(sys.argv[3])
writer = TraceWriter(path)
print("ready", flush=True)
sys.stdin.readline()
for number in range(0, records, 10):
    events = [
        TraceEvent(float(n), "p" * (n % 300), me, "aaf4c61ddcc5", 8, "op", 1.0, False)
        for n in range(number, number + 10)
    ]
    for event in events[:5]:
        writer.write(event)
    writer.write_batch(events[5:])
writer.close()
print(writer.records, writer.write_errors, flush=True)
"""

_ANSWER = """
import itertools, os, sys
from forwardscope import BackendInstrumentation

backend = BackendInstrumentation(trace_path=sys.argv[1])
answered = 0
for number in itertools.count():
    if number % 3:
        backend.cached("op", "base", str(number % 7), 8, lambda: number)
        answered += 1
    else:
        prompts = [str(number + offset) for offset in range(20)]
        backend.cached_batch("op", "base", prompts, 8, lambda indices: indices)
        answered += 20
    os.write(1, b"%d\\n" % answered)
"""


def _start(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_processes_share_a_file(tmp_path: Path) -> None:
    """Three processes append at once; every line is complete, and none is missing or repeated."""
    path, records = tmp_path / "trace.jsonl", 3000
    writers = [_start(_APPEND, path, f"view_{me}", records) for me in range(3)]
    for process in writers:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in writers:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in writers:
        output, _ = process.communicate(timeout=800)
        assert (output, process.returncode) == (f"{records} 0\n", 0)
    reader = TraceReader(path)
    seen = Counter((event.view_id, event.ts) for event in reader)
    assert reader.skipped == 0
    assert seen == Counter((f"view_{me}", float(n)) for me in range(3) for n in range(records))


@pytest.mark.no_cover  # a child hangs where another thread holds the lock of coverage's data
@pytest.mark.usefixtures("fast_switching")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_children_of_a_writing_process(
    tmp_path: Path,
    in_thread: Any,
    in_child: Any,
) -> None:
    """A child that is forked while threads write does not wait for them."""
    writer, ended = TraceWriter(tmp_path / "trace.jsonl"), threading.Event()

    def event(view: str) -> TraceEvent:
        return TraceEvent(1.0, None, view, "aaf4c61ddcc5", 8, "op", 1.0, False)

    def write() -> int:
        written = 0
        while not ended.is_set():
            writer.write_batch([event("parent")] * 20)
            written += 20
        return written

    threads = [in_thread(write) for _ in range(4)]
    try:
        for _ in range(20):
            in_child(lambda: writer.write(event("child")))
    finally:
        ended.set()
    written = sum(thread.result(60) for thread in threads)
    writer.close()
    reader = TraceReader(tmp_path / "trace.jsonl")
    assert Counter(one.view_id for one in reader) == {"parent": written, "child": 20}
    assert reader.skipped == 0


@pytest.mark.parametrize("at_least", [1, 500, 5_000])
def test_killed_process_loses_no_answered_lookup(tmp_path: Path, at_least: int) -> None:
    """All lookups answered before SIGKILL are in the file, and at most one line is torn.

    The last call, with up to twenty records, may be there in part.
    """
    path = tmp_path / "trace.jsonl"
    with _start(_ANSWER, path) as process:
        assert process.stdout is not None
        answered = 0
        while answered < at_least:
            answered = int(process.stdout.readline())
        process.kill()
        later = [line for line in process.stdout if line.endswith("\n")]
    answered = int(later[-1]) if later else answered
    reader = TraceReader(path)
    records = len(list(reader))
    assert reader.skipped <= 1
    assert answered <= records <= answered + 20
