"""What a server's batches change is measured before stored values are compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forwardscope import BackendInstrumentation
from forwardscope.backends import TokenDist
from forwardscope.backends.openai.tolerance import measured_tolerance
from forwardscope.store.sqlite import SqliteStore
from forwardscope.store.tier import DEFAULT_TOLERANCE

from .conftest import OpenBackend
from .vllm_double import VllmDouble


class Noisy:
    """A scorer whose values differ by `noise` where prompts are computed together."""

    vocab_size = 3

    def __init__(self, noise: float) -> None:
        self._noise = noise

    def next_token_dists(self, prompts: Sequence[str], top_k: int) -> list[TokenDist]:
        first = -0.5 + (self._noise if len(prompts) > 1 else 0.0)
        return [TokenDist(np.array([1, 2]), np.array([first, -2.0]), 3, -3.0) for _ in prompts]


@pytest.mark.parametrize(
    ("noise", "tolerance"), [(0.0, DEFAULT_TOLERANCE), (1e-6, DEFAULT_TOLERANCE), (0.01, 0.04)]
)
def test_measured(noise: float, tolerance: float) -> None:
    """Four times the largest difference, and at least that of float32."""
    scorer: Any = Noisy(noise)
    assert measured_tolerance(scorer) == pytest.approx(tolerance, rel=1e-3)


def test_measured_where_values_are_stored(
    open_backend: OpenBackend, server: VllmDouble, tmp_path: Path
) -> None:
    """Only a backend with a store and a revision asks for it, and its cache knows nothing of it."""
    asked = []
    for revision in (None, "1"):
        store = SqliteStore(tmp_path / "store.db")
        inst = BackendInstrumentation(store=store)
        before = len(server.of("completions"))
        backend = open_backend(inst, revision=revision)
        asked.append(len(server.of("completions")) - before)
        assert backend.tolerance >= DEFAULT_TOLERANCE
        assert (inst.stats.total_lookups, len(inst.cache)) == (0, 0)
        assert ("model.revision is not given" in " ".join(backend.warnings)) is (revision is None)
        backend.close()
        store.close()
    assert asked == [2, 2 + 5]
