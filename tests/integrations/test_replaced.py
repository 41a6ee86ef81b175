"""Attributes that are replaced for a while."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from forwardscope.integrations.replaced import replaced


@pytest.mark.parametrize("before", [{"name": 1}, {}])
def test_an_attribute_is_as_before_also_after_an_error(before: dict[str, int]) -> None:
    """One that was missing is missing again, such as a method that its class has."""
    place = SimpleNamespace(**before)
    with pytest.raises(ZeroDivisionError), replaced(place, "name", 2):
        assert place.name == 2
        _ = 1 / 0
    assert vars(place) == before
