"""Another process that writes into a store."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from forwardscope.store.base import Store

from .entries import WAIT_S

_WRITER = """
import sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
from entries import new, put, text_of, value_of
from forwardscope.store.sqlite import SqliteStore

store = SqliteStore(Path(sys.argv[2]))
print("ready", flush=True)
number = 0
while number < 100_000 and not Path(sys.argv[2] + ".stop").exists():
    prompt = f"written-{number}"
    put(store, new(prompt, text_of(prompt), "writer"))
    assert value_of(store, "kept") in (None, "value")
    number += 1
print(number, sum(store.stats().errors.values()), store.stats().corrupt, flush=True)
"""


class Writer:
    """Another process that puts entries of the identity `writer`, one after the other."""

    def __init__(self, path: Path) -> None:
        self._stop = Path(f"{path}.stop")
        arguments = [sys.executable, "-c", _WRITER, str(Path(__file__).parent), str(path)]
        self._process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def end(self) -> tuple[int, int, int]:
        """Return the numbers of entries, of errors and of damaged values."""
        self._stop.touch()
        written, errors, corrupt = self._process.communicate()[0].split()
        return int(written), int(errors), int(corrupt)


def wait_for_entries(store: Store, number: int) -> None:
    """Wait until a store has so many entries."""
    due = time.monotonic() + WAIT_S
    while store.stats().entries < number:
        assert time.monotonic() < due
        time.sleep(0.01)
