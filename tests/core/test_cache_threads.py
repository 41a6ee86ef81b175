"""ForwardCache under threads, signal handlers and interrupts."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from forwardscope import MISS, ForwardCache

pytestmark = pytest.mark.timeout(900)


@dataclass(frozen=True)
class _Key:
    """A key with hash and equality in Python, so that threads can switch inside a lookup."""

    number: int


def _check(cache: ForwardCache, keys: list[Any]) -> None:
    """Check that bounds hold and that the bytes are those of the entries."""
    values = [value for value in map(cache.get, keys) if value is not MISS]
    assert (len(cache), cache.nbytes) == (len(values), sum(values))
    assert len(cache) <= cache.maxsize
    assert cache.max_bytes is None or cache.nbytes <= cache.max_bytes


@pytest.mark.parametrize(("maxsize", "max_bytes"), [(1, None), (16, 60), (100, 60)])
@pytest.mark.usefixtures("fast_switching")
def test_threads_change_and_read(together: Any, maxsize: int, max_bytes: int | None) -> None:
    """Bounds hold at any moment; at the end bytes, evictions and entries add up exactly."""
    threads, each = 32, 60
    cache = ForwardCache(maxsize, max_bytes=max_bytes, sizeof=int)
    keys = [_Key(number) for number in range(threads * each)]
    cleared: list[int] = []

    def work(me: int) -> None:
        for step in range(each):
            number = me * each + step
            cache.put(keys[number], 1 + number % 9)
            assert cache.get(keys[number * 7 % len(keys)]) in (MISS, 1 + number * 7 % len(keys) % 9)
            found = cache.find_all(keys[number - 3 : number + 3])
            assert all(entry.value == 1 + key.number % 9 for key, entry in found.items())
            assert len(cache) <= maxsize
            assert max_bytes is None or cache.nbytes <= max_bytes
            if number % 41 == 0:
                with cache.lock:
                    cleared.append(len(cache))
                    cache.clear()

    together(threads, work)
    _check(cache, keys)
    assert len(keys) == len(cache) + cache.evictions + sum(cleared)
    assert (cache.rejections, cache.generation) == (0, len(cleared))


@pytest.mark.usefixtures("fast_switching")
def test_threads_replace_and_reject(together: Any) -> None:
    """Threads that put the same keys leave one entry of each, and count each rejection."""
    cache, keys = ForwardCache(16, max_bytes=50, sizeof=int), [_Key(number) for number in range(5)]

    def work(me: int) -> None:
        for step in range(100):
            cache.put(keys[(me + step) % 5], 51 if step % 10 == 0 else 1 + (me + step) % 9)

    together(32, work)
    _check(cache, keys)
    assert (cache.rejections, cache.evictions) == (32 * 10, 0)


class _HashHook:
    """A key that calls a function at each hash, so also while the cache looks it up."""

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
def test_operation_waits_for_a_change_in_another_thread(
    in_thread: Any, operate: Callable[[ForwardCache], object]
) -> None:
    """No operation reads or changes the cache while another thread changes it."""
    cache, inside, go_on = ForwardCache(3), threading.Event(), threading.Event()

    def pause() -> None:
        inside.set()
        assert go_on.wait(30)

    cache.put(1, 3)
    putting = in_thread(lambda: cache.put(_HashHook(pause), 4))
    assert inside.wait(30)
    operating = in_thread(lambda: operate(cache))
    with pytest.raises(TimeoutError):
        operating.result(timeout=0.05)
    go_on.set()
    putting.result(timeout=30)
    operating.result(timeout=30)


def test_signal_handler_reads_at_any_moment(at_moment: Any) -> None:
    """At each moment of a put, entries, bytes and evictions belong together."""
    moment, came, states = 0, True, set()
    while came:
        cache = ForwardCache(3, max_bytes=30, sizeof=int)
        for key in range(3):
            cache.put(key, 9)

        def read(cache: ForwardCache = cache) -> None:
            states.add((len(cache), cache.nbytes, cache.evictions))

        came = at_moment(moment, read, lambda cache=cache: cache.put(3, 13))
        read()
        moment += 1
    before, after = (3, 27, 0), (2, 22, 2)
    assert {before, after} <= states
    assert states <= {before, (2, 18, 0), (2, 18, 1), (1, 9, 1), (1, 9, 2), after}


@pytest.mark.parametrize("max_bytes", [None, 30])
@each_operation
def test_interrupt_at_any_moment(
    at_moment: Any,
    in_thread: Any,
    operate: Callable[[ForwardCache], object],
    max_bytes: int | None,
) -> None:
    """Bounds hold, bytes are those of the entries, no lock stays held, and the next put works."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    moment, came = 0, True
    while came:
        cache = ForwardCache(3, max_bytes=max_bytes, sizeof=int)
        for key in range(3):
            cache.put(key, 7)
        came = at_moment(moment, interrupt, lambda cache=cache: operate(cache))
        _check(cache, list(range(11)))
        in_thread(lambda cache=cache: cache.put(10, 5)).result(timeout=30)
        assert cache.get(10) == 5
        _check(cache, list(range(11)))
        cache.clear()
        assert (len(cache), cache.nbytes) == (0, 0)
        moment += 1
    assert moment > 2


@pytest.mark.parametrize("fails_at", [1, 2, 3])
def test_exception_in_the_hash_of_a_key(fails_at: int) -> None:
    """It is raised unchanged; the bytes stay right, and the next put works."""
    cache, hashed = ForwardCache(2, sizeof=int), 0
    cache.put(1, 3)

    def fail() -> None:
        nonlocal hashed
        hashed += 1
        if hashed == fails_at:
            raise ZeroDivisionError

    key = _HashHook(fail)
    with pytest.raises(ZeroDivisionError):
        for _ in range(3):
            cache.put(key, 4)
    assert cache.nbytes in (3, 7)
    cache.clear()
    cache.put(2, 5)
    assert (len(cache), cache.nbytes) == (1, 5)


@pytest.mark.parametrize(
    ("operate", "at"),
    [
        (lambda cache, key: cache.put(key, 6), 1),
        (lambda cache, key: cache.get(key), 2),
        (lambda cache, key: cache.find_all([key]), 2),
    ],
    ids=["put", "get", "find several"],
)
def test_cache_that_changes_within_an_operation(operate: Any, at: int) -> None:
    """A finaliser that the collector runs there may change the cache; the bytes stay right."""
    cache, countdown = ForwardCache(2, sizeof=int), 0

    def change() -> None:
        nonlocal countdown
        countdown -= 1
        if countdown == 0:
            cache.put(5, 3)
            cache.put(6, 8)

    key = _HashHook(change)
    cache.put(key, 4)
    cache.put(1, 2)
    countdown = at
    operate(cache, key)
    assert countdown <= 0
    _check(cache, [1, 5, 6, key])
