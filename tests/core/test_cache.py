"""ForwardCache does what a bounded least-recently-used map does."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from forwardscope import MISS, ForwardCache
from forwardscope.core.cache import DisabledCache, Entry

InThread = Callable[[Callable[[], Any]], "Future[Any]"]


def _sized(maxsize: int = 100, max_bytes: int | None = 10) -> ForwardCache:
    """Return a cache in which an integer is its own size."""
    return ForwardCache(maxsize, max_bytes=max_bytes, sizeof=int)


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
    """The result for an unknown key is `MISS`, and it prints as that."""
    assert ForwardCache().get("unknown") is MISS
    assert repr(MISS) == "MISS"


@pytest.mark.parametrize("value", [None, False, 0, "", ()])
def test_falsy_value_is_a_value(value: object) -> None:
    """A stored None, or anything else that is false, is found again."""
    cache = ForwardCache()
    cache.put("key", value)
    assert cache.get("key") is value


def test_value_comes_back_as_it_was_put_in() -> None:
    """The same object is returned, not a copy."""
    cache, value = ForwardCache(), [1, 2]
    cache.put("key", value)
    assert cache.get("key") is value


def test_get_refreshes() -> None:
    """The entry that was read last is evicted last."""
    cache = ForwardCache(2)
    cache.put("a", 1)
    cache.put("b", 2)
    cache.get("a")
    cache.put("c", 3)
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (1, MISS, 3)
    assert cache.evictions == 1


def test_put_refreshes() -> None:
    """The entry that was put last is evicted last, also where it replaced a value."""
    cache = ForwardCache(2)
    cache.put("a", 1)
    cache.put("b", 2)
    cache.put("a", 10)
    cache.put("c", 3)
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (10, MISS, 3)


def test_replacement_is_no_eviction() -> None:
    """A new value under an old key takes its place and its bytes, also in a full cache."""
    cache = _sized(maxsize=1)
    cache.put("a", 4)
    cache.put("a", 6)
    assert (len(cache), cache.nbytes, cache.evictions) == (1, 7, 0)


@pytest.mark.parametrize("max_bytes", [None, 100])
def test_bytes_count_values_and_the_strings_of_keys(max_bytes: int | None) -> None:
    """An entry's size is that of its value and of the characters of its key."""
    cache = _sized(max_bytes=max_bytes)
    cache.put(("op", "view", "prompt", 8), 5)
    assert cache.nbytes == len("opviewprompt") + 5
    cache.put("plain", 1)
    assert cache.nbytes == len("opviewprompt") + 5 + len("plain") + 1
    cache.put(3, 2)
    assert cache.nbytes == len("opviewprompt") + 5 + len("plain") + 1 + 2


def test_eviction_by_bytes_removes_as_many_as_needed() -> None:
    """The oldest entries are evicted until the bytes fit, and no more than that."""
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
    """It is counted, and no other entry is evicted for it."""
    cache = _sized(max_bytes=10)
    cache.put(1, 3)
    cache.put(2, 11)
    assert (cache.get(1), cache.get(2)) == (3, MISS)
    assert (cache.evictions, cache.rejections, cache.nbytes) == (0, 1, 3)


def test_characters_of_the_key_count_for_a_rejection() -> None:
    """A value that fits alone is rejected where its key does not fit beside it."""
    cache = _sized(max_bytes=10)
    cache.put("four", 6)
    cache.put("fives", 6)
    assert (cache.get("four"), cache.get("fives"), cache.rejections) == (6, MISS, 1)


def test_rejected_value_leaves_no_older_one_behind() -> None:
    """The earlier value of a key is removed where its new value does not fit."""
    cache = _sized(max_bytes=10)
    cache.put(1, 3)
    cache.put(1, 11)
    assert cache.get(1) is MISS
    assert (len(cache), cache.nbytes, cache.evictions, cache.rejections) == (0, 0, 0, 1)


def test_clear_removes_everything_but_the_counts() -> None:
    """Entries and bytes are gone; evictions and rejections stay and count on."""
    cache = _sized(maxsize=1, max_bytes=10)
    for key, value in ((1, 3), (2, 4), (3, 11)):
        cache.put(key, value)
    cache.clear()
    assert (len(cache), cache.nbytes, cache.get(2)) == (0, 0, MISS)
    assert (cache.evictions, cache.rejections) == (1, 1)
    for key, value in ((1, 3), (2, 4), (3, 11)):
        cache.put(key, value)
    assert (cache.evictions, cache.rejections) == (2, 2)


def test_repr_shows_how_full_it_is() -> None:
    """The text has the entries, their bound and the bytes."""
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


