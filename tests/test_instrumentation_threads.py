"""Lookups of several threads: shared forward passes, exact counts, and no stuck waiter."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

import pytest

from forwardscope import MISS, BackendInstrumentation, TraceEvent, TraceReader
from forwardscope.core.keys import LookupKey, prompt_hash
from forwardscope.core.series import Counts

pytestmark = pytest.mark.timeout(900)

_OP, _VIEW, _TOP_K = "next_token_dist", "base", 8
_PATIENCE_S = 60


def _key(prompt: str = "p") -> LookupKey:
    return (_OP, _VIEW, prompt, _TOP_K)


def _batch(
    backend: BackendInstrumentation, prompts: str, compute: Callable[[list[int]], Any]
) -> list[Any]:
    return backend.cached_batch(_OP, _VIEW, list(prompts), _TOP_K, compute)


def _counts(backend: BackendInstrumentation) -> Counts:
    return sum(backend.ledger.snapshot().series.values(), Counts())


def _batches(backend: BackendInstrumentation) -> tuple[int, int, int]:
    stats = backend.stats
    return stats.batches_sent, stats.batched_prompts, stats.max_batch_size


def _events(backend: BackendInstrumentation) -> list[TraceEvent]:
    assert backend.trace.path is not None
    return list(TraceReader(backend.trace.path))


@pytest.fixture
def backend(tmp_path: Path) -> BackendInstrumentation:
    """Return a backend that traces."""
    return BackendInstrumentation(trace_path=tmp_path / "trace.jsonl")


@pytest.fixture
def crowd(in_thread: Any) -> Callable[[int, Callable[[], Any]], list[Future[Any]]]:
    """Call a function in threads that start at once, and wait until all have ended."""

    def run(size: int, function: Callable[[], Any]) -> list[Future[Any]]:
        start = threading.Barrier(size)
        futures = [in_thread(lambda: (start.wait(_PATIENCE_S), function())[1]) for _ in range(size)]
        for future in futures:
            future.exception(_PATIENCE_S)
        return futures

    return run


@pytest.fixture
def in_flight(in_thread: Any) -> Callable[..., Future[Any]]:
    """Start a lookup in another thread; return when its compute runs.

    The compute calls `meanwhile`, and then returns a value or raises an exception.
    """

    def start(
        backend: BackendInstrumentation, prompts: str, meanwhile: Callable[[], Any], result: Any
    ) -> Future[Any]:
        begun = threading.Event()

        def compute(_: Any = None) -> Any:
            begun.set()
            meanwhile()
            if isinstance(result, BaseException):
                raise result
            return result

        if isinstance(result, list):
            future = in_thread(lambda: _batch(backend, prompts, compute))
        else:
            future = in_thread(lambda: backend.cached(*_key(prompts), compute))
        assert begun.wait(_PATIENCE_S)
        return future

    return start


@pytest.mark.parametrize("enabled", [True, False], ids=["cache on", "cache off"])
def test_threads_share_one_pass(
    crowd: Any, until_waiting: Any, tmp_path: Path, enabled: bool
) -> None:
    """Of 32 threads that miss one key at once, one pays a pass and 31 are coalesced."""
    backend = BackendInstrumentation(trace_path=tmp_path / "trace.jsonl", cache_enabled=enabled)
    value, calls = object(), []

    def compute() -> object:
        calls.append(threading.get_ident())
        until_waiting(backend, _key(), 31)
        return value

    futures = crowd(32, lambda: backend.cached(*_key(), compute))
    assert all(future.result() is value for future in futures)
    assert len(calls) == 1
    counts = _counts(backend)
    assert (counts.hits, counts.coalesced, counts.forward_passes) == (0, 31, 1)
    assert (backend.stats.cache_hits, backend.stats.cache_misses) == (31, 1)
    results = Counter((event.hit, event.result) for event in _events(backend))
    assert results == {(False, None): 1, (True, "coalesced"): 31}


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_one_waiter_computes_after_a_failure(
    crowd: Any, until_waiting: Any, error: BaseException
) -> None:
    """The leader's exception goes to its caller alone; the other waiters wait for the new pass."""
    backend, calls, threads = BackendInstrumentation(), [], 8

    def compute() -> str:
        calls.append(threading.get_ident())
        if len(calls) == 1:
            until_waiting(backend, _key(), threads - 1)
            raise error
        until_waiting(backend, _key(), threads - 2)
        return "value"

    futures = crowd(threads, lambda: backend.cached(*_key(), compute))
    assert [future.exception() for future in futures if future.exception()] == [error]
    values = [future.result() for future in futures if not future.exception()]
    assert values == ["value"] * (threads - 1)
    assert len(calls) == 2
    counts = _counts(backend)
    assert (counts.hits, counts.coalesced, counts.forward_passes) == (0, threads - 2, 1)
    assert counts.errors == Counter({type(error).__name__: 1})


