"""The general prompts and texts."""

from __future__ import annotations

from pathlib import Path

from forwardscope.probes.adapter_ablation import AdapterAblation
from forwardscope.probes.delta_kl import DeltaKL
from forwardscope.probes.general import GENERAL_PROMPTS, GENERAL_TEXTS
from forwardscope.probes.null_adapter import NullAdapter
from forwardscope.probes.perplexity_shift import PerplexityShift

DOCS = Path(__file__).parents[2] / "docs" / "probes.md"


def test_there_are_32_different_short_ones() -> None:
    """No prompt is the beginning of another one, so that none says a thing twice."""
    assert len(GENERAL_PROMPTS) == len(GENERAL_TEXTS) == 32
    for prompt in GENERAL_PROMPTS:
        assert sum(text.startswith(prompt) for text in GENERAL_TEXTS) == 1
    assert all(len(text) <= 100 for text in GENERAL_TEXTS)


def test_probes_without_prompts_use_them() -> None:
    """A baseline is measured on the prompts of the probe that it calibrates."""
    assert DeltaKL(name="x").prompts == AdapterAblation(name="x").prompts == GENERAL_PROMPTS
    assert NullAdapter(name="x").sentinel_prompts == GENERAL_PROMPTS
    assert PerplexityShift(name="x").texts == GENERAL_TEXTS


def test_they_are_documented() -> None:
    """The page of the probes has each text, its prompt in bold."""
    page = DOCS.read_text(encoding="utf-8")
    for prompt, text in zip(GENERAL_PROMPTS, GENERAL_TEXTS, strict=True):
        assert f"**{prompt}**{text.removeprefix(prompt)} |" in page
