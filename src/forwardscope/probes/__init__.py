"""The probes: named measurements over the views of a backend."""

from forwardscope.probes.adapter_ablation import AdapterAblation
from forwardscope.probes.base import (
    Outcome,
    Probe,
    ProbeContext,
    Prompts,
    Texts,
    Threshold,
    Verdict,
)
from forwardscope.probes.completion_preference import CompletionPreference
from forwardscope.probes.delta_kl import DeltaKL
from forwardscope.probes.null_adapter import NullAdapter
from forwardscope.probes.perplexity_shift import PerplexityShift
from forwardscope.probes.prompt_collapse import PromptCollapse

__all__ = [
    "PROBES",
    "AdapterAblation",
    "CompletionPreference",
    "DeltaKL",
    "NullAdapter",
    "Outcome",
    "PerplexityShift",
    "Probe",
    "ProbeContext",
    "PromptCollapse",
    "Prompts",
    "Texts",
    "Threshold",
    "Verdict",
]

#: Probe classes by their `kind` in a suite file.
PROBES: dict[str, type[Probe]] = {
    "null_adapter": NullAdapter,
    "delta_kl": DeltaKL,
    "adapter_ablation": AdapterAblation,
    "prompt_collapse": PromptCollapse,
    "perplexity_shift": PerplexityShift,
    "completion_preference": CompletionPreference,
}
