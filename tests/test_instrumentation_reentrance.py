"""Lookups that a thread makes while it leads a flight, outside of its compute."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from forwardscope import BackendInstrumentation

_KEY = ("next_token_dist", "base", "The sky is", 8)


class Nosy:
    """A value whose size is known only after another lookup of its own key."""

    def __init__(self, instrumentation: BackendInstrumentation) -> None:
        self._instrumentation = instrumentation

    @property
    def nbytes(self) -> int:
        """Look up the key that is being stored; return a size."""
        return int(self._instrumentation.cached(*_KEY, lambda: 8))


@pytest.mark.parametrize("batch", [False, True])
def test_a_leader_that_looks_up_its_own_key_computes_it(
    in_thread: Callable[[Callable[[], Any]], Future[Any]], batch: bool
) -> None:
    """Measuring a value may look up the key in flight: its thread does not wait for itself."""
    instrumentation = BackendInstrumentation()

    def lookup() -> Any:
        value = Nosy(instrumentation)
        if batch:
            return instrumentation.cached_batch(*_KEY[:2], [_KEY[2]], 8, lambda _: [value])[0]
        return instrumentation.cached(*_KEY, lambda: value)

    assert isinstance(in_thread(lookup).result(30), Nosy)
    assert instrumentation.stats.forward_passes == 2
    assert instrumentation.cached(*_KEY, lambda: 1 / 0)
