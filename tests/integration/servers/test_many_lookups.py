"""A hundred thousand spans: none is lost without a count, and memory stays where it was."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from forwardscope.telemetry.names import kind_of
from forwardscope.telemetry.span_queue import CAPACITY as HIT_SPANS

from .processes import until
from .receivers import Receiver, receive_http

PROGRAM = Path(__file__).with_name("many_lookups.py")
LOOKUPS, DIFFERENT = 100_000, 1_000
GROWN_MB = 100


def ask(url: str, threads: int, close_s: float) -> dict[str, Any]:
    """Run the program and read what it prints; it has nothing else to say."""
    ran = subprocess.run(
        [sys.executable, str(PROGRAM), url, str(threads), str(close_s)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    return dict(json.loads(ran.stdout))


def assert_bounded(told: dict[str, Any]) -> None:
    """No queue was ever fuller than it may be, and the process did not grow with the lookups."""
    assert told["lookups"] == LOOKUPS
    assert 0 < told["queued"] <= HIT_SPANS
    assert told["grown_mb"] < GROWN_MB


def outcomes(told: dict[str, Any], name: str) -> dict[str, int]:
    """Spans of a kind by what became of them."""
    pairs = ((key.split("/"), n) for key, n in told["spans"].items())
    return {outcome: n for (found, outcome), n in pairs if found == name}


@pytest.mark.parametrize("threads", [1, 4])
def test_each_lookup_is_exported_or_counted(threads: int) -> None:
    """What arrived is what was exported; with what was dropped it is all lookups and passes."""
    with receive_http() as receiver:
        told = ask(receiver.url, threads, close_s=60.0)
        assert_bounded(told)
        sent = sum(n for key, n in told["spans"].items() if key.endswith("/exported"))
        until(lambda: len(receiver.spans()) >= sent, f"{sent} spans arrive")
        arrived = _kinds(receiver)
    lookups = outcomes(told, "lookup")
    assert sum(lookups.values()) == LOOKUPS
    assert set(lookups) <= {"exported", "dropped", "elided"}
    assert arrived["lookup"] == lookups["exported"]
    assert sum(outcomes(told, "forward").values()) == DIFFERENT + 1
    assert arrived["forward"] == outcomes(told, "forward")["exported"]
    assert arrived.total() == sent


def _kinds(receiver: Receiver) -> Counter[str]:
    return Counter(kind_of(one.name) for one in receiver.spans())


def test_a_silent_receiver_costs_no_memory(hanging: str) -> None:
    """Where nothing is taken, all spans are dropped, and the process does not grow."""
    told = ask(f"http://{hanging}", 1, close_s=1.0)
    assert_bounded(told)
    assert outcomes(told, "lookup") == {"dropped": LOOKUPS}
