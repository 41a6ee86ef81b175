"""Panels of the batches that are sent to the model, and of the prefixes that they share."""

from __future__ import annotations

from forwardscope.dashboards.panels import Panel, line_panel
from forwardscope.dashboards.queries import of_chosen_runs, rate, ratio, series
from forwardscope.telemetry import names

__all__ = ["batches_and_prefixes"]


def batches_and_prefixes() -> tuple[Panel, ...]:
    """Return the panels."""
    return batch_size(), largest_batch(), batches(), prompt_tokens()


def batch_size() -> Panel:
    """Mean batch size."""
    return line_panel(
        "Prompts per batch",
        "Mean size of the batches that were sent to the model.",
        {
            "{{backend}}": ratio(
                rate(names.BATCH_PROMPTS, by="backend", part="_sum"),
                rate(names.BATCH_PROMPTS, by="backend", part="_count"),
            )
        },
        "none",
        width=6,
    )


def largest_batch() -> Panel:
    """Largest batch size."""
    return line_panel(
        "Largest batch",
        "Prompts in the largest batch since the backend was created.",
        {"{{backend}}": f"max by (backend) ({of_chosen_runs(series(names.BATCH_PROMPTS_MAX))})"},
        "none",
        width=6,
        stepped=True,
    )


def batches() -> Panel:
    """Batches per second."""
    return line_panel(
        "Batches per second",
        "Forward calls with several prompts.",
        {"{{backend}}": rate(names.BATCH_PROMPTS, by="backend", part="_count")},
        "suffix:/s",
        width=6,
    )


def prompt_tokens() -> Panel:
    """Prompt tokens per second, computed and reused."""
    return line_panel(
        "Prompt tokens per second",
        "Prompt tokens of the forward passes. computed: by the model. reused: of a prefix that an "
        "earlier prompt of the view had computed. A backend that does not report them has none.",
        {"{{result}}": rate(names.PREFIX_TOKENS, by="result")},
        "suffix:/s",
        width=6,
        stacked=True,
    )