def test_each_leader_gets_its_own_error(crowd: Any, until_waiting: Any) -> None:
    """Where every pass fails, each thread computes once and gets its own exception."""
    backend, raised = BackendInstrumentation(), {}

    def compute() -> None:
        error = raised[threading.get_ident()] = ValueError("no")
        until_waiting(backend, _key(), 8 - len(raised))
        raise error

    def look_up() -> int:
        with pytest.raises(ValueError, match="no") as caught:
            backend.cached(*_key(), compute)
        assert caught.value is raised[threading.get_ident()]
        return threading.get_ident()

    assert sorted(future.result() for future in crowd(8, look_up)) == sorted(raised)
    assert len(raised) == 8
    assert _counts(backend).lookups == _counts(backend).errors["ValueError"] == 8
    assert len(backend.cache) == 0


def test_batch_and_another_at_any_moment(in_thread: Any, at_moment: Any) -> None:
    """Overlapping batches in opposite order compute each prompt once, and never deadlock."""

    def at(moment: int) -> bool:
        backend, computed, other = BackendInstrumentation(), [], []

        def look_up(prompts: str) -> None:
            def compute(indices: list[int]) -> list[str]:
                computed.extend(prompts[index] for index in indices)
                return [prompts[index].upper() for index in indices]

            assert _batch(backend, prompts, compute) == list(prompts.upper())

        def meanwhile() -> None:
            other.append(in_thread(lambda: look_up("cba")))
            wait(other, timeout=0.005)  # longer where it waits for this thread

        came = at_moment(moment, meanwhile, lambda: look_up("abc"))
        for future in other:
            future.result(_PATIENCE_S)
        assert sorted(computed) == list("abc")
        counts, calls = _counts(backend), 1 + came
        assert (counts.forward_passes, counts.lookups) == (3, 3 * calls)
        assert backend.stats.batched_prompts == 3
        return came

    moment = 0
    while at(moment):
        moment += 1
    assert moment > 20


def test_batch_joins_a_pass_in_flight(
    backend: BackendInstrumentation, in_flight: Any, until_waiting: Any
) -> None:
    """It computes what is not in flight, then waits for the rest; records are in order."""
    calls = []

    def compute(indices: list[int]) -> list[str]:
        calls.append(indices)
        return ["A", "C"]

    single = in_flight(backend, "b", lambda: until_waiting(backend, _key("b")), "B")
    assert _batch(backend, "abcb", compute) == list("ABCB")
    assert single.result(_PATIENCE_S) == "B"
    assert calls == [[0, 2]]
    counts = _counts(backend)
    assert (counts.hits, counts.coalesced, counts.forward_passes) == (0, 2, 3)
    assert _batches(backend) == (1, 2, 2)
    assert [(event.prompt_hash, event.result) for event in _events(backend)[1:]] == [
        (prompt_hash("a"), None),
        (prompt_hash("b"), "coalesced"),
        (prompt_hash("c"), None),
        (prompt_hash("b"), "coalesced"),
    ]


