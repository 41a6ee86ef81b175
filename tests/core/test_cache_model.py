"""ForwardCache agrees with a plain dict, whatever is done to it."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any, NamedTuple

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from forwardscope import MISS, ForwardCache
from forwardscope.core.cache import size_of, size_of_strings

_KEYS: list[Hashable] = [
    *(("k" * length, number) for length in (0, 1, 3) for number in range(2)),
    *("text", "λ", 7, 7.5, None, False, (), frozenset({1}), b"bytes", ("op", ("nested",))),
]

keys = st.sampled_from(_KEYS)
sizes = st.integers(0, 14)


class _Value(NamedTuple):
    serial: int
    size: int


def _own_size(value: _Value | None) -> int:
    return 2 if value is None else value.size


class CacheModel(RuleBasedStateMachine):
    """The model is a dict from the oldest entry to the newest."""

    @initialize(
        maxsize=st.integers(1, 5),
        max_bytes=st.none() | st.integers(1, 24),
        own_size=st.booleans(),
    )
    def make(self, maxsize: int, max_bytes: int | None, own_size: bool) -> None:
        self.size = _own_size if own_size else size_of
        if max_bytes is not None and not own_size:
            max_bytes *= 20  # a named tuple of two integers has about 110 bytes
        sizeof = {"sizeof": _own_size} if own_size else {}
        self.cache = ForwardCache(maxsize, max_bytes=max_bytes, **sizeof)
        self.maxsize, self.max_bytes = maxsize, max_bytes
        self.entries: dict[Hashable, Any] = {}
        self.evictions = self.rejections = self.serial = 0

    @rule(key=keys, size=sizes)
    def put(self, key: Hashable, size: int) -> None:
        self.serial += 1
        value = _Value(self.serial, size)
        self.cache.put(key, value)
        self._store(key, value)

    @rule(key=keys)
    def put_none(self, key: Hashable) -> None:
        self.cache.put(key, None)
        self._store(key, None)

    @rule(key=keys)
    def get(self, key: Hashable) -> None:
        value = self.cache.get(key)
        if key in self.entries:
            assert value is self.entries[key]
            self._refresh(key)
        else:
            assert value is MISS

    @rule(several=st.lists(keys, max_size=5))
    def find_all(self, several: list[Hashable]) -> None:
        found = self.cache.find_all(several)
        assert found.keys() == {key for key in several if key in self.entries}
        for key in several:
            if key in self.entries:
                assert found[key].value is self.entries[key]
                self._refresh(key)

    @rule()
    def clear(self) -> None:
        self.cache.clear()
        self.entries.clear()

    @invariant()
    def counts_agree(self) -> None:
        """Evictions and rejections never go back, not at a clear either."""
        assert len(self.cache) == len(self.entries) <= self.maxsize
        assert self.cache.nbytes == self._nbytes() <= self._most()
        assert self.cache.evictions == self.evictions
        assert self.cache.rejections == self.rejections

    @invariant()
    def removed_entries_are_gone(self) -> None:
        """With equal lengths the entries are the same ones; an absent key refreshes nothing."""
        assert all(self.cache.get(key) is MISS for key in _KEYS if key not in self.entries)

    def teardown(self) -> None:
        """Evict the entries one by one: the oldest goes first."""
        if not hasattr(self, "cache"):
            return
        older = list(self.entries)
        while any(key in self.entries for key in older):
            self.serial += 1
            self.cache.put(1_000 + self.serial, None)
            self._store(1_000 + self.serial, None)
            self.counts_agree()
            self.removed_entries_are_gone()
            if self._entry_size(0, None) > self._most():
                break

    def _store(self, key: Hashable, value: _Value | None) -> None:
        self.entries.pop(key, None)
        if self._entry_size(key, value) > self._most():
            self.rejections += 1
            return
        self.entries[key] = value
        while len(self.entries) > self.maxsize or self._nbytes() > self._most():
            del self.entries[next(iter(self.entries))]
            self.evictions += 1

    def _refresh(self, key: Hashable) -> None:
        self.entries[key] = self.entries.pop(key)

    def _most(self) -> float:
        return math.inf if self.max_bytes is None else self.max_bytes

    def _nbytes(self) -> int:
        return sum(self._entry_size(key, value) for key, value in self.entries.items())

    def _entry_size(self, key: Hashable, value: _Value | None) -> int:
        return self.size(value) + size_of_strings(key)


TestCacheModel = CacheModel.TestCase
TestCacheModel.settings = settings(max_examples=200, stateful_step_count=40)
