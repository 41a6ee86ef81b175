"""`forwardscope lm-eval` where lm-evaluation-harness is not installed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from forwardscope.cli.options import RunOptions
from forwardscope.cli.tools import for_rank


def test_a_missing_harness_is_one_sentence_with_the_way_out(
    error_of: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit status 2, and the extra to install."""
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    said = error_of("lm-eval", "--", "run")
    assert "lm_eval is not installed" in said
    assert "pip install" in said


def test_arguments_come_after_two_dashes(error_of: Callable[..., str]) -> None:
    """Without them the error shows a whole command."""
    assert "forwardscope lm-eval --store default -- run --model hf" in error_of("lm-eval")


@pytest.mark.parametrize("tool", ["lm-eval", "sway"])
def test_an_option_of_the_tool_before_the_dashes_is_told_where_to_go(
    invoke: Callable[..., Result], tool: str
) -> None:
    """A mistake in an option of ours, with the dashes there, has no such hint."""
    hint = f"the arguments of {tool} go after --"
    said = invoke(tool, "run", "--model", "hf").stderr
    assert "--model" in said
    assert hint in said
    assert hint not in invoke(tool, "--sotre", "s.db", "--", "run").stderr


def test_the_first_rank_alone_has_files_and_metrics() -> None:
    """Others keep the trace, the store and the spans."""
    trace, result = Path("t.jsonl"), Path("r.json")
    options = RunOptions(json=result, trace=trace, store="s.db", metrics_port=9000, otlp="x")
    assert for_rank(options, 0) is options
    other = for_rank(options, 1)
    assert (other.json, other.metrics_port, other.quiet) == (None, None, True)
    assert (other.trace, other.store, other.otlp) == (trace, "s.db", "x")