@pytest.mark.parametrize("enabled", [True, False], ids=["cache on", "cache off"])
def test_batch_that_only_waits_sends_nothing(
    tmp_path: Path, in_flight: Any, clock: Any, enabled: bool
) -> None:
    """Where all of it is in flight, compute is not called; the wait is the wall time."""
    backend = BackendInstrumentation(
        cache_enabled=enabled, trace_path=tmp_path / "trace.jsonl", clock=clock
    )
    calls: list[list[int]] = []
    waiting = threading.Event()

    def meanwhile() -> None:
        assert waiting.wait(_PATIENCE_S)
        clock.advance_ms(5)

    other = in_flight(backend, "ab", meanwhile, ["A", "B"])
    clock.on_reading = lambda: backend.flights.waiters(_key("b")) and waiting.set()
    assert _batch(backend, "aba", calls.append) == list("ABA")
    assert other.result(_PATIENCE_S) == ["A", "B"]
    assert calls == []
    assert _batches(backend) == (1, 2, 2)
    assert (_counts(backend).coalesced, _counts(backend).forward_passes) == (3, 2)
    waited = [event.wall_ms for event in _events(backend) if event.result == "coalesced"]
    assert waited == [5.0, 0.0, 0.0]


def test_batch_computes_what_others_failed_in_one_more_call(
    backend: BackendInstrumentation, in_flight: Any, until_waiting: Any
) -> None:
    """It computes all of it at once, after what it led itself."""
    calls: list[list[int]] = []

    def compute(indices: list[int]) -> list[str]:
        calls.append(indices)
        return ["xayb"[index].upper() for index in indices]

    def failing(indices: list[int]) -> list[str]:
        raise error

    error = ValueError("no")
    first = in_flight(backend, "x", lambda: until_waiting(backend, _key("x")), error)
    second = in_flight(backend, "y", lambda: until_waiting(backend, _key("y")), error)
    assert _batch(backend, "xayb", compute) == list("XAYB")
    assert first.exception(_PATIENCE_S) is second.exception(_PATIENCE_S) is error
    assert sorted(calls) == [[0, 2], [1, 3]]
    counts = _counts(backend)
    assert (counts.hits, counts.coalesced, counts.forward_passes) == (0, 0, 4)
    assert counts.errors == Counter(ValueError=2)
    assert _batches(backend) == (2, 4, 2)
    answered = [event.prompt_hash for event in _events(backend) if event.error is None]
    assert answered == [prompt_hash(prompt) for prompt in "xayb"]


def test_second_call_of_a_batch_fails(
    backend: BackendInstrumentation, in_flight: Any, until_waiting: Any
) -> None:
    """The prompts of its first call count as passes and stay stored."""

    def compute(indices: list[int]) -> list[str]:
        if indices == [1]:
            return ["A"]
        raise OSError("no")

    other = in_flight(backend, "x", lambda: until_waiting(backend, _key("x")), ValueError("no"))
    with pytest.raises(OSError, match="no"):
        _batch(backend, "xa", compute)
    assert isinstance(other.exception(_PATIENCE_S), ValueError)
    counts = _counts(backend)
    assert (counts.forward_passes, counts.errors) == (1, Counter(ValueError=1, OSError=1))
    assert backend.cached(*_key("a"), lambda: "again") == "A"
    assert len(_events(backend)) == backend.stats.total_lookups == 4


