"""View ids are exact, and one view is open at a time."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from forwardscope.backends.views import ViewSlot, null_view_id, scaled_view_id
from forwardscope.core.keys import view_family
from forwardscope.errors import ViewError

InThread = Callable[[Callable[[], Any]], "Future[Any]"]

finite = st.floats(allow_nan=False, allow_infinity=False)
positive = st.floats(min_value=0, exclude_min=True, allow_infinity=False)


@pytest.mark.parametrize(
    ("lam", "view_id"),
    [
        (0.121, "scaled_0.121"),
        (0.124, "scaled_0.124"),
        (1, "scaled_1.0"),
        (-0.5, "scaled_-0.5"),
        (1e-9, "scaled_1e-09"),
        (0.1 + 0.2, "scaled_0.30000000000000004"),
        (-0.0, "scaled_0.0"),
        (0, "scaled_0.0"),
    ],
)
def test_scaled_id_is_exact(lam: float, view_id: str) -> None:
    """The id contains all digits of the scale; zero has no sign."""
    assert scaled_view_id(lam) == view_id


@given(finite, finite)
def test_scaled_ids_are_equal_where_the_scales_are(one: float, other: float) -> None:
    """Two scales have the same id if and only if they are equal."""
    assert (scaled_view_id(one) == scaled_view_id(other)) == (one == other)


@pytest.mark.parametrize("lam", [math.nan, math.inf, -math.inf])
def test_scale_must_be_finite(lam: float) -> None:
    """NaN or infinity raises an error with the value."""
    with pytest.raises(ValueError, match=f"must be finite; got {lam}"):
        scaled_view_id(lam)


@pytest.mark.parametrize(
    ("arguments", "view_id"),
    [
        ((7, 0.02, 1.0), "null_7"),
        ((7, 0.02, 1), "null_7"),
        ((7, 0.05, 1.0), "null_7_init0.05"),
        ((7, 0.02, 2), "null_7_rank2.0"),
        ((7, 1, 0.5), "null_7_init1.0_rank0.5"),
        ((-1, 0.02, 1.0), "null_-1"),
    ],
)
def test_null_id_omits_defaults(arguments: tuple[int, float, float], view_id: str) -> None:
    """The id always contains the seed, and each scale that is not the default."""
    assert null_view_id(*arguments) == view_id


nulls = st.tuples(st.integers(0, 20), positive, positive)


@given(nulls, nulls)
def test_null_ids_are_equal_where_the_arguments_are(
    one: tuple[int, float, float], other: tuple[int, float, float]
) -> None:
    """Two null views have the same id if and only if seed and both scales are equal."""
    assert (null_view_id(*one) == null_view_id(*other)) == (one == other)


@pytest.mark.parametrize("value", [0.0, -0.02, math.nan, math.inf])
def test_null_scales_must_be_positive(value: float) -> None:
    """Zero, negative and non-finite scales raise an error with name and value."""
    with pytest.raises(ValueError, match=f"^init_scale must be positive and finite; got {value}"):
        null_view_id(1, value, 1.0)
    with pytest.raises(ValueError, match=f"^rank_scale must be positive and finite; got {value}"):
        null_view_id(1, 0.02, value)


@pytest.mark.parametrize(
    ("view_id", "family"),
    [
        ("base", "base"),
        ("ft", "ft"),
        (scaled_view_id(0.25), "scaled"),
        (scaled_view_id(-1e-9), "scaled"),
        (null_view_id(3, 0.05, 2.0), "null"),
    ],
)
def test_family_is_the_id_without_parameter(view_id: str, family: str) -> None:
    """Each id belongs to one of four families."""
    assert view_family(view_id) == family


def test_slot_names_both_views() -> None:
    """Opening a second view raises an error with both ids; the first view stays open."""
    slot = ViewSlot()
    with slot.hold("ft"):
        with pytest.raises(ViewError, match=r"view 'ft' is open.* opening view 'base'"):
            slot.hold("base").__enter__()
        assert slot.current == "ft"
        with pytest.raises(ViewError, match="opening view 'ft'"):
            slot.hold("ft").__enter__()
    assert slot.current is None


def test_slot_is_free_after_a_view() -> None:
    """Views can be opened one after another, also the same view twice."""
    slot = ViewSlot()
    for view_id in ("base", "ft", "ft"):
        with slot.hold(view_id):
            assert slot.current == view_id


def test_slot_is_free_after_an_exception() -> None:
    """An exception inside a view is raised unchanged and frees the slot."""
    slot = ViewSlot()
    with pytest.raises(KeyboardInterrupt), slot.hold("ft"):
        raise KeyboardInterrupt
    with slot.hold("base"):
        assert slot.current == "base"


def test_one_of_many_threads_gets_the_slot(in_thread: InThread) -> None:
    """If eight threads open a view at once, one holds the slot and seven get an error."""
    slot, start, tried = ViewSlot(), threading.Barrier(8), threading.Barrier(8)

    def open_view(number: int) -> str:
        start.wait(timeout=60)
        try:
            with slot.hold(f"scaled_{number}"):
                tried.wait(timeout=60)  # the holder waits until all have tried
                return "held"
        except ViewError:
            tried.wait(timeout=60)
            return "error"

    threads = [in_thread(lambda number=number: open_view(number)) for number in range(8)]
    outcomes = [thread.result(timeout=60) for thread in threads]
    assert sorted(outcomes) == ["error"] * 7 + ["held"]
    assert slot.current is None
