"""Lookups of a probe of dlm-sway, computed in batches before the probe makes them.

Probes look up one prompt at a time, and change between views for each. So a probe first runs on
made-up values, and its lookups are recorded. Then all of them are computed, view by view, and
the probe runs as always. A lookup that was not recorded is computed alone.
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
from forwardscope.integrations.dlm_sway_lookups import Lookup, LookupBackend, compute, compute_batch
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


def lookups_of(run: Callable[[Any], object], like: LookupBackend) -> list[Lookup]:
    """Return the lookups of a probe, up to where it generates a text or fails.

    Args:
        run: Runs the probe on a backend.
        like: The backend whose abilities the made-up one has.
    """
    recorder = _Recorder(like)
    with _without_traces(), suppress(Exception):
        run(recorder)
    return recorder.lookups


class _Recorder(LookupBackend):
    """A backend that records lookups, and answers them with made-up values.

    Attributes:
        lookups: The lookups, in order.
    """

    def __init__(self, like: LookupBackend) -> None:
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
    """Undo all but the lookups of a probe: warnings, random numbers, and a file of values."""
    drawn, numpy_drawn = random.getstate(), np.random.get_state()
    try:
        with warnings.catch_warnings(), replaced(null_adapter, _SAVE, lambda *_: None):
            warnings.simplefilter("ignore")
            yield
    finally:
        random.setstate(drawn)
        np.random.set_state(numpy_drawn)
