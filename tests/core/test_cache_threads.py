"""ForwardCache under threads, signals and interrupts."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pytest

from forwardscope import MISS, ForwardCache

Together = Callable[[int, Callable[[int], Any]], list[Any]]
AtMoment = Callable[[int, Callable[[], None], Callable[[], Any]], bool]
InThread = Callable[[Callable[[], Any]], "Future[Any]"]

pytestmark = pytest.mark.timeout(120)
_THREADS = 32


@dataclass(frozen=True)
class _Key:
    """A key whose hash and equality are functions of Python, in which threads can switch."""

    number: int


KEYS: dict[str, Callable[[int], Any]] = {"integers": int, "objects": _Key}
each_key = pytest.mark.parametrize("make_key", KEYS.values(), ids=KEYS)
each_bound = pytest.mark.parametrize(("maxsize", "max_bytes"), [(16, None), (16, 60), (100, 60)])


def _kept(cache: ForwardCache, keys: list[Any]) -> list[int]:
    return [value for value in map(cache.get, keys) if value is not MISS]


@each_key
@each_bound
@pytest.mark.usefixtures("fast_switching")
def test_threads_that_put_get_and_clear(
    together: Together, make_key: Callable[[int], Any], maxsize: int, max_bytes: int | None
) -> None:
    """Bounds hold at any moment; at the end bytes, evictions and entries add up exactly."""
    each = 60
    cache = ForwardCache(maxsize, max_bytes=max_bytes, sizeof=int)
    keys = [make_key(number) for number in range(_THREADS * each)]
    cleared: list[int] = []

    def work(me: int) -> int:
        over = 0
        for step in range(each):
            number = me * each + step
            cache.put(keys[number], 1 + number % 9)
            cache.get(keys[(number * 7) % len(keys)])
            over += len(cache) > maxsize
            over += max_bytes is not None and cache.nbytes > max_bytes
            if number % 41 == 0:
                with cache.lock:
                    cleared.append(len(cache))
                    cache.clear()
        return over

    assert sum(together(_THREADS, work)) == 0
    kept = _kept(cache, keys)
    assert (len(cache), cache.nbytes) == (len(kept), sum(kept))
    assert len(keys) == len(cache) + cache.evictions + sum(cleared)
    assert cache.rejections == 0
    assert cache.generation == len(cleared)


@each_key
@pytest.mark.parametrize("max_bytes", [None, 1 << 20])
@pytest.mark.parametrize("maxsize", [1, 3, 16])
@pytest.mark.usefixtures("fast_switching")
def test_threads_fill_a_cache_to_its_bound(
    together: Together, make_key: Callable[[int], Any], maxsize: int, max_bytes: int | None
) -> None:
    """In any order, as many entries as there is room for stay, and no more are evicted."""
    threads, puts = 8, 5
    for _ in range(20):
        cache = ForwardCache(maxsize, max_bytes=max_bytes)

        def work(me: int, cache: ForwardCache = cache) -> None:
            for number in range(puts):
                cache.put(make_key(me * puts + number), number)

        together(threads, work)
        assert (len(cache), cache.evictions) == (maxsize, threads * puts - maxsize)


@each_key
@pytest.mark.usefixtures("fast_switching")
def test_threads_that_replace_and_reject(
    together: Together, make_key: Callable[[int], Any]
) -> None:
    """Threads that put the same few keys leave one entry of each, and count each rejection."""
    each, keys = 100, [make_key(number) for number in range(5)]
    cache = ForwardCache(16, max_bytes=50, sizeof=int)

    def work(me: int) -> None:
        for step in range(each):
            cache.put(keys[(me + step) % 5], 51 if step % 10 == 0 else 1 + (me + step) % 9)

    together(_THREADS, work)
    kept = _kept(cache, keys)
    assert (len(cache), cache.nbytes) == (len(kept), sum(kept))
    assert (cache.rejections, cache.evictions) == (_THREADS * each // 10, 0)


@each_key
@pytest.mark.usefixtures("fast_switching")
def test_threads_that_look_up_what_others_remove(
    together: Together, make_key: Callable[[int], Any]
) -> None:
    """While entries are evicted and cleared, those that are found have their own values."""
    cache, keys = ForwardCache(8), [make_key(number) for number in range(12)]

    def work(me: int) -> None:
        for step in range(100):
            number = (me + step) % 12
            cache.put(keys[number], keys[number])
            assert cache.get(keys[number - 1]) in (keys[number - 1], MISS)
            found = cache.find_all(keys)
            assert all(entry.value == key for key, entry in found.items())
            assert len(found) <= 8
            if step % 50 == 0:
                cache.clear()

    together(8, work)


class _Loud:
    """A key that calls a function whenever it is hashed, so also while the cache looks it up."""

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function

    def __hash__(self) -> int:
        self._function()
        return 7


OPERATIONS: dict[str, Callable[[ForwardCache], object]] = {
    "put": lambda cache: cache.put(9, 3),
    "put and evict for entries": lambda cache: (cache.put(8, 1), cache.put(9, 1)),
    "put and evict for bytes": lambda cache: cache.put(9, 25),
    "replace": lambda cache: cache.put(1, 9),
    "reject": lambda cache: cache.put(1, 31),
    "get": lambda cache: cache.get(0),
    "find several": lambda cache: cache.find_all([0, 1]),
    "clear": lambda cache: cache.clear(),
    "nbytes": lambda cache: cache.nbytes,
}
each_operation = pytest.mark.parametrize("operate", OPERATIONS.values(), ids=OPERATIONS)


@each_operation
def test_other_threads_wait_for_a_change(
    in_thread: InThread, operate: Callable[[ForwardCache], object]
) -> None:
    """Nothing reads or changes the cache while another thread is within a change of it."""
    cache, inside, go_on = ForwardCache(3), threading.Event(), threading.Event()

    def pause() -> None:
        inside.set()
        assert go_on.wait(30)

    cache.put(1, 3)
    putting = in_thread(lambda: cache.put(_Loud(pause), 4))
    assert inside.wait(30)
    operating = in_thread(lambda: operate(cache))
    with pytest.raises(TimeoutError):
        operating.result(timeout=0.05)
    go_on.set()
    putting.result(timeout=30)
    operating.result(timeout=30)


@contextmanager
def _handled(handler: Callable[[], object]) -> Iterator[None]:
    before = signal.signal(signal.SIGUSR1, lambda *_: handler())
    yield
    signal.signal(signal.SIGUSR1, before)


def test_signal_handler_reads_within_a_change() -> None:
    """A handler that runs while its own thread holds the lock reads the cache."""
    cache, seen = ForwardCache(2, max_bytes=9, sizeof=int), []
    for key in (1, 2):
        cache.put(key, 3)
    with _handled(lambda: seen.append((len(cache), cache.nbytes, cache.evictions))):
        loud = _Loud(lambda: signal.raise_signal(signal.SIGUSR1))
        cache.put(loud, 4)
        assert seen[0] == (2, 6, 0)
        assert seen[-1] == (1, 3, 1)
        cache.get(loud)
        assert seen[-1] == (2, 7, 1)


def test_signal_handler_reads_at_any_moment(at_moment: AtMoment) -> None:
    """At each moment of a put, entries, bytes and evictions belong together."""
    moment, came, states = 0, True, set()
    while came:
        cache = ForwardCache(3, max_bytes=30, sizeof=int)
        for key in range(3):
            cache.put(key, 9)

        def read(cache: ForwardCache = cache) -> None:
            states.add((len(cache), cache.nbytes, cache.evictions))

        came = at_moment(moment, read, lambda cache=cache: cache.put(3, 13))  # type: ignore[misc]
        read()
        moment += 1
    before, after = (3, 27, 0), (2, 22, 2)
    assert {before, after} <= states
    assert states <= {before, (2, 18, 0), (2, 18, 1), (1, 9, 1), (1, 9, 2), after}


def test_signal_handler_reads_on_a_timer(
    on_timer: Callable[[Callable[[], None]], None],
) -> None:
    """While the main thread puts, the numbers keep the bounds, and are right at the end."""
    cache, seen, puts = ForwardCache(8, max_bytes=50, sizeof=int), [], 0
    on_timer(
        lambda: seen.append((len(cache), cache.nbytes, cache.evictions + cache.rejections, puts))
    )
    while len(seen) < 50:
        cache.put(puts, 51 if puts % 7 == 0 else puts % 9)
        puts += 1
    assert all(n <= 8 and nbytes <= 50 for n, nbytes, _, _ in seen)
    assert all(n + removed <= began + 1 for n, _, removed, began in seen)
    kept = _kept(cache, list(range(puts)))
    assert (len(cache), cache.nbytes) == (len(kept), sum(kept))
    assert puts == len(cache) + cache.evictions + cache.rejections


def _interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("max_bytes", [None, 30])
@each_operation
def test_interrupt_at_any_moment(
    at_moment: AtMoment,
    in_thread: InThread,
    operate: Callable[[ForwardCache], object],
    max_bytes: int | None,
) -> None:
    """Bounds hold, bytes are those of the entries, no lock stays held, and the next put works."""
    moment, came = 0, True
    while came:
        cache = ForwardCache(3, max_bytes=max_bytes, sizeof=int)
        for key in range(3):
            cache.put(key, 7)
        came = at_moment(moment, _interrupt, lambda cache=cache: operate(cache))  # type: ignore[misc]
        _check(cache)
        in_thread(lambda cache=cache: cache.put(10, 5)).result(timeout=30)  # type: ignore[misc]
        assert cache.get(10) == 5
        _check(cache)
        cache.clear()
        assert (len(cache), cache.nbytes) == (0, 0)
        moment += 1
    assert moment > 2


def _check(cache: ForwardCache) -> None:
    kept = _kept(cache, list(range(11)))
    assert (len(cache), cache.nbytes) == (len(kept), sum(kept))
    assert len(cache) <= cache.maxsize
    assert cache.max_bytes is None or cache.nbytes <= cache.max_bytes


def test_interrupt_while_a_value_is_measured() -> None:
    """Nothing is stored, the earlier value stays, and the bytes are right."""
    cache = ForwardCache(sizeof=lambda value: value if value < 10 else _interrupt())  # type: ignore[func-returns-value]
    cache.put(1, 3)
    for key in (1, 2):
        with suppress(KeyboardInterrupt):
            cache.put(key, 10)
    assert (cache.get(1), cache.get(2), len(cache), cache.nbytes) == (3, MISS, 1, 3)


def test_exception_in_a_key_while_it_is_looked_up() -> None:
    """It comes out of the call; the bytes are right, and the next put counts on."""
    cache = ForwardCache(2, sizeof=int)
    cache.put(1, 3)
    hashed = 0

    def fail_at_second() -> None:
        nonlocal hashed
        hashed += 1
        if hashed == 2:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cache.put(_Loud(fail_at_second), 4)
    assert (len(cache), cache.nbytes) == (1, 3)
    cache.put(2, 5)
    assert (len(cache), cache.nbytes) == (2, 8)
