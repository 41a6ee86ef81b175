"""ForwardCache beside the model test: arguments, measuring, finalisers and what it reports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from forwardscope import MISS, ForwardCache
from forwardscope.core.cache import DisabledCache


def _sized(maxsize: int = 100, max_bytes: int | None = 10) -> ForwardCache:
    """Return a cache in which an integer is its own size."""
    return ForwardCache(maxsize, max_bytes=max_bytes, sizeof=int)


@pytest.mark.parametrize("value", [0, -1])
@pytest.mark.parametrize("make", [ForwardCache, DisabledCache])
def test_bounds_must_be_positive(make: type[ForwardCache], value: int) -> None:
    """The error names the bound and its value."""
    with pytest.raises(ValueError, match=f"^maxsize must be positive; got {value}$"):
        make(value)
    with pytest.raises(ValueError, match=f"^max_bytes must be positive or None; got {value}$"):
        make(max_bytes=value)


def test_default_bounds() -> None:
    """Without arguments 256 entries of any size are stored."""
    cache = ForwardCache()
    for number in range(257):
        cache.put(number, number)
    assert (cache.maxsize, cache.max_bytes, len(cache)) == (256, None, 256)
    assert (cache.get(0), cache.get(256)) == (MISS, 256)


@pytest.mark.parametrize("value", [None, False, 0, "", [1, 2]])
def test_value_is_returned_as_stored(value: object) -> None:
    """The same object is returned, also None and other false values."""
    cache = ForwardCache()
    cache.put("key", value)
    assert cache.get("key") is value


def test_texts() -> None:
    """A cache prints its entries, bound and bytes; `MISS` prints its name."""
    cache = _sized(maxsize=7)
    cache.put(1, 3)
    assert repr(cache) == "<ForwardCache 1/7 entries, 3 bytes>"
    assert repr(MISS) == "MISS"


def test_size_includes_the_strings_of_the_key() -> None:
    """An entry counts the size of its value and the characters of its key."""
    cache = _sized(max_bytes=None)
    for key, value in ((("op", "view", "prompt", 8), 5), ("plain", 1), (3, 2)):
        cache.put(key, value)
    assert cache.nbytes == len("opviewpromptplain") + 5 + 1 + 2


def test_disabled_cache_stores_nothing() -> None:
    """A stored value is not found."""
    cache = DisabledCache(4)
    cache.put("a", 1)
    assert (cache.get("a"), len(cache), cache.nbytes) == (MISS, 0, 0)


def test_value_is_measured_once() -> None:
    """Neither reading the bytes nor an eviction measures a value again."""
    measured: list[int] = []

    def sizeof(value: int) -> int:
        measured.append(value)
        return value

    cache = ForwardCache(2, sizeof=sizeof)
    for key, value in ((1, 10), (2, 20), (3, 30)):
        cache.put(key, value)
    assert (cache.nbytes, cache.nbytes) == (50, 50)
    assert measured == [10, 20, 30]


@pytest.mark.parametrize(("key", "value"), [(1, "no number"), ([], 4)])
def test_failed_put_changes_nothing(key: Any, value: Any) -> None:
    """A value that cannot be measured or a key that cannot be hashed raises."""
    cache = _sized()
    cache.put(1, 3)
    with pytest.raises((ValueError, TypeError), match=r"invalid literal|unhashable"):
        cache.put(key, value)
    assert (cache.get(1), len(cache), cache.nbytes) == (3, 1, 3)
    cache.put(2, 4)
    assert (len(cache), cache.nbytes) == (2, 7)


def test_entry_has_the_origin_of_its_value() -> None:
    """An entry holds value, size, origin and the ids of its call as they were stored."""
    cache, origin, call = _sized(), object(), object()
    with cache.lock:
        cache.store("key", cache.new_entry("key", 4, origin, call))
    entry = cache.find("key")
    assert entry is not None
    assert (entry.value, entry.size, entry.origin, entry.call) == (4, 7, origin, call)
    assert cache.find("unknown") is None


def test_values_are_measured_without_the_lock(in_thread: Any) -> None:
    """Another thread uses the cache while `sizeof` runs."""

    def sizeof(_: object) -> int:
        return in_thread(lambda: len(cache) + cache.nbytes).result(timeout=30) + 1

    cache = ForwardCache(sizeof=sizeof)
    cache.put(1, "value")
    assert cache.nbytes == 1


class _Finalised:
    """A value of size 1 that calls a function when it is released."""

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function

    def __del__(self) -> None:
        self._function()

    def __int__(self) -> int:
        return 1


REMOVALS: dict[str, Callable[[ForwardCache], object]] = {
    "evicted for entries": lambda cache: (cache.put(1, 1), cache.put(2, 1)),
    "evicted for bytes": lambda cache: cache.put(1, 10),
    "replaced": lambda cache: cache.put(0, 2),
    "replaced by a rejected value": lambda cache: cache.put(0, 99),
    "cleared": lambda cache: cache.clear(),
}


@pytest.mark.parametrize("remove", REMOVALS.values(), ids=REMOVALS)
def test_finaliser_uses_the_cache(remove: Callable[[ForwardCache], None], in_thread: Any) -> None:
    """A removed value is released without the lock; its finaliser may change the cache."""
    cache, seen = _sized(maxsize=2, max_bytes=10), []

    def final() -> None:
        other = in_thread(lambda: cache.get("unknown")).result(timeout=30)
        seen.append((other, cache.get("unknown"), len(cache) <= 2, cache.nbytes <= 10))
        cache.put(3, 3)
        cache.put(4, 4)

    cache.put(0, _Finalised(final))
    remove(cache)
    assert seen == [(MISS, MISS, True, True)]
    assert [value for value in map(cache.get, range(5)) if value is not MISS] == [3, 4]
    assert (len(cache), cache.nbytes) == (2, 7)
