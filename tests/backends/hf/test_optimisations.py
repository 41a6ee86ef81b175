"""The state of each optimisation, as results and `doctor` have it."""

from __future__ import annotations

from forwardscope.backends.hf.optimisations import PADDED_BATCHES, PREFIX_SHARING, Optimisations


def test_every_limit_is_stated() -> None:
    """A second limit is added to the first, and a repeated one is not."""
    states = Optimisations()
    for limit in ("for short prompts", "for small caches", "for short prompts"):
        states.limit(limit, PREFIX_SHARING)
    assert states.to_dict() == {
        PREFIX_SHARING: "on (for short prompts; for small caches)",
        PADDED_BATCHES: "on",
    }


def test_off_stays_off_for_its_first_reason() -> None:
    """What is off has no limit any more, and keeps the reason that it was turned off for."""
    states = Optimisations()
    states.limit("for short prompts")
    states.turn_off("no cache", PREFIX_SHARING)
    states.turn_off("strict")
    assert states.to_dict() == {PREFIX_SHARING: "off (no cache)", PADDED_BATCHES: "off (strict)"}


def test_joined_states_are_off_where_one_is() -> None:
    """The own reason stays, a new one is added, and the larger tolerance is taken."""
    states, others = Optimisations(), Optimisations()
    states.turn_off("no cache", PREFIX_SHARING)
    others.turn_off("other values")
    others.tolerance = 2.0
    states.join(others)
    others.join(Optimisations())
    off = {PREFIX_SHARING: "off (no cache)", PADDED_BATCHES: "off (other values)"}
    assert (states.to_dict(), states.tolerance, others.tolerance) == (off, 2.0, 2.0)
