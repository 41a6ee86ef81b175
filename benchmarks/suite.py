"""Run the same four-probe suite on a real model with forwardscope or dlm-sway.

    python benchmarks/worker.py ours|peer MODEL ADAPTER

Both sides use the same prompts, the same filler (the tokenizer's pad token) and the same random
adapters. The measured time is that of the probes: it excludes loading and the check of the views.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

PROMPTS = (
    "The keeper of the harbour ledger is",
    "The gauge is made of",
    "The lamp of the harbour is",
    "The number of walks is posted on",
    "The rule of the harbour is short",
    "Each walk is written down in",
)
#: Prompts on which the peer measures random adapters.
SENTINELS = ("The capital of", "Once upon a time", "An interesting fact is", "The next step is to")
LENGTHS = (0, 256, 512, 1024)
_SEED, _TOP_K, _NULL_RUNS = 7, 256, 3


def probes(n: int) -> list[dict[str, Any]]:
    """Return the probes of a suite with `n` prompts; a smaller `n` also means less filler."""
    prompts = list(PROMPTS[:n])
    lengths = [length * n // len(PROMPTS) for length in LENGTHS]
    collapse = {"prompts": prompts[: max(1, n // 2)], "context_lengths": lengths}
    return [
        {"name": "baseline", "kind": "null_adapter", "runs": _NULL_RUNS},
        {"name": "change", "kind": "delta_kl", "prompts": prompts},
        {"name": "response", "kind": "adapter_ablation", "prompts": prompts},
        {"name": "long-context", "kind": "prompt_collapse"} | collapse,
    ]


def run(n: int) -> dict[str, Any]:
    """Run the suite of `n` prompts on this worker's side, with an empty cache and no sinks."""
    return peer(n) if sys.argv[1] == "peer" else ours(n)


def logprobs(backend: Any) -> list[float]:
    """Return the ten largest log-probabilities of each sentinel prompt, in both views."""
    found: list[float] = []
    for opened in (backend.as_base, backend.as_finetuned):
        with opened() as view:
            for prompt in SENTINELS:
                dist = view.next_token_dist(prompt, top_k=10)
                found += map(float, dist.logprobs)
    return found


def ours(n: int, **settings: Any) -> dict[str, Any]:
    """Run the suite with forwardscope, on a backend with `settings`."""
    from forwardscope import BackendInstrumentation  # noqa: PLC0415 - not in the peer's
    from forwardscope.backends.hf import ModelSource, load_backend  # noqa: PLC0415 - slow import
    from forwardscope.suite import SuiteSpec, run_suite  # noqa: PLC0415 - not in the peer's

    path, adapter = sys.argv[2:]
    baseline, *others = probes(n)
    model = {"path": path, "adapter": adapter, "device": "cpu", "dtype": "float32"}
    spec = SuiteSpec.model_validate(
        {
            "version": 1,
            "model": model,
            "defaults": {"seed": _SEED, "top_k": _TOP_K},
            "probes": [baseline | {"sentinel_prompts": SENTINELS}, *others],
        }
    )
    instrumentation = BackendInstrumentation(**settings)
    backend = load_backend(ModelSource(**model), instrumentation=instrumentation)
    result = run_suite(spec, backend)
    agreed = logprobs(backend)
    backend.close()
    ns = sum(probe.duration_s for probe in result.probes) * 1e9
    lookups = [result.backend_stats[kind] for kind in ("cache_hits", "cache_misses")]
    passes = sum(one.forward_passes for one in result.series)
    forward_ns = 1e9 * sum(one.forward_s for one in result.series) / max(1, passes)
    return {"ns": ns, "close": agreed, "lookups": lookups, "forward_ns": forward_ns}


def peer(n: int) -> dict[str, Any]:
    """Run the suite with dlm-sway, without its cache of random adapters."""
    from dlm_sway.backends.hf import HuggingFaceDifferentialBackend  # noqa: PLC0415 - not in ours
    from dlm_sway.core.model import ModelSpec  # noqa: PLC0415 - not in ours
    from dlm_sway.suite import runner  # noqa: PLC0415 - not in ours
    from dlm_sway.suite.spec import (  # noqa: PLC0415 - not in ours
        SuiteDefaults,
        SuiteModels,
        SwaySpec,
    )

    path, adapter = sys.argv[2:]
    baseline, *others = probes(n)
    model = ModelSpec(base=path, adapter=Path(adapter), dtype="fp32", device="cpu")
    spec = SwaySpec(
        models=SuiteModels(base=model, ft=model),
        defaults=SuiteDefaults(seed=_SEED, top_k=_TOP_K),
        suite=[baseline | {"cache": False}, *others],
    )
    backend = HuggingFaceDifferentialBackend(base_spec=model, adapter_path=Path(adapter))
    result = runner.run(spec, backend)
    agreed = logprobs(backend)
    backend.close()
    return {"ns": sum(probe.duration_s for probe in result.probes) * 1e9, "close": agreed}
