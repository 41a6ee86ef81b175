"""ForwardCache does what a bounded least-recently-used map does."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import pytest

from forwardscope import MISS, ForwardCache
from forwardscope.core.cache import DisabledCache, new_entry


def _bytes_of(value: Any) -> int:
    """Let a value be its own size, so that a test can count on its fingers."""
    return int(value)


def _sized(maxsize: int = 100, max_bytes: int = 10) -> ForwardCache:
    return ForwardCache(maxsize, max_bytes=max_bytes, sizeof=_bytes_of)


@pytest.mark.parametrize("maxsize", [0, -1])
def test_maxsize_must_be_positive(maxsize: int) -> None:
    """A bound on entries that would keep none is refused by name and value."""
    with pytest.raises(ValueError) as raised:
        ForwardCache(maxsize)
    assert str(raised.value) == f"maxsize must be positive; got {maxsize}"


@pytest.mark.parametrize("max_bytes", [0, -1])
def test_max_bytes_must_be_positive(max_bytes: int) -> None:
    """A bound on bytes that would keep nothing is refused by name and value."""
    with pytest.raises(ValueError) as raised:
        ForwardCache(max_bytes=max_bytes)
    assert str(raised.value) == f"max_bytes must be positive or None; got {max_bytes}"


def test_default_bounds() -> None:
    """Without arguments 256 entries are kept, of any size."""
    cache = ForwardCache()
    assert (cache.maxsize, cache.max_bytes) == (256, None)
    for number in range(257):
        cache.put(number, number)
    assert len(cache) == 256
    assert cache.get(0) is MISS
    assert cache.get(256) == 256


def test_unknown_key_is_a_miss() -> None:
    """What was never stored is `MISS`, which says so."""
    assert ForwardCache().get("unknown") is MISS
    assert repr(MISS) == "MISS"


@pytest.mark.parametrize("value", [None, False, 0, "", ()])
def test_falsy_value_is_a_value(value: object) -> None:
    """A stored None, or anything else that is false, is found again."""
    cache = ForwardCache()
    cache.put("key", value)
    assert cache.get("key") is value


def test_value_comes_back_as_it_was_put_in() -> None:
    """The very object is handed out, not a copy."""
    cache, value = ForwardCache(), [1, 2]
    cache.put("key", value)
    assert cache.get("key") is value


def test_get_refreshes() -> None:
    """What was read last is evicted last."""
    cache = ForwardCache(2)
    cache.put("a", 1)
    cache.put("b", 2)
    cache.get("a")
    cache.put("c", 3)
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (1, MISS, 3)
    assert cache.evictions == 1


def test_put_refreshes() -> None:
    """What was written last is evicted last, also where it replaced a value."""
    cache = ForwardCache(2)
    cache.put("a", 1)
    cache.put("b", 2)
    cache.put("a", 10)
    cache.put("c", 3)
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (10, MISS, 3)


def test_replacement_is_no_eviction() -> None:
    """A new value under an old key takes its place and its bytes."""
    cache = _sized()
    cache.put("a", 4)
    cache.put("a", 6)
    assert (len(cache), cache.nbytes, cache.evictions) == (1, 7, 0)


def test_bytes_count_values_and_the_strings_of_keys() -> None:
    """An entry's size is what `sizeof` says and the characters of its key."""
    cache = _sized(max_bytes=100)
    cache.put(("op", "view", "prompt", 8), 5)
    assert cache.nbytes == len("opviewprompt") + 5
    cache.put("plain", 1)
    assert cache.nbytes == len("opviewprompt") + 5 + len("plain") + 1
    cache.put(3, 2)
    assert cache.nbytes == len("opviewprompt") + 5 + len("plain") + 1 + 2


def test_eviction_by_bytes_takes_as_many_as_needed() -> None:
    """The oldest go until the bytes fit, and no more than that."""
    cache = _sized(max_bytes=10)
    for key in (1, 2, 3):
        cache.put(key, 3)
    cache.put(4, 6)
    assert [cache.get(key) for key in (1, 2, 3, 4)] == [MISS, MISS, 3, 6]
    assert (cache.nbytes, cache.evictions) == (9, 2)


