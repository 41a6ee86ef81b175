"""Compare divergences of top-k sets with those over the whole vocabulary, on the demo's model.

    python benchmarks/divergence.py

Prints a table in Markdown: for each view of the demo's adapter the mean Jensen-Shannon and
KL divergence from base over eight prompts, and the share of it that the top k tokens give.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import numpy as np

from forwardscope.backends import ScoringView, TokenDist
from forwardscope.backends.hf import HFBackend, ModelSource, load_backend
from forwardscope.backends.hf.demo_model import demo_adapter, demo_model
from forwardscope.probes.divergence import Divergence, divergences

_TOP_K = (64, 256, 1024)
_PROMPTS = (
    "The capital of France is",
    "To bake bread you need",
    "The harbour at night",
    "Once upon a time",
    "The quick brown fox",
    "In the year 1920",
    "def fibonacci(n):",
    "My favourite food is",
)


def main() -> None:
    """Print the table."""
    model = demo_model(_ignore)
    backend = load_backend(ModelSource(str(model), str(demo_adapter(model, _ignore))))
    base = _whole(backend.as_base)
    tops = " | ".join(f"top {k}" for k in _TOP_K)
    sys.stdout.write(f"| view | divergence | over the vocabulary, nats | {tops} |\n")
    sys.stdout.write("| --- | --- | ---: |" + " ---: |" * len(_TOP_K) + "\n")
    for name, opened in _views(backend):
        other = _whole(opened)
        for kind in ("js", "kl"):
            sys.stdout.write(f"| {name} | {kind} | {_row(base, other, kind)} |\n")
    backend.close()


def _views(
    backend: HFBackend,
) -> list[tuple[str, Callable[[], AbstractContextManager[ScoringView]]]]:
    scaled = [(f"λ = {lam}", lambda lam=lam: backend.as_scaled_adapter(lam)) for lam in _SCALES]
    null = [(f"random {seed}", lambda seed=seed: backend.as_null_adapter(seed)) for seed in _SEEDS]
    return [*scaled, *null]


_SCALES = (0.01, 0.05, 0.25, 1.0)
_SEEDS = (1000, 1001, 1002)


def _whole(opened: Callable[[], AbstractContextManager[ScoringView]]) -> list[TokenDist]:
    with opened() as view:
        return view.next_token_dist_batch(_PROMPTS, top_k=1 << 30)


def _row(base: Sequence[TokenDist], other: Sequence[TokenDist], kind: Divergence) -> str:
    whole = float(np.mean([_textbook(p, q, kind) for p, q in zip(base, other, strict=True)]))
    shares = []
    for k in _TOP_K:
        found = divergences([_cut(p, k) for p in base], [_cut(q, k) for q in other], kind)
        shares.append(f"{100 * float(np.mean(found)) / whole:.0f} %")
    return f"{whole:.2g} | " + " | ".join(shares)


def _cut(dist: TokenDist, k: int) -> TokenDist:
    tail = float(np.logaddexp.reduce(dist.logprobs[k:].astype(np.float64)))
    return TokenDist(dist.token_ids[:k], dist.logprobs[:k], dist.vocab_size, tail)


def _textbook(base: TokenDist, other: TokenDist, kind: Divergence) -> float:
    log_p, log_q = (_by_token(dist) for dist in (base, other))
    p, q = np.exp(log_p), np.exp(log_q)
    if kind == "kl":
        return float(np.sum(q * (log_q - log_p)))
    log_middle = np.log((p + q) / 2)
    return float(np.sum(p * (log_p - log_middle)) + np.sum(q * (log_q - log_middle))) / 2


def _by_token(dist: TokenDist) -> np.ndarray:
    logprobs = np.empty(dist.vocab_size)
    logprobs[dist.token_ids] = dist.logprobs
    return logprobs


def _ignore(done: int, total: int) -> None:
    """Ignore the progress of making the demo's model."""


if __name__ == "__main__":
    main()
