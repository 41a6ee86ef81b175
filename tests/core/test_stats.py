"""BackendStats is a plain value by hand, and a live one at a backend."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict, astuple, replace
from typing import Any

import pytest

from forwardscope import BackendInstrumentation, BackendStats
from forwardscope.core.ledger import Ledger

_PLAIN = BackendStats(6, 2, 1, 0.5, 2, 5, 4)
_KEYS = [
    "cache_hits",
    "cache_misses",
    "forward_passes",
    "scoring_wall_s",
    "batches_sent",
    "batched_prompts",
    "max_batch_size",
    "hit_rate",
    "avg_batch_size",
]


def _miss(
    ledger: Ledger, probe: str | None, view_id: str, op: str, *outcome: Any, **more: Any
) -> None:
    with ledger.lock:
        ledger.miss(ledger.series(probe, view_id, op), *outcome, **more)


def test_plain_value_shows_what_it_was_built_with() -> None:
    """Seven numbers go in, and three more follow from them."""
    assert astuple(_PLAIN) == (6, 2, 1, 0.5, 2, 5, 4)
    assert (_PLAIN.total_lookups, _PLAIN.hit_rate, _PLAIN.avg_batch_size) == (8, 0.75, 2.5)


def test_nothing_asked_is_no_division_by_zero() -> None:
    """Before anything was asked or sent, both ratios are 0.0."""
    stats = BackendStats()
    assert astuple(stats) == (0, 0, 0, 0.0, 0, 0, 0)
    assert (stats.total_lookups, stats.hit_rate, stats.avg_batch_size) == (0, 0.0, 0.0)


def test_to_dict_has_nine_keys() -> None:
    """The snapshot has the seven fields and the two ratios, in this order."""
    assert list(_PLAIN.to_dict()) == _KEYS
    assert list(_PLAIN.to_dict().values()) == [6, 2, 1, 0.5, 2, 5, 4, 0.75, 2.5]


def test_plain_value_can_be_changed() -> None:
    """Built by hand, it counts nothing by itself and may be set."""
    stats = BackendStats()
    stats.cache_hits = 3
    assert stats == BackendStats(cache_hits=3)
    assert replace(stats, cache_misses=1).total_lookups == 4
    with pytest.raises(AttributeError):
        stats.cache_hit = 3  # type: ignore[attr-defined]


def test_equality_is_by_counts() -> None:
    """Each of the seven fields tells two values apart, and nothing else is equal."""
    for name, value in asdict(_PLAIN).items():
        assert replace(_PLAIN, **{name: value + 1}) != _PLAIN
    assert BackendStats(6, 2, 1, 0.5, 2, 5, 4) == _PLAIN
    assert _PLAIN.to_dict() != _PLAIN


def test_stats_have_no_hash() -> None:
    """What changes while it is counted cannot be a key."""
    with pytest.raises(TypeError, match="unhashable"):
        hash(_PLAIN)
    with pytest.raises(TypeError, match="unhashable"):
        hash(BackendInstrumentation().stats)


def test_live_object_shows_counts_after_it_was_taken() -> None:
    """A reference taken before a run shows what the run counted."""
    backend = BackendInstrumentation()
    stats = backend.stats
    assert stats.total_lookups == 0
    for prompt in ("a", "a", "b"):
        backend.cached("op", "base", prompt, 1, lambda: 0)
    backend.cached_batch("op", "base", ["a", "c", "d", "e"], 1, lambda indices: [0] * len(indices))
    assert backend.stats is stats
    assert isinstance(stats, BackendStats)
    assert (stats.cache_hits, stats.cache_misses, stats.forward_passes) == (2, 5, 5)
    assert (stats.batches_sent, stats.batched_prompts, stats.max_batch_size) == (1, 3, 3)
    assert (stats.total_lookups, stats.hit_rate, stats.avg_batch_size) == (7, 2 / 7, 3.0)
    assert list(stats.to_dict()) == _KEYS
    assert stats.to_dict()["cache_hits"] == 2
    assert stats.scoring_wall_s > 0


def _ledger_with_one_of_each() -> Ledger:
    ledger = Ledger()
    ledger.hit(None, "base", "op", 1)
    _miss(ledger, None, "base", "op", 2, 2)
    _miss(ledger, None, "base", "op", 3, 3, "ValueError")
    return ledger


def test_live_object_equals_what_it_shows_now() -> None:
    """It compares with plain values and other live ones, by the counts of the moment."""
    ledger = _ledger_with_one_of_each()
    live = ledger.live_stats()
    plain = BackendStats(1, 2, 1, 6e-9)
    assert live == plain
    assert plain == live
    assert live == ledger.live_stats()
    ledger.hit(None, "base", "op", 0)
    assert live != plain


@pytest.mark.parametrize("take", [copy.copy, copy.deepcopy])
def test_copy_of_a_live_object_is_plain(take: Callable[[BackendStats], BackendStats]) -> None:
    """A copy keeps the counts of its moment and holds no ledger."""
    ledger = _ledger_with_one_of_each()
    live = ledger.live_stats()
    copied = take(live)
    ledger.hit(None, "base", "op", 0)
    assert type(copied) is BackendStats
    assert copied == BackendStats(1, 2, 1, 6e-9)
    assert live.cache_hits == 2


def test_copy_of_a_live_object_is_of_one_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lookup that is counted between two fields cannot come between them in the copy."""
    ledger = Ledger()
    totals = ledger.totals

    def busy() -> BackendStats:
        _miss(ledger, None, "base", "op", 0, 0)
        return totals()

    monkeypatch.setattr(ledger, "totals", busy)
    copied = copy.copy(ledger.live_stats())
    assert copied.cache_misses == copied.forward_passes


def test_repr_of_a_live_object_is_that_of_its_counts() -> None:
    """It prints as the plain value that it shows now."""
    live = _ledger_with_one_of_each().live_stats()
    assert repr(live) == repr(BackendStats(1, 2, 1, 6e-9))


@pytest.mark.parametrize("name", ["cache_hits", "scoring_wall_s", "hit_rate", "new_name"])
def test_live_object_cannot_be_set(name: str) -> None:
    """Only the ledger counts; an assignment says so and changes nothing."""
    live = _ledger_with_one_of_each().live_stats()
    before = live.to_dict()
    with pytest.raises(AttributeError, match=f"{name} is counted by the backend"):
        setattr(live, name, 99)
    assert live.to_dict() == before