def test_value_that_fills_the_cache_is_stored() -> None:
    """The bound on bytes may be reached, alone in the cache."""
    cache = _sized(max_bytes=10)
    cache.put(1, 3)
    cache.put(2, 10)
    assert (cache.get(1), cache.get(2)) == (MISS, 10)
    assert (cache.evictions, cache.rejections) == (1, 0)


def test_value_larger_than_the_cache_is_rejected() -> None:
    """It is counted, and costs no other entry its place."""
    cache = _sized(max_bytes=10)
    cache.put(1, 3)
    cache.put(2, 11)
    assert (cache.get(1), cache.get(2)) == (3, MISS)
    assert (cache.evictions, cache.rejections, cache.nbytes) == (0, 1, 3)


def test_rejected_value_leaves_no_older_one_behind() -> None:
    """What the key held before is gone when its new value does not fit."""
    cache = _sized(max_bytes=10)
    cache.put(1, 3)
    cache.put(1, 11)
    assert cache.get(1) is MISS
    assert (len(cache), cache.nbytes, cache.evictions, cache.rejections) == (0, 0, 0, 1)


def test_clear_forgets_everything_but_the_counts() -> None:
    """Entries and bytes go; evictions and rejections were real and stay."""
    cache = _sized(maxsize=1, max_bytes=10)
    cache.put(1, 3)
    cache.put(2, 4)
    cache.put(3, 11)
    cache.clear()
    assert (len(cache), cache.nbytes, cache.get(2)) == (0, 0, MISS)
    assert (cache.evictions, cache.rejections) == (1, 1)


@pytest.mark.parametrize("max_bytes", [None, 10])
def test_what_comes_too_late_for_its_shelf(max_bytes: int | None) -> None:
    """What was under way at a `clear` is stored nowhere, evicts nothing, and counts nothing."""
    cache = ForwardCache(1, max_bytes=max_bytes, sizeof=_bytes_of)
    before = cache.shelf
    cache.clear()
    cache.put(1, 3)
    for key, value in ((1, 5), (2, 4), (3, 11)):
        entry = new_entry()
        entry.value = value
        cache.store(before, key, entry)
    assert (cache.get(1), cache.get(2), len(cache), cache.nbytes) == (3, MISS, 1, 3)
    assert (cache.evictions, cache.rejections) == (0, 0)


def test_repr_shows_how_full_it_is() -> None:
    """The entries, their bound and the bytes stand in the text."""
    cache = _sized(maxsize=7)
    cache.put(1, 3)
    assert repr(cache) == "<ForwardCache 1/7 entries, 3 bytes>"


def test_disabled_cache_keeps_nothing() -> None:
    """It checks its bounds as the other does, and never finds anything."""
    cache = DisabledCache(4)
    cache.put("a", 1)
    assert (cache.get("a"), len(cache), cache.nbytes) == (MISS, 0, 0)
    with pytest.raises(ValueError, match="maxsize must be positive; got 0"):
        DisabledCache(0)


def test_bytes_are_measured_when_they_are_looked_at() -> None:
    """Without a bound on them nobody needs a value's size before, and each is measured once."""
    measured: list[int] = []

    def sizeof(value: int) -> int:
        measured.append(value)
        return value

    cache = ForwardCache(2, sizeof=sizeof)
    for key, value in ((1, 10), (2, 20), (3, 30)):
        cache.put(key, value)
    assert measured == []
    assert (cache.nbytes, cache.nbytes, measured) == (50, 50, [20, 30])
    cache.put(3, 35)
    assert (cache.nbytes, measured) == (55, [20, 30, 35])


def test_stored_while_it_is_put() -> None:
    """Where another entry came in first it takes the later value, and no other is evicted."""
    cache, entry = ForwardCache(2), new_entry()
    entry.value = "late"
    cache.put("a", 1)
    cache.put("b", 2)
    cache.store(cache.shelf, "a", entry)
    cache.put("c", 3)
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == ("late", MISS, 3)
    assert (len(cache), cache.evictions) == (2, 1)


@dataclass(frozen=True)
class _Key:
    """A key whose hash and equality are functions in Python, in which threads can switch."""

    number: int


