"""Several processes share a file, and a killed one has lost nothing that it answered."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from forwardscope import TraceReader

pytestmark = pytest.mark.timeout(300)

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
    """Three of them append at once: every line is whole, and none is missing or double."""
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
        output, _ = process.communicate(timeout=240)
        assert (output, process.returncode) == (f"{records} 0\n", 0)
    reader = TraceReader(path)
    seen = Counter((event.view_id, event.ts) for event in reader)
    assert reader.skipped == 0
    assert seen == Counter((f"view_{me}", float(n)) for me in range(3) for n in range(records))


@pytest.mark.parametrize("at_least", [1, 500, 5_000])
def test_killed_process_has_lost_no_answered_lookup(tmp_path: Path, at_least: int) -> None:
    """What it had answered when SIGKILL came is in the file; at most one line is torn.

    The call that it was in has one record, or up to twenty; it may be there in part.
    """
    path = tmp_path / "trace.jsonl"
    with _start(_ANSWER, path) as process:
        assert process.stdout is not None
        answered = 0
        while answered < at_least:
            answered = int(process.stdout.readline())
        process.kill()
        told = [line for line in process.stdout if line.endswith("\n")]
    answered = int(told[-1]) if told else answered
    reader = TraceReader(path)
    records = len(list(reader))
    assert reader.skipped <= 1
    assert answered <= records <= answered + 20
