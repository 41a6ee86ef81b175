"""`forwardscope sway` where dlm-sway is not installed."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest


def test_a_missing_tool_is_one_sentence_with_the_way_out(
    error_of: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit status 2, and the extra to install."""
    monkeypatch.setitem(sys.modules, "dlm_sway", None)
    said = error_of("sway", "--", "run", "sway.yaml")
    assert "dlm_sway is not installed" in said
    assert "pip install" in said


def test_arguments_come_after_two_dashes(error_of: Callable[..., str]) -> None:
    """Without them the error shows a whole command."""
    assert "forwardscope sway --store default -- run sway.yaml" in error_of("sway")