def test_threads_with_keys_of_their_own_kind() -> None:
    """Any hashable is a key, also where looking it up is not one step for Python."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(30):
            cache, start = ForwardCache(4, sizeof=_bytes_of), threading.Barrier(4)

            def work(cache: ForwardCache = cache, start: threading.Barrier = start) -> None:
                start.wait()
                for number in range(100):
                    cache.put(_Key(number % 9), number)
                    cache.get(_Key(number % 7))
                    assert cache.nbytes >= 0

            workers = [threading.Thread(target=work) for _ in range(4)]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
            assert len(cache) == 4
            assert len(set(cache.shelf.entries)) == 4
    finally:
        sys.setswitchinterval(before)


def test_value_that_is_replaced_while_it_is_measured() -> None:
    """The size of the old one is not taken for that of the new one."""

    def sizeof(value: int) -> int:
        if value == 11:
            cache.put("key", 100)
        return value

    cache = ForwardCache(sizeof=sizeof)
    cache.put("key", 11)
    assert cache.nbytes == 11 + len("key")
    assert cache.nbytes == 100 + len("key")


def test_evictions_do_not_go_back_at_a_clear() -> None:
    """They are those of all shelves, as of one moment."""
    cache = ForwardCache(1)
    for number in range(3):
        cache.put(number, number)
    cache.clear()
    assert cache.evictions == 2
    for number in range(3):
        cache.put(number, number)
    assert cache.evictions == 4


def test_first_claim_leads_and_second_joins(
    in_thread: Callable[[Callable[[], Any]], Future[Any]],
) -> None:
    """Who waits gets the value when the key is released, and `MISS` where there is none."""
    cache = ForwardCache()
    shelf = cache.shelf
    for value in ("value", None, MISS):
        led = new_entry()
        assert shelf.under_way.setdefault("key", led) is led
        assert shelf.under_way.setdefault("key", new_entry()) is led
        waiter = in_thread(lambda led=led: cache.wait(shelf, "key", led))  # type: ignore[misc]
        led.value = value
        while led.joined is None:
            assert not waiter.done()
        shelf.release("key", led)
        assert waiter.result(timeout=60) is value
        assert not shelf.under_way


def test_wait_for_what_has_just_been_released() -> None:
    """Nobody would wake who comes too late to be seen, so it does not wait."""
    cache, led = ForwardCache(), new_entry()
    cache.shelf.under_way["key"] = led
    led.value = "value"
    cache.shelf.release("key", led)
    assert cache.wait(cache.shelf, "key", led) == "value"


def test_release_of_what_never_led_changes_nothing() -> None:
    """Another's claim stays, and so does that of a later one."""
    shelf, led = ForwardCache().shelf, new_entry()
    shelf.under_way["key"] = led
    shelf.release("key", new_entry())
    shelf.release("unknown", led)
    assert shelf.under_way == {"key": led}


@pytest.mark.parametrize("max_bytes", [None, 1 << 20])
@pytest.mark.parametrize("maxsize", [1, 3, 16])
def test_threads_fill_a_cache_to_its_bound(maxsize: int, max_bytes: int | None) -> None:
    """Whoever comes first, as many entries as there is room for stay, and no more are evicted."""
    threads, puts = 8, 5
    for _ in range(100):
        cache, start = ForwardCache(maxsize, max_bytes=max_bytes), threading.Barrier(threads)

        def work(me: int, cache: ForwardCache = cache, start: threading.Barrier = start) -> None:
            start.wait()
            for number in range(puts):
                cache.put((me, number), number)

        workers = [threading.Thread(target=work, args=(me,)) for me in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert (len(cache), cache.evictions) == (maxsize, threads * puts - maxsize)


def test_threads_leave_the_books_balanced() -> None:
    """After eight threads wrote at once, size, bytes and evictions still add up."""
    threads, puts, maxsize = 8, 2_000, 16
    cache = ForwardCache(maxsize, sizeof=_bytes_of)
    start = threading.Barrier(threads)

    def work(me: int) -> None:
        start.wait()
        for number in range(puts):
            cache.put((me, number), number)
            cache.get((me, number - 1))

    workers = [threading.Thread(target=work, args=(me,)) for me in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    kept = [
        number
        for me in range(threads)
        for number in range(puts)
        if cache.get((me, number)) is not MISS
    ]
    assert len(kept) == len(cache) == maxsize
    assert cache.nbytes == sum(kept)
    assert cache.evictions == threads * puts - maxsize
