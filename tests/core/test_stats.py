"""BackendStats: a plain value built by hand, and a live object at a backend."""

from __future__ import annotations

import copy
import itertools
import pickle
from collections.abc import Callable
from dataclasses import asdict, astuple, fields, replace

import pytest

from forwardscope import BackendInstrumentation, BackendStats
from forwardscope.core.stats import LiveStats

_PLAIN = BackendStats(6, 2, 1, 0.5, 2, 5, 4)


def test_plain_value() -> None:
    """It has seven fields and three derived values, and its fields can be set."""
    stats = replace(_PLAIN)
    assert (stats.total_lookups, stats.hit_rate, stats.avg_batch_size) == (8, 0.75, 2.5)
    stats.cache_hits = 3
    assert stats == BackendStats(3, 2, 1, 0.5, 2, 5, 4)
    with pytest.raises(AttributeError):
        stats.cache_hit = 3  # type: ignore[attr-defined]


def test_ratios_of_nothing_are_zero() -> None:
    """Without lookups and batches both ratios are 0.0."""
    stats = BackendStats()
    assert (stats.total_lookups, stats.hit_rate, stats.avg_batch_size) == (0, 0.0, 0.0)


def test_to_dict_has_the_fields_and_the_ratios() -> None:
    """The seven fields come first, in order."""
    assert list(_PLAIN.to_dict().items()) == [
        *((field.name, getattr(_PLAIN, field.name)) for field in fields(BackendStats)),
        ("hit_rate", 0.75),
        ("avg_batch_size", 2.5),
    ]


def test_equality_is_by_counts() -> None:
    """Each of the seven fields counts; there is no hash."""
    for name, value in asdict(_PLAIN).items():
        assert replace(_PLAIN, **{name: value + 1}) != _PLAIN
    assert replace(_PLAIN) == _PLAIN
    assert _PLAIN.to_dict() != _PLAIN
    with pytest.raises(TypeError, match="unhashable"):
        hash(_PLAIN)


def test_live_object_has_the_counts_of_the_moment() -> None:
    """It is one object, and equals the plain value of its counts."""
    backend = BackendInstrumentation()
    stats = backend.stats
    for prompt in ("a", "a", "b"):
        backend.cached("op", "base", prompt, 1, lambda: 0)
    backend.cached_batch("op", "base", ["a", "c", "d", "e"], 1, lambda indices: [0] * len(indices))
    assert backend.stats is stats
    plain = BackendStats(2, 5, 5, stats.scoring_wall_s, 1, 3, 3)
    assert stats == plain == stats == LiveStats(backend.ledger.totals)
    assert (repr(stats), stats.to_dict()) == (repr(plain), plain.to_dict())
    backend.cached("op", "base", "a", 1, lambda: 0)
    assert stats != plain
    assert plain != stats
    with pytest.raises(TypeError, match="unhashable"):
        hash(stats)


def _changing() -> Callable[[], BackendStats]:
    """Return totals that differ at each call, as those of a busy backend do."""
    numbers = itertools.count(1)

    def totals() -> BackendStats:
        n = next(numbers)
        return BackendStats(n, n, n, float(n), n, n, n)

    return totals


@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, lambda stats: pickle.loads(pickle.dumps(stats))],  # noqa: S301 - own
    ids=["copy", "deepcopy", "pickle"],
)
def test_copy_of_a_live_object_is_plain_and_of_one_moment(
    copied: Callable[[BackendStats], BackendStats],
) -> None:
    """All its fields are of one moment."""
    taken = copied(LiveStats(_changing()))
    assert type(taken) is BackendStats
    assert len(set(astuple(taken))) == 1


def test_method_of_a_live_object_is_of_one_moment() -> None:
    """A value that depends on several fields uses those of one moment."""
    live = LiveStats(_changing())
    assert live.total_lookups % 2 == 0
    assert (live.hit_rate, live.avg_batch_size) == (0.5, 1.0)
    numbers = list(live.to_dict().values())
    assert len(set(numbers[:7])) == 1
    assert numbers[7:] == [0.5, 1.0]


@pytest.mark.parametrize("name", ["cache_hits", "hit_rate", "new_name"])
def test_live_object_cannot_be_set(name: str) -> None:
    """The error names the attribute."""
    with pytest.raises(AttributeError, match=f"{name} is counted by the backend"):
        setattr(LiveStats(BackendStats), name, 99)
