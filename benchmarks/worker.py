"""Run the benchmark tasks of one side, one line of JSON at a time.

    python benchmarks/worker.py ours|peer MODEL ADAPTER

Each line of standard input has a task and its size: {"task": "hit", "n": 20000}. Each line
of standard output is an answer, such as nanoseconds per lookup (`ns`) and the values that
the other side must return too (`same`). `lookups.py` and `suite.py` have the tasks of both
sides, `observed.py`, `exported.py` and `stored.py` those that the peer lacks.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import lookups  # these modules are in this folder

import suite

TASKS: dict[str, Callable[[int], dict[str, Any]]] = {
    "hit": lambda n: lookups.hits(lookups.plain(), n),
    "traced": lookups.traced_hits,
    "traced-cpu": lambda n: lookups.traced_hits(n, time.thread_time_ns),
    "fresh": lookups.fresh_hits,
    "miss": lookups.misses,
    "batch": lookups.batch_hits,
    "threads": lookups.threaded_hits,
    "memory": lookups.memory,
    "suite": suite.run,
}


def main() -> None:
    """Run tasks until standard input ends."""
    tasks = dict(TASKS)
    if sys.argv[1] == "ours":
        import exported  # noqa: PLC0415 - not in the peer's
        import observed  # noqa: PLC0415 - not in the peer's
        import stored  # noqa: PLC0415 - not in the peer's

        tasks |= observed.TASKS | exported.TASKS | stored.TASKS
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)  # what libraries print must not mix with the answers
        for line in sys.stdin:
            request = json.loads(line)
            answers.write(json.dumps(tasks[request["task"]](request["n"])) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
