"""Coverage of the tests themselves."""

from __future__ import annotations

import sys

import pytest


@pytest.mark.no_cover
def test_no_cover_stops_all_tracing() -> None:
    """A traced thread could hold the lock of coverage's data at a fork."""
    assert sys.gettrace() is None