def test_value_is_measured_once_when_it_is_put() -> None:
    """Neither reading the bytes nor evicting the entry measures it again."""
    measured: list[int] = []

    def sizeof(value: int) -> int:
        measured.append(value)
        return value

    cache = ForwardCache(2, sizeof=sizeof)
    for key, value in ((1, 10), (2, 20), (3, 30)):
        cache.put(key, value)
    assert (cache.nbytes, cache.nbytes) == (50, 50)
    assert measured == [10, 20, 30]


def test_value_that_cannot_be_measured_changes_nothing() -> None:
    """An exception in `sizeof` comes out, and the earlier value stays."""
    cache = _sized()
    cache.put(1, 3)
    with pytest.raises(ValueError, match="invalid literal"):
        cache.put(1, "no number")
    assert (cache.get(1), len(cache), cache.nbytes) == (3, 1, 3)


def test_key_that_is_not_hashable() -> None:
    """It is a TypeError, as with a dict, and the cache counts on."""
    cache = _sized()
    cache.put(1, 3)
    with pytest.raises(TypeError, match="unhashable"):
        cache.put([], 4)
    with pytest.raises(TypeError, match="unhashable"):
        cache.get([])
    assert (len(cache), cache.nbytes) == (1, 3)
    cache.put(2, 4)
    assert (len(cache), cache.nbytes) == (2, 7)


def test_entry_keeps_origin_and_size() -> None:
    """What the caller knows of the forward pass comes back with the value."""
    cache, origin = _sized(), object()
    with cache.lock:
        cache.store("key", cache.new_entry("key", 4, origin))
    entry = cache.find("key")
    assert isinstance(entry, Entry)
    assert (entry.value, entry.size, entry.origin) == (4, 7, origin)
    assert cache.find("unknown") is None


def test_several_keys_at_once() -> None:
    """Those that are stored are found and refreshed, in the order of the call."""
    cache = ForwardCache(3)
    for key in ("a", "b", "c"):
        cache.put(key, key.upper())
    found = cache.find_all(["b", "unknown", "a", "b"])
    assert {key: entry.value for key, entry in found.items()} == {"a": "A", "b": "B"}
    for key in ("d", "e"):
        cache.put(key, key)
    assert (cache.get("b"), cache.get("a"), cache.get("c")) == ("B", MISS, MISS)


def test_values_are_measured_without_the_lock(in_thread: InThread) -> None:
    """Another thread uses the cache while `sizeof` runs."""

    def sizeof(_: object) -> int:
        return in_thread(lambda: len(cache) + cache.nbytes).result(timeout=30) + 1  # type: ignore[no-any-return]

    cache = ForwardCache(sizeof=sizeof)
    cache.put(1, "value")
    assert cache.nbytes == 1


def test_value_that_is_replaced_while_it_is_measured() -> None:
    """The value that is measured last is stored last, with its own size."""

    def sizeof(value: int) -> int:
        if value == 11:
            cache.put("key", 100)
        return value

    cache = ForwardCache(sizeof=sizeof)
    cache.put("key", 11)
    assert (cache.get("key"), len(cache), cache.nbytes) == (11, 1, 11 + len("key"))


class _Final:
    """A value of size 1 that calls a function when it is released."""

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function

    def __del__(self) -> None:
        self._function()

    def __int__(self) -> int:
        return 1


def _evict_for_entries(cache: ForwardCache) -> None:
    cache.put(1, 1)
    cache.put(2, 1)


REMOVALS: dict[str, Callable[[ForwardCache], None]] = {
    "evicted for entries": _evict_for_entries,
    "evicted for bytes": lambda cache: cache.put(1, 10),
    "replaced": lambda cache: cache.put(0, 2),
    "replaced by a rejected value": lambda cache: cache.put(0, 99),
    "cleared": lambda cache: cache.clear(),
}
each_removal = pytest.mark.parametrize("remove", REMOVALS.values(), ids=REMOVALS)


@each_removal
def test_finaliser_uses_the_cache(remove: Callable[[ForwardCache], None]) -> None:
    """A value that looks up and stores when it is removed leaves bounds and bytes right."""
    cache, seen = _sized(maxsize=2, max_bytes=10), []

    def final() -> None:
        seen.append((cache.get("unknown"), len(cache) <= 2, cache.nbytes <= 10))
        cache.put(3, 3)
        cache.put(4, 4)

    cache.put(0, _Final(final))
    remove(cache)
    assert seen == [(MISS, True, True)]
    kept = [value for value in map(cache.get, range(5)) if value is not MISS]
    assert kept == [3, 4]
    assert (len(cache), cache.nbytes) == (2, 7)


@each_removal
def test_finaliser_runs_without_the_lock(
    remove: Callable[[ForwardCache], None], in_thread: InThread
) -> None:
    """Another thread uses the cache while a value is released."""
    cache, seen = _sized(maxsize=2, max_bytes=10), []

    def final() -> None:
        seen.append(in_thread(lambda: cache.get("unknown")).result(timeout=30))

    cache.put(0, _Final(final))
    remove(cache)
    assert seen == [MISS]
