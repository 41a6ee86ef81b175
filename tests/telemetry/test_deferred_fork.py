"""A process that forks: its child has the queue of spans, but not the thread that empties it."""

from __future__ import annotations

import subprocess
import sys

_SCRIPT = """
import os, signal, sys, threading, warnings
from forwardscope.telemetry import deferred

warnings.simplefilter("ignore")  # Python warns of any fork beside threads
deferred._LINGER_S = 3600.0
made = threading.Event()
spans = deferred.DeferredSpans(lambda lookup: made.set(), lambda: None)
lookup = (("op", "view", "hash", 0), "hit", 1, 2, None)
spans.offer(lookup)

def fork():
    child = os.fork()
    if child == 0:
        signal.alarm(3)  # ends a child that hangs
        if sys.argv[1] == "offer":
            os._exit(0 if spans.offer(lookup) else 7)
        if spans._changed._is_owned():
            spans._changed.release()
        spans.offer(lookup)
        spans.nudge()
        os._exit(0 if made.wait(2.0) else 7)
    return child

if sys.argv[1] == "offer":
    taken, over = threading.Event(), threading.Event()

    def hold():  # as the thread that makes spans does, for a moment
        with spans._changed:
            taken.set()
            over.wait(60.0)

    threading.Thread(target=hold, daemon=True).start()
    assert taken.wait(60.0)
    child = fork()
    over.set()
else:  # so that the child does not find the lock taken by a thread that it lacks
    with spans._changed:
        child = fork()
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def _forked(what: str) -> int:
    command = [sys.executable, "-c", _SCRIPT, what]
    done = subprocess.run(command, timeout=60, check=False, capture_output=True, text=True)
    if done.stderr:  # the script's own mistake is not what is expected to fail
        raise RuntimeError(done.stderr)
    return done.returncode


def test_a_lookup_in_a_forked_child_does_not_hang() -> None:
    """Whatever the thread was doing when the process forked, the child's lookups go on."""
    assert _forked("offer") == 0


def test_a_forked_child_makes_spans_of_its_own() -> None:
    """With lookups queued at the fork the child, which has no thread, starts one all the same."""
    assert _forked("make") == 0
