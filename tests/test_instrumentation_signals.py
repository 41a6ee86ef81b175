"""Statistics that a signal handler or a finaliser reads during a lookup of its own thread."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider

from forwardscope import BackendInstrumentation, TraceReader
from forwardscope.core.keys import LookupKey
from forwardscope.core.series import Counts
from forwardscope.telemetry import names

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.no_cover,  # an interrupt in coverage's own code leaves its lock held
]

_OP, _VIEW, _TOP_K = "next_token_dist", "base", 8
_MAXSIZE = 4


def _key(prompt: str) -> LookupKey:
    return (_OP, _VIEW, prompt, _TOP_K)


def _single(backend: BackendInstrumentation, number: int) -> int:
    """Make one lookup, every other one a hit; return how many were made."""
    prompt = str(number // 2)
    assert backend.cached(*_key(prompt), lambda: prompt) == prompt
    return 1


def _batch(backend: BackendInstrumentation, number: int) -> int:
    """Make three lookups; return how many were made."""
    prompts = [str(number // 2), f"{number} of a batch", f"{number} of a batch"]
    values = backend.cached_batch(
        _OP, _VIEW, prompts, _TOP_K, lambda indices: [prompts[index] for index in indices]
    )
    assert values == prompts
    return 3


def _failing(backend: BackendInstrumentation, number: int) -> int:
    """Make one lookup with a compute that fails; return how many were made."""
    with pytest.raises(ZeroDivisionError):
        backend.cached(*_key(f"{number} fails"), lambda: 1 // 0)
    return 1


def _all(backend: BackendInstrumentation, number: int) -> int:
    return sum(make(backend, number) for make in (_single, _batch, _failing))


def _read(backend: BackendInstrumentation) -> int:
    """Read all statistics; return the number of lookups."""
    backend.ledger.snapshot()
    backend.spans.outcomes()
    backend.flights.waiters(_key("0"))
    assert len(backend.cache) <= _MAXSIZE
    assert 0 <= backend.cache.nbytes <= 1 << 20
    stats = backend.stats.to_dict()
    return int(stats["cache_hits"] + stats["cache_misses"])


def _check(backend: BackendInstrumentation, made: int) -> None:
    """Check that every lookup is counted once, traced once and has one span."""
    backend.close()
    total = sum(backend.ledger.snapshot().series.values(), Counts())
    assert total.lookups == backend.stats.total_lookups == made
    assert backend.ledger.snapshot().durations[_OP].count == total.forward_passes
    assert len(backend.cache) + backend.cache.evictions == total.forward_passes
    outcomes = backend.spans.outcomes().items()
    assert sum(n for (kind, _), n in outcomes if kind == names.LOOKUP.kind) == made
    assert backend.trace.path is not None
    assert len(list(TraceReader(backend.trace.path))) == backend.trace.records == made


@pytest.fixture
def make_backend(tmp_path: Path) -> Callable[[], BackendInstrumentation]:
    """Return a factory of backends that bound bytes, trace and have spans."""
    paths = (tmp_path / f"{number}.jsonl" for number in count())
    provider = TracerProvider(shutdown_on_exit=False)
    return lambda: BackendInstrumentation(
        cache_maxsize=_MAXSIZE,
        cache_max_bytes=1 << 20,
        trace_path=next(paths),
        tracer_provider=provider,
        span_budget=100,
    )


@pytest.mark.parametrize("make_lookups", [_single, _batch, _failing])
def test_signal_handler_reads_at_any_moment(
    make_backend: Callable[[], BackendInstrumentation],
    at_moment: Any,
    make_lookups: Callable[[BackendInstrumentation, int], int],
) -> None:
    """It reads each lookup of its own thread as counted once or not yet."""

    def read_at(moment: int) -> bool:
        backend, seen = make_backend(), []
        before = sum(make_lookups(backend, number) for number in range(7))
        came = at_moment(
            moment, lambda: seen.append(_read(backend)), lambda: make_lookups(backend, 8)
        )
        made = before + make_lookups(backend, 9) * 2
        assert all(before <= lookups < made for lookups in seen)
        _check(backend, made)
        return came

    moment = 0
    while read_at(moment):
        moment += 1
    assert moment > 30


def test_signal_handler_reads_while_its_thread_reads(
    make_backend: Callable[[], BackendInstrumentation], at_moment: Any
) -> None:
    """Both read the same numbers, and neither waits for the other."""
    backend, moment, seen = make_backend(), 0, set()
    made = sum(_all(backend, number) for number in range(8))
    while at_moment(moment, lambda: seen.add(_read(backend)), lambda: _read(backend)):
        moment += 1
    assert moment > 10
    assert seen == {made}
    _check(backend, made)


class _Reading:
    """Reads statistics when it is finalised. It is in a cycle, so the collector finds it."""

    def __init__(self, backend: BackendInstrumentation, seen: list[int]) -> None:
        self._itself, self._backend, self._seen = self, backend, seen

    def __del__(self) -> None:
        self._seen.append(_read(self._backend))


@pytest.fixture
def eager_collector() -> Iterator[None]:
    """Run the garbage collector as often as possible."""
    before = gc.get_threshold()
    gc.set_threshold(1)
    yield
    gc.set_threshold(*before)


@pytest.mark.usefixtures("eager_collector")
@pytest.mark.parametrize("threads", [1, 8])
def test_finaliser_reads(
    make_backend: Callable[[], BackendInstrumentation], together: Any, threads: int
) -> None:
    """It runs wherever the collector does; no lookup is counted twice or waits forever."""
    backend, seen = make_backend(), []

    def work(me: int) -> int:
        made = 0
        for number in range(10):
            _Reading(backend, seen)
            made += _all(backend, me * 1000 + number)
        return made

    made = sum(together(threads, work))
    gc.collect()
    assert len(seen) == threads * 10
    assert max(seen) <= made
    _check(backend, made)


def test_finaliser_of_an_evicted_value_reads(
    make_backend: Callable[[], BackendInstrumentation], together: Any
) -> None:
    """A value that an eviction releases may read the statistics of its own backend."""
    backend, seen = make_backend(), []

    class Value:
        def __del__(self) -> None:
            seen.append(_read(backend))

    def work(me: int) -> int:
        return sum(
            type(backend.cached(*_key(f"{me} {number}"), Value)) is Value for number in range(50)
        )

    made = sum(together(8, work))
    assert len(seen) == made - len(backend.cache)
    _check(backend, made)
