"""Sweeps whose workers share a Redis server: what is paid, and what is lost with it."""

from __future__ import annotations

import os
import signal
import sys
from importlib.util import find_spec

import pytest

from ...store import redis_server
from .processes import until
from .sweeps import ADAPTERS, Running

pytestmark = [
    pytest.mark.skipif(find_spec("ray") is None, reason="needs the extra ray"),
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]


def test_each_question_is_computed_once(running: Running) -> None:
    """Two workers that start at once pay together what one pays alone."""
    running.start("--verify", 0)
    assert running.process.wait(120) in (0, 1), running.said
    alone = running.result["passes"]
    with redis_server.running() as port:
        store = f"redis://127.0.0.1:{port}"
        running.start("--workers", 2, "--fresh", "--store", store, "--verify", 0)
        assert running.process.wait(120) in (0, 1), running.said
    together = running.result["passes"]
    assert len({row["worker"] for row in running.result["rows"]}) == 2
    assert together["forward_passes"] == alone["forward_passes"]
    assert together["demand"] == alone["demand"]
    assert running.result["events"] == []


def test_a_killed_worker_and_a_killed_server(running: Running) -> None:
    """No finished adapter is lost, all are measured, and the report names both."""
    port = redis_server.free_port()
    server = redis_server.start(port)
    running.start("--workers", 2, "--store", f"redis://127.0.0.1:{port}")
    try:
        running.wait_for_finished(1)
        finished = running.said
        os.kill(running.workers()[0], signal.SIGKILL)
    finally:
        redis_server.stop(server)
    assert running.process.wait(120) in (0, 1), running.said
    rows = {row["label"]: row for row in running.result["rows"]}
    assert [row["status"] for row in rows.values()] == ["finished"] * ADAPTERS
    assert finished in running.said
    events = "\n".join(running.result["events"])
    assert "was lost: its process was killed, or crashed while it measured" in events
    assert "store" in events
    until(lambda: not running.others(), "all processes have ended")