def test_failed_batch_does_not_count_what_it_waits_for(
    backend: BackendInstrumentation, in_flight: Any
) -> None:
    """A prompt that another thread computes when the batch fails is not counted for it."""
    failed = threading.Event()
    single = in_flight(backend, "x", lambda: failed.wait(_PATIENCE_S), "X")
    with pytest.raises(ZeroDivisionError):
        _batch(backend, "axb", lambda indices: 1 // 0)
    failed.set()
    assert single.result(_PATIENCE_S) == "X"
    counts = _counts(backend)
    assert (counts.hits, counts.coalesced, counts.forward_passes) == (0, 0, 1)
    assert counts.errors == Counter(ZeroDivisionError=2)
    assert _batch(backend, "axb", lambda indices: ["A", "B"]) == ["A", "X", "B"]


@pytest.mark.parametrize("same", [True, False], ids=["one backend", "two backends"])
def test_computes_that_look_up_each_others_keys(together: Any, same: bool) -> None:
    """Two passes in flight that each need the other's key compute it a second time."""
    one = BackendInstrumentation()
    two = one if same else BackendInstrumentation()
    outer, inner = threading.Barrier(2), threading.Barrier(2)

    def look_up(me: int) -> str:
        mine, other = (one, two) if me == 0 else (two, one)

        def compute() -> str:
            outer.wait(_PATIENCE_S)
            return "outer and " + other.cached(*_key(f"{1 - me}"), both_inside)

        return mine.cached(*_key(f"{me}"), compute)

    def both_inside() -> str:
        inner.wait(_PATIENCE_S)
        return "inner"

    assert together(2, look_up) == ["outer and inner"] * 2
    backends = {id(backend): backend for backend in (one, two)}.values()
    assert sum(backend.stats.forward_passes for backend in backends) == 4
    assert sum(backend.stats.cache_hits for backend in backends) == 0


def test_batch_inside_a_compute_never_waits(
    backend: BackendInstrumentation, in_flight: Any
) -> None:
    """It computes what another thread has in flight, which may end only after it."""
    ended = threading.Event()
    single = in_flight(backend, "x", lambda: ended.wait(_PATIENCE_S), "slow")
    inner = backend.cached(*_key("outer"), lambda: _batch(backend, "ax", lambda indices: indices))
    ended.set()
    assert (inner, single.result(_PATIENCE_S)) == ([0, 1], "slow")
    assert (_counts(backend).coalesced, _counts(backend).forward_passes) == (0, 4)


@pytest.mark.parametrize("fails", [False, True])
def test_nested_lookup_of_the_same_key_keeps_the_waiters(
    in_thread: Any, until_waiting: Any, fails: bool
) -> None:
    """A lookup inside a compute of its own key does not take the outer pass out of flight."""
    backend, waiters = BackendInstrumentation(cache_enabled=False), []

    def wait_in_thread() -> None:
        waiters.append(in_thread(lambda: backend.cached(*_key(), lambda: "waiter")))
        until_waiting(backend, _key(), len(waiters))

    def inner() -> str:
        if fails:
            raise ValueError("no")
        return "inner"

    def compute() -> str:
        wait_in_thread()
        try:
            backend.cached(*_key(), inner)
        except ValueError:
            assert fails
        wait_in_thread()
        return "outer"

    assert backend.cached(*_key(), compute) == "outer"
    assert [one.result(_PATIENCE_S) for one in waiters] == ["outer", "outer"]
    counts = _counts(backend)
    assert (counts.coalesced, counts.forward_passes, counts.forward_errors) == (2, 2 - fails, fails)


def test_stored_value_is_not_waited_for(in_thread: Any) -> None:
    """A stored value is a hit, though a pass of the same key is in flight."""
    backend, answers = BackendInstrumentation(), []

    def compute() -> str:
        backend.cached(*_key(), lambda: "inner")
        other = in_thread(lambda: backend.cached(*_key(), lambda: "again"))
        answers.append(other.result(_PATIENCE_S))
        return "outer"

    assert backend.cached(*_key(), compute) == "outer"
    assert answers == ["inner"]
    assert (_counts(backend).hits, _counts(backend).forward_passes) == (1, 2)


def test_wall_time_of_a_coalesced_lookup_is_its_wait(
    in_flight: Any, until_waiting: Any, clock: Any, tmp_path: Path
) -> None:
    """The miss has the time of its compute, and the scoring time is the sum."""
    backend = BackendInstrumentation(trace_path=tmp_path / "trace.jsonl", clock=clock)

    def meanwhile() -> None:
        until_waiting(backend, _key())
        clock.advance_ms(5)

    leader = in_flight(backend, "p", meanwhile, None)
    clock.advance_ms(3)
    backend.cached(*_key(), lambda: None)
    leader.result(_PATIENCE_S)
    assert {event.hit: event.wall_ms for event in _events(backend)} == {False: 8, True: 5}
    assert (_counts(backend).scoring_ns, _counts(backend).forward_ns) == (13_000_000, 8_000_000)


@pytest.mark.parametrize("batched", [False, True], ids=["single", "batch"])
def test_pass_in_flight_at_a_clear(
    in_thread: Any, in_flight: Any, until_waiting: Any, batched: bool
) -> None:
    """It stores nothing, but answers its waiters; a lookup after the clear computes anew."""
    backend, cleared = BackendInstrumentation(), threading.Event()
    result = ["old p", "old q"] if batched else "old p"
    leader = in_flight(backend, "pq" if batched else "p", lambda: cleared.wait(_PATIENCE_S), result)
    waiter = in_thread(lambda: backend.cached(*_key(), lambda: "again"))
    until_waiting(backend, _key())
    backend.cache.clear()
    assert _batch(backend, "qr", lambda indices: ["new q", "new r"]) == ["new q", "new r"]
    if not batched:
        assert backend.cached(*_key(), lambda: "new p") == "new p"
    cleared.set()
    assert leader.result(_PATIENCE_S) == result
    assert waiter.result(_PATIENCE_S) == "old p"
    stored = [backend.cache.get(_key(prompt)) for prompt in "pqr"]
    assert stored == [MISS if batched else "new p", "new q", "new r"]
    counts = _counts(backend)
    assert (counts.hits, counts.coalesced, counts.forward_passes) == (0, 1, 4)


@pytest.mark.usefixtures("fast_switching")
def test_clears_among_32_threads(together: Any) -> None:
    """No lookup that begins after a clear gets a value from before it; counts are exact."""
    backend, computed, lock = BackendInstrumentation(), Counter[int](), threading.Lock()
    begun = cleared = 0

    def compute() -> int:
        epoch = begun
        with lock:
            computed[epoch] += 1
        return epoch

    def work(me: int) -> None:
        nonlocal begun, cleared
        for number in range(150):
            if me == 0:
                begun += 1
                backend.cache.clear()
                cleared = begun
            least = cleared
            assert backend.cached(*_key(f"{number % 3}"), compute) >= least

    together(32, work)
    counts = _counts(backend)
    assert (counts.forward_passes, counts.lookups) == (computed.total(), 32 * 150)
    assert computed.keys() >= set(range(1, 151))
    assert len(backend.cache) <= 3


@pytest.mark.parametrize("batched", [False, True], ids=["single", "batch"])
def test_interrupted_waiter(
    backend: BackendInstrumentation,
    in_thread: Any,
    in_flight: Any,
    until_waiting: Any,
    interrupt: Any,
    batched: bool,
) -> None:
    """It is neither counted nor traced; the pass and its other waiter go on."""
    came_out = threading.Event()

    def meanwhile() -> None:
        until_waiting(backend, _key(), 2)
        interrupt(came_out)

    def look_up() -> Any:
        if batched:
            return _batch(backend, "p", lambda indices: ["again"])[0]
        return backend.cached(*_key(), lambda: "again")

    leader = in_flight(backend, "p", meanwhile, "value")
    waiter = in_thread(look_up)
    with pytest.raises(KeyboardInterrupt):
        look_up()
    came_out.set()
    assert leader.result(_PATIENCE_S) == waiter.result(_PATIENCE_S) == "value"
    counts = _counts(backend)
    assert (counts.hits, counts.coalesced, counts.misses) == (0, 1, 1)
    assert backend.stats.total_lookups == backend.trace.records == 2
    assert look_up() == "value"
    assert _counts(backend).hits == 1
