"""What a probe of dlm-sway is going to ask, computed in batches before it asks.

Probes ask one prompt at a time, and change between views for each. So a probe first runs on
made-up values, and what it asks is recorded. Then all of it is computed, view by view, and
the probe runs as always. What it did not ask at first is computed alone.
"""

from __future__ import annotations

import random
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

import numpy as np
from dlm_sway.probes import null_adapter

from forwardscope.backends.dry_run import dry_run_backend
from forwardscope.errors import ForwardscopeError
from forwardscope.integrations.dlm_sway_asking import AskingBackend, Lookup, compute, compute_batch
from forwardscope.integrations.replaced import replaced

__all__ = ["Answers", "lookups_of"]

#: What writes the measurements of random adapters to a file of dlm-sway.
_SAVE: Final = "save"


class _UnplannedError(ForwardscopeError):
    """A text cannot be made up."""


class Answers:
    """Values of lookups that are still to come; each is for one lookup."""

    def __init__(self) -> None:
        self._values: dict[Lookup, deque[Any]] = {}

    def compute(self, backend: Any, lookups: Sequence[Lookup]) -> None:
        """Compute lookups on a backend of ours, in one batch for each view, op and `top_k`.

        Those of a batch that fails have no values, so that each fails or succeeds where it
        is made.
        """
        batches: dict[tuple[Any, ...], list[Lookup]] = {}
        for lookup in lookups:
            batches.setdefault((lookup.opening, lookup.op, lookup.top_k), []).append(lookup)
        for batch in batches.values():
            with suppress(Exception), batch[0].opening.of(backend) as view:
                for lookup, value in zip(batch, compute_batch(view, batch), strict=True):
                    self._values.setdefault(lookup, deque()).append(value)

    def take(self, lookup: Lookup) -> Any | None:
        """Return a value of a lookup, and forget it; None if there is none left."""
        values = self._values.get(lookup)
        return values.popleft() if values else None


def lookups_of(run: Callable[[Any], object], like: AskingBackend) -> list[Lookup]:
    """Return what a probe asks of a backend, up to where it asks for a text or fails.

    Args:
        run: Runs the probe on a backend.
        like: The backend whose abilities the made-up one has.
    """
    recorder = _Recorder(like)
    with _without_traces(), suppress(Exception):
        run(recorder)
    return recorder.lookups


class _Recorder(AskingBackend):
    """A backend that records what it is asked, and answers with made-up values.

    Attributes:
        lookups: What it was asked, in order.
    """

    def __init__(self, like: AskingBackend) -> None:
        super().__init__(dry_run_backend(like.backend, cache_enabled=False), like.tokenizer)
        self._like: Final = like
        self.lookups: list[Lookup] = []

    def cache_identity(self) -> str | None:
        """Return the name under which dlm-sway has kept measurements of random adapters.

        None where this version of it could keep made-up ones under it.
        """
        return self._like.cache_identity() if hasattr(null_adapter, _SAVE) else None

    def answer(self, view: Any, lookup: Lookup) -> Any:
        value = compute(view, lookup)
        self.lookups.append(lookup)
        return value

    def generate(self, view: Any, prompt: str, **settings: Any) -> str:
        del view, prompt, settings
        raise _UnplannedError("a text cannot be made up")


@contextmanager
def _without_traces() -> Iterator[None]:
    """Undo what a probe does besides asking: warnings, random numbers, and a file of values."""
    drawn, numpy_drawn = random.getstate(), np.random.get_state()
    try:
        with warnings.catch_warnings(), replaced(null_adapter, _SAVE, lambda *_: None):
            warnings.simplefilter("ignore")
            yield
    finally:
        random.setstate(drawn)
        np.random.set_state(numpy_drawn)
