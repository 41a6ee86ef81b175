"""ForwardCache agrees with a plain list of entries, whatever is done to it."""

from __future__ import annotations

import math
from typing import NamedTuple

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from forwardscope import MISS, ForwardCache
from forwardscope.core.cache import Shelf, new_entry

_KEYS = [("k" * length, number) for length in (0, 1, 3) for number in range(3)]

keys = st.sampled_from(_KEYS)
sizes = st.integers(0, 14)


class _Value(NamedTuple):
    serial: int
    size: int


def _size(value: _Value | None) -> int:
    return 2 if value is None else value.size


class CacheModel(RuleBasedStateMachine):
    """The model is a list of (key, value), from the oldest to the newest."""

    @initialize(maxsize=st.integers(1, 5), max_bytes=st.none() | st.integers(1, 24))
    def make(self, maxsize: int, max_bytes: int | None) -> None:
        self.cache = ForwardCache(maxsize, max_bytes=max_bytes, sizeof=_size)
        self.maxsize, self.max_bytes = maxsize, max_bytes
        self.entries: list[tuple[tuple[str, int], _Value | None]] = []
        self.shelves: list[Shelf] = []
        self.evictions = self.rejections = self.serial = 0

    @rule(key=keys, size=sizes)
    def put(self, key: tuple[str, int], size: int) -> None:
        self.serial += 1
        value = _Value(self.serial, size)
        self.cache.put(key, value)
        self._store(key, value)

    @rule(key=keys)
    def put_none(self, key: tuple[str, int]) -> None:
        self.cache.put(key, None)
        self._store(key, None)

    @precondition(lambda self: self.shelves)
    @rule(key=keys, age=st.integers(1, 3))
    def store_from_before_a_clear(self, key: tuple[str, int], age: int) -> None:
        entry = new_entry()
        entry.value = _Value(-1, 1)
        self.cache.store(self.shelves[-age:][0], key, entry)

    @rule(key=keys)
    def get(self, key: tuple[str, int]) -> None:
        found = [entry for entry in self.entries if entry[0] == key]
        value = self.cache.get(key)
        if found:
            assert value is found[0][1]
            self.entries.remove(found[0])
            self.entries.append(found[0])
        else:
            assert value is MISS

    @rule()
    def clear(self) -> None:
        self.shelves.append(self.cache.shelf)
        self.cache.clear()
        self.entries.clear()

    @invariant()
    def books_agree(self) -> None:
        cache = self.cache
        assert len(cache) == len(self.entries)
        assert cache.nbytes == sum(len(key[0]) + _size(value) for key, value in self.entries)
        assert cache.evictions == self.evictions
        assert cache.rejections == self.rejections

    @invariant()
    def what_the_model_evicted_is_gone(self) -> None:
        """With equal lengths the entries are the same ones; an absent key refreshes nothing."""
        kept = {key for key, _ in self.entries}
        assert all(self.cache.get(key) is MISS for key in _KEYS if key not in kept)

    def teardown(self) -> None:
        """Push the entries out one by one: the oldest goes first."""
        if not hasattr(self, "cache"):
            return
        while self.entries:
            self.put(("", 1_000 + self.serial), 0)
            self.books_agree()
            self.what_the_model_evicted_is_gone()
            if all(key[1] >= 1_000 for key, _ in self.entries):
                break

    def _store(self, key: tuple[str, int], value: _Value | None) -> None:
        self.entries = [entry for entry in self.entries if entry[0] != key]
        most = math.inf if self.max_bytes is None else self.max_bytes
        if len(key[0]) + _size(value) > most:
            self.rejections += 1
            return
        self.entries.append((key, value))
        while len(self.entries) > self.maxsize or self._nbytes() > most:
            self.entries.pop(0)
            self.evictions += 1

    def _nbytes(self) -> int:
        return sum(len(key[0]) + _size(value) for key, value in self.entries)


TestCacheModel = CacheModel.TestCase
TestCacheModel.settings = settings(max_examples=200, stateful_step_count=40)
