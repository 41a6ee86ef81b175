"""BackendStats is a plain value by hand, and a live one at a backend."""

from __future__ import annotations

import copy
import itertools
import pickle
from collections.abc import Callable
from dataclasses import asdict, astuple, replace

import pytest

from forwardscope import BackendInstrumentation, BackendStats
from forwardscope.core.ledger import Ledger
from forwardscope.core.stats import LiveStats
from forwardscope.recorder import Outcome

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


def test_plain_value_shows_what_it_was_built_with() -> None:
    """Seven numbers go in, and three more follow from them."""
    assert astuple(_PLAIN) == (6, 2, 1, 0.5, 2, 5, 4)
    assert (_PLAIN.total_lookups, _PLAIN.hit_rate, _PLAIN.avg_batch_size) == (8, 0.75, 2.5)


def test_ratios_of_nothing_are_zero() -> None:
    """Without lookups and batches both ratios are 0.0."""
    stats = BackendStats()
    assert astuple(stats) == (0, 0, 0, 0.0, 0, 0, 0)
    assert (stats.total_lookups, stats.hit_rate, stats.avg_batch_size) == (0, 0.0, 0.0)


def test_to_dict_has_nine_keys() -> None:
    """They are the seven fields and the two ratios, in this order."""
    assert list(_PLAIN.to_dict()) == _KEYS
    assert list(_PLAIN.to_dict().values()) == [6, 2, 1, 0.5, 2, 5, 4, 0.75, 2.5]


def test_plain_value_can_be_changed() -> None:
    """Built by hand, it counts nothing by itself and can be set."""
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
    """A value that changes cannot be a key."""
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


_SERIES = (None, "base", "op")


def _outcome(result: str, wall_ns: int, error: str | None = None) -> Outcome:
    return Outcome(("op", "base", "prompt", 1), None, result, 0, wall_ns, error=error)  # type: ignore[arg-type]


def _ledger_with_one_of_each() -> Ledger:
    ledger = Ledger()
    each = [_outcome("hit", 1), _outcome("miss", 2), _outcome("miss", 3, "ValueError")]
    ledger.add(_SERIES, each, 6)
    return ledger


def _add_hit(ledger: Ledger) -> None:
    ledger.add(_SERIES, [_outcome("hit", 0)], 0)


def test_live_object_equals_what_it_shows_now() -> None:
    """It compares with plain values and other live ones, by the counts of the moment."""
    ledger = _ledger_with_one_of_each()
    live = LiveStats(ledger.totals)
    plain = BackendStats(1, 2, 1, 6e-9)
    assert live == plain
    assert plain == live
    assert live == LiveStats(ledger.totals)
    _add_hit(ledger)
    assert live != plain
    assert plain != live


TAKEN: dict[str, Callable[[BackendStats], BackendStats]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda stats: pickle.loads(pickle.dumps(stats)),  # noqa: S301 - its own
}
each_way = pytest.mark.parametrize("take", TAKEN.values(), ids=TAKEN)


@each_way
def test_copy_of_a_live_object_is_plain(take: Callable[[BackendStats], BackendStats]) -> None:
    """A copy keeps the counts of its moment and holds no ledger."""
    ledger = _ledger_with_one_of_each()
    live = LiveStats(ledger.totals)
    copied = take(live)
    _add_hit(ledger)
    assert type(copied) is BackendStats
    assert copied == BackendStats(1, 2, 1, 6e-9)
    assert live.cache_hits == 2


def _busy() -> BackendStats:
    """Return totals that are others at each call, as those of a busy backend are."""
    n = next(_NUMBERS)
    return BackendStats(n, n, n, float(n), n, n, n)


_NUMBERS = itertools.count(1)


@each_way
def test_copy_of_a_live_object_is_of_one_moment(
    take: Callable[[BackendStats], BackendStats],
) -> None:
    """All fields of a copy are those of one moment, also while lookups are counted."""
    assert len(set(astuple(take(LiveStats(_busy))))) == 1


def test_each_method_of_a_live_object_is_of_one_moment() -> None:
    """What follows from several fields follows from those of one moment."""
    live = LiveStats(_busy)
    assert live.total_lookups % 2 == 0
    assert (live.hit_rate, live.avg_batch_size) == (0.5, 1.0)
    numbers = list(live.to_dict().values())
    assert len(set(numbers[:7])) == 1
    assert numbers[7:] == [0.5, 1.0]


def test_repr_of_a_live_object_is_that_of_its_counts() -> None:
    """It prints as the plain value that it shows now."""
    live = LiveStats(_ledger_with_one_of_each().totals)
    assert repr(live) == repr(BackendStats(1, 2, 1, 6e-9))


@pytest.mark.parametrize("name", ["cache_hits", "scoring_wall_s", "hit_rate", "new_name"])
def test_live_object_cannot_be_set(name: str) -> None:
    """An assignment raises an error that says who counts, and changes nothing."""
    live = LiveStats(_ledger_with_one_of_each().totals)
    before = live.to_dict()
    with pytest.raises(AttributeError, match=f"{name} is counted by the backend"):
        setattr(live, name, 99)
    assert live.to_dict() == before
