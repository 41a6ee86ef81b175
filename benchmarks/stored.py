"""Measure the store beside plain SELECTs, identities beside loading, and suites with a store."""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np

import suite
from forwardscope.backends.values import TokenDist
from forwardscope.store.base import NewEntry
from forwardscope.store.codec import encode
from forwardscope.store.keys import entry_digest, question_digest
from forwardscope.store.sqlite import SqliteStore

_K: Final = 256
_ENTRIES: Final = 2_000
_BATCH: Final = 64
#: A queue of the store holds so many entries.
_QUEUED: Final = 512
_SELECT: Final = "SELECT content FROM entries WHERE digest = ?"


def _entry(number: int) -> NewEntry:
    logprobs = np.sort(np.random.default_rng(number).normal(-8.0, 2.0, _K))[::-1]
    value = TokenDist(np.arange(_K) + number, logprobs.astype(np.float32), 50_000, -3.0)
    prompt = f"Question {number}"
    digest = entry_digest("an identity", "next_token_dist", prompt, _K)
    question = question_digest("next_token_dist", prompt, _K)
    return NewEntry(digest, question, "an identity", value, run_id="a run")


@cache
def _filled() -> tuple[SqliteStore, sqlite3.Connection, list[bytes]]:
    """Return a store, a plain table with the same bytes under the same keys, and the keys."""
    folder = Path(tempfile.mkdtemp())
    store = SqliteStore(folder / "store.db")
    plain = sqlite3.connect(folder / "plain.db", isolation_level=None)
    plain.execute("PRAGMA journal_mode = WAL")
    plain.execute("CREATE TABLE entries (digest BLOB PRIMARY KEY, content BLOB)")
    entries = [_entry(number) for number in range(_ENTRIES)]
    for start in range(0, _ENTRIES, _QUEUED):
        store.put_many(entries[start : start + _QUEUED])
        if not store.flush(60.0):
            raise ValueError("the store did not take the entries")
    rows = [(one.digest, encode(one.value, one.digest)) for one in entries]
    plain.executemany("INSERT INTO entries VALUES (?, ?)", rows)
    return store, plain, [one.digest for one in entries]


def selects(n: int) -> dict[str, Any]:
    """Measure plain SELECTs of one row each."""
    _, plain, digests = _filled()
    found, start = 0, time.perf_counter_ns()
    for at in range(n):
        wanted = (digests[at % _ENTRIES],)
        found += len(
            plain.execute("SELECT content FROM entries WHERE digest = ?", wanted).fetchall()
        )
    return _checked(start, found, n)


def gets(n: int, size: int = 1) -> dict[str, Any]:
    """Measure gets from the store, `size` entries at a time."""
    store, _, digests = _filled()
    found, start = 0, time.perf_counter_ns()
    for at in range(0, n, size):
        place = at % (_ENTRIES - size)
        found += len(store.get_many(digests[place : place + size]))
    return _checked(start, found, n)


def puts(n: int) -> dict[str, Any]:
    """Measure what putting single entries costs the caller."""
    entries = [_entry(number) for number in range(n)]
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(SqliteStore(Path(folder) / "store.db")) as store,
    ):
        start = time.perf_counter_ns()
        for entry in entries:
            store.put_many([entry])
        spent = (time.perf_counter_ns() - start) / n
        store.flush(60.0)
        if store.stats().dropped:
            raise ValueError("the store dropped entries")
    return {"ns": spent}


def _checked(start: int, found: int, n: int) -> dict[str, Any]:
    spent = time.perf_counter_ns() - start
    if found < n:
        raise ValueError(f"{found} of {n} entries were found")
    return {"ns": spent / n}


def warm_suite(n: int) -> dict[str, Any]:
    """Run the suite with a store that an earlier run of it filled."""
    return _after(n, sys.argv[3])


def next_adapter(n: int) -> dict[str, Any]:
    """Run the suite of an adapter with a store that a run of another one on its base filled."""
    from safetensors.torch import load_file, save_file  # noqa: PLC0415 - slow import

    with tempfile.TemporaryDirectory() as folder:
        other = shutil.copytree(sys.argv[3], Path(folder) / "adapter")
        file = other / "adapter_model.safetensors"
        weights = {name: 0.9 * weight for name, weight in load_file(file).items()}
        save_file(weights, file, metadata={"format": "pt"})
        return _after(n, str(other))


def _after(n: int, first: str) -> dict[str, Any]:
    """Run the suite after one with the adapter `first`, on one store."""
    adapter = sys.argv[3]
    with tempfile.TemporaryDirectory() as folder:
        for sys.argv[3] in (first, adapter):
            with closing(SqliteStore(Path(folder) / "store.db")) as store:
                answer = suite.ours(n, store=store, verify=1 / 64)
    return answer


def identities(_: int) -> dict[str, Any]:
    """Measure loading the model, and all identities of its views, computed and remembered."""
    from forwardscope.backends.hf import ModelSource, load_backend  # noqa: PLC0415 - slow import

    path, adapter = sys.argv[2:]
    source = ModelSource(path, adapter, device="cpu", dtype="float32")
    spent = []
    with _own_cache():
        for _ in range(2):
            start = time.perf_counter_ns()
            backend = load_backend(source)
            loaded = time.perf_counter_ns()
            for view in ("base", "ft", "scaled_2.0", "null_1"):
                backend.view_identity(view)
            spent.append((loaded - start, time.perf_counter_ns() - loaded))
            backend.close()
    (_, computed), (loading, remembered) = spent
    return {"ns": loading, "computed": computed, "remembered": remembered}


@contextmanager
def _own_cache() -> Iterator[None]:
    """Remember digests in a folder of this measurement alone."""
    name = "XDG_CACHE_HOME"
    before = os.environ.get(name)
    with tempfile.TemporaryDirectory() as folder:
        os.environ[name] = folder
        yield
    if before is None:
        del os.environ[name]
    else:
        os.environ[name] = before


TASKS = {
    "select": selects,
    "get": gets,
    "get-batch": lambda n: gets(n, _BATCH),
    "put": puts,
    "warm-suite": warm_suite,
    "next-adapter": next_adapter,
    "identities": identities,
}
