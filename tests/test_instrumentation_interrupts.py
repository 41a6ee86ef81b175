"""KeyboardInterrupt at any moment of a lookup: no lock stays held, and no waiter is stuck."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from forwardscope import MISS, BackendInstrumentation, TraceReader
from forwardscope.core.cache import size_of, size_of_strings
from forwardscope.core.keys import LookupKey, prompt_hash
from forwardscope.core.series import Counts
from forwardscope.telemetry import names

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.no_cover,  # an interrupt in coverage's own code leaves its lock held
]

#: An interrupt may come in a finaliser, where Python ignores exceptions with a warning.
_ignored_in_finalisers = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)

_OP, _VIEW, _TOP_K = "next_token_dist", "base", 8
_PATIENCE_S = 60
_MAXSIZE = 4
#: Of three entries of this module, each a prompt and its value of one or two letters.
_MAX_BYTES = 250


def _key(prompt: str) -> LookupKey:
    return (_OP, _VIEW, prompt, _TOP_K)


def _interrupt() -> None:
    raise KeyboardInterrupt


class _Lookups:
    """Lookups of the main thread; another thread waits for each pass of `p` that it leads."""

    def __init__(self, backend: BackendInstrumentation, in_thread: Any, until_waiting: Any) -> None:
        self.backend = backend
        self.waiters: list[Future[str]] = []
        self._in_thread = in_thread
        self._until_waiting = until_waiting

    def single(self, prompt: str = "p") -> str:
        return self.backend.cached(*_key(prompt), lambda: self._compute([prompt])[0])

    def batch(self) -> list[str]:
        prompts = ["p", "a", "p2", "p"]

        def compute(indices: list[int]) -> list[str]:
            return self._compute([prompts[index] for index in indices])

        return self.backend.cached_batch(_OP, _VIEW, prompts, _TOP_K, compute)

    def nested(self) -> str:
        def compute() -> str:
            self._wait_for_a_waiter()
            return self.backend.cached(*_key("p"), lambda: "P")

        return self.backend.cached(*_key("p"), compute)

    def failing(self) -> None:
        with contextlib.suppress(ZeroDivisionError):
            self.backend.cached(*_key("p"), self._fail)

    def failing_batch(self) -> None:
        with contextlib.suppress(ZeroDivisionError):
            self.backend.cached_batch(_OP, _VIEW, ["p", "a"], _TOP_K, self._fail)

    def _fail(self, _: object = None) -> Any:
        self._wait_for_a_waiter()
        raise ZeroDivisionError

    def _compute(self, prompts: list[str]) -> list[str]:
        if "p" in prompts:
            self._wait_for_a_waiter()
        return [prompt.upper() for prompt in prompts]

    def _wait_for_a_waiter(self) -> None:
        profile = sys.getprofile()
        sys.setprofile(None)  # no interrupt in here: the moments should be those of the lookup
        self.waiters.append(self._in_thread(lambda: self.backend.cached(*_key("p"), lambda: "P")))
        self._until_waiting(self.backend, _key("p"))
        sys.setprofile(profile)


class _Case(NamedTuple):
    """A call to interrupt, whether its keys are stored before, and its number of lookups."""

    look_up: Callable[[_Lookups], object]
    stored: bool
    lookups: int


CASES = {
    "hit": _Case(_Lookups.single, True, 1),
    "miss": _Case(_Lookups.single, False, 1),
    "batch of hits": _Case(_Lookups.batch, True, 4),
    "batch with misses": _Case(_Lookups.batch, False, 4),
    "nested": _Case(_Lookups.nested, False, 2),
    "failing": _Case(_Lookups.failing, False, 1),
    "failing batch": _Case(_Lookups.failing_batch, False, 2),
}


class _Backends(NamedTuple):
    """A factory of backends, and the exporter of their spans."""

    make: Callable[[], BackendInstrumentation]
    spans: InMemorySpanExporter


@pytest.fixture(params=["plain", "bytes, trace and spans"])
def backends(request: pytest.FixtureRequest, tmp_path: Path) -> _Backends:
    """Return a factory of backends without telemetry and byte bound, or with all of it."""
    spans, number = InMemorySpanExporter(), iter(range(10_000))
    settings: dict[str, Any] = {"cache_maxsize": _MAXSIZE, "span_budget": None}
    if "bytes" in request.param:
        settings["cache_max_bytes"] = _MAX_BYTES
    if "spans" in request.param:
        settings["tracer_provider"] = TracerProvider(shutdown_on_exit=False)
        settings["tracer_provider"].add_span_processor(SimpleSpanProcessor(spans))

    def make() -> BackendInstrumentation:
        if "trace" in request.param:
            settings["trace_path"] = tmp_path / f"{next(number)}.jsonl"
        return BackendInstrumentation(**settings)

    return _Backends(make, spans)


@_ignored_in_finalisers
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_interrupt_at_any_moment(
    backends: _Backends,
    case: _Case,
    at_moment: Any,
    in_thread: Any,
    until_waiting: Any,
) -> None:
    """All other lookups are answered and counted, both bounds hold, and no span stays current."""

    def interrupt_at(moment: int) -> bool:
        backends.spans.clear()
        backend = backends.make()
        lookups = _Lookups(backend, in_thread, until_waiting)
        for prompt in "abcd":
            lookups.single(prompt)
        if case.stored:
            case.look_up(lookups)
            assert [waiter.result(_PATIENCE_S) for waiter in lookups.waiters] == ["P"]
            lookups.waiters.clear()
        counted, evictions = backend.stats.total_lookups, backend.cache.evictions

        came = at_moment(moment, _interrupt, lambda: case.look_up(lookups))

        _check_cache(backend)
        assert backend.cache.evictions >= evictions
        assert trace.get_current_span() is trace.INVALID_SPAN
        others = [
            *lookups.waiters,
            in_thread(lambda: backend.cached(*_key("p"), lambda: "P")),
            in_thread(lambda: backend.cached(*_key("other"), lambda: "P")),
        ]
        assert [other.result(_PATIENCE_S) for other in others] == ["P"] * len(others)
        later = [backend.cached(*_key("later"), lambda: "L") for _ in range(2)]
        later += backend.cached_batch(_OP, _VIEW, ["later 2"], _TOP_K, lambda _: ["L"])
        assert later == ["L", "L", "L"]
        _check_cache(backend)
        backend.close()
        counted += len(others) + len(later)
        least = counted if came else counted + case.lookups
        _check_counts(backend, least, counted + case.lookups)
        if backend.spans.used:
            _check_spans(backends.spans, least, counted + case.lookups)
        return came

    moment = 0
    while interrupt_at(moment):
        moment += 1
    assert moment > 10


def _check_cache(backend: BackendInstrumentation) -> None:
    """Check that both bounds hold and that the bytes are those of the entries."""
    cache = backend.cache
    with cache.lock:  # a waiter may store at any moment
        prompts = ["a", "b", "c", "d", "p", "p2", "other", "later", "later 2"]
        values = {key: cache.get(key) for key in map(_key, prompts)}
        stored = {key: value for key, value in values.items() if value is not MISS}
        assert len(stored) == len(cache) <= _MAXSIZE
        assert cache.nbytes == sum(size_of(stored[key]) + size_of_strings(key) for key in stored)
        assert cache.max_bytes is None or cache.nbytes <= cache.max_bytes


def _check_counts(backend: BackendInstrumentation, least: int, most: int) -> None:
    """Check that at most the interrupted lookups are missing in counts and records."""
    stats, snapshot = backend.stats, backend.ledger.snapshot()
    total = sum(snapshot.series.values(), Counts())
    assert least <= stats.total_lookups <= most
    assert stats.cache_misses == total.forward_passes + total.forward_errors
    assert 0 <= total.forward_passes - snapshot.durations[_OP].count <= most - least
    if backend.trace.path is not None:
        reader = TraceReader(backend.trace.path)
        assert least <= len(list(reader)) <= most
        assert reader.skipped == 0


def _check_spans(spans: InMemorySpanExporter, least: int, most: int) -> None:
    """Check that at most the interrupted lookups have no span, and that later spans are roots."""
    ended = spans.get_finished_spans()
    lookups = [span for span in ended if names.kind_of(span.name) == "lookup"]
    assert least <= len(lookups) <= most
    batches = {one.context.span_id: one for one in ended if one.name == names.BATCH.name}
    later = Counter[str]()
    for span in lookups:
        digest = span.attributes[names.PROMPT_HASH.name]
        if digest in (prompt_hash("later"), prompt_hash("later 2")):
            later[digest] += 1
            top = span if span.parent is None else batches[span.parent.span_id]
            assert top.parent is None
    assert later == {prompt_hash("later"): 2, prompt_hash("later 2"): 1}


@pytest.fixture
def interrupted() -> Iterator[Callable[[Callable[[], object]], bool]]:
    """Call a function while SIGINT is sent repeatedly; return whether it was interrupted."""
    armed, ended, main = [False], threading.Event(), threading.get_ident()

    def handler(*_: object) -> None:
        if armed[0]:
            armed[0] = False
            raise KeyboardInterrupt

    def send() -> None:
        while not ended.wait(0.0003):
            signal.pthread_kill(main, signal.SIGINT)

    def call(function: Callable[[], object]) -> bool:
        try:
            try:
                armed[0] = True
                function()
            finally:
                armed[0] = False
        except KeyboardInterrupt:
            return True
        return False

    before = signal.signal(signal.SIGINT, handler)
    sender = threading.Thread(target=send)
    sender.start()
    yield call
    ended.set()
    sender.join()
    signal.signal(signal.SIGINT, before)


@_ignored_in_finalisers
@pytest.mark.usefixtures("fast_switching")
def test_signals_beside_lookups_of_other_threads(
    backends: _Backends, interrupted: Callable[[Callable[[], object]], bool], in_thread: Any
) -> None:
    """Signals that interrupt one thread lose no lookup of another; bounds hold."""
    backend, stop, came, tried = backends.make(), threading.Event(), 0, 0

    def work(me: int) -> int:
        made = 0
        while not stop.is_set():
            prompts = [str(made % 7), str((made + me) % 11)]
            values = backend.cached_batch(
                _OP, _VIEW, prompts, _TOP_K, partial(map, prompts.__getitem__)
            )
            assert values == prompts
            made += 2
        return made

    workers = [in_thread(lambda me=me: work(me)) for me in range(4)]  # type: ignore[misc]
    while came < 100 and tried < 100_000:
        tried += 1
        key = _key(str(tried % 13))
        came += interrupted(lambda key=key: backend.cached(*key, lambda: key[2]))  # type: ignore[misc]
        assert len(backend.cache) <= _MAXSIZE
        assert backend.cache.max_bytes is None or backend.cache.nbytes <= _MAX_BYTES
        assert trace.get_current_span() is trace.INVALID_SPAN
    stop.set()
    made = sum(worker.result(_PATIENCE_S) for worker in workers)
    backend.close()
    assert came == 100
    assert made + tried - came <= backend.stats.total_lookups <= made + tried
    if backend.trace.path is not None:
        reader = TraceReader(backend.trace.path)
        assert made + tried - came <= len(list(reader)) <= made + tried
        assert reader.skipped == 0
