"""The planner: how many forward passes a suite should cost."""

from __future__ import annotations

import warnings
from contextlib import suppress

from forwardscope.backends.base import Backend
from forwardscope.backends.counting import CountingBackend, counting_backend
from forwardscope.core.cache import DisabledCache
from forwardscope.errors import ProbeError
from forwardscope.instrumentation import BackendInstrumentation
from forwardscope.probes import Verdict
from forwardscope.suite.accounts import Accounts
from forwardscope.suite.execution import run_probes, told
from forwardscope.suite.observer import Observers
from forwardscope.suite.spec import SuiteSpec

__all__ = ["expect_series", "expected_forward_passes", "plan_run"]


def expected_forward_passes(spec: SuiteSpec, backend: Backend | None = None) -> int:
    """Return the forward passes that a suite costs when nothing is evicted or rejected.

    The suite's own probes are run, as a run would, on a backend without a
    model that counts. With a cache it is the number of distinct questions,
    the finite check's included; without one, of those that each call asks.

    A run that starts with an empty cache pays exactly this, unless something
    happens that cannot be foreseen. That only ever makes it cheaper: a finite
    check that fails, a forward pass that fails, a `DivergenceError` in the
    middle of `adapter_ablation` or `null_adapter`, a backend whose filler
    equals another prompt, a cache that knows answers from before. No probe of
    forwardscope's leaves a question out because of a value that it got. One of
    your own that does is planned by made-up values, and may cost more or less.

    Args:
        spec: What would be run.
        backend: What would be asked. Its abilities, aliases, vocabulary and
            whether its cache is on are looked at; it is asked nothing. Without
            one the suite says whether there is a cache, and the rest is
            assumed as `counting_backend` does.

    Raises:
        ProbeError: A probe cannot be planned, as it raises without a model.
    """
    counting = counting_backend(backend, cache_enabled=_caches(spec, backend))
    try:
        _ask(spec, counting)
        return counting.instrumentation.stats.forward_passes
    finally:
        counting.close()


def plan_run(spec: SuiteSpec, backend: Backend) -> int | None:
    """Return `expected_forward_passes`, or warn and return None: no run fails for its plan."""
    try:
        return expected_forward_passes(spec, backend)
    except Exception as error:  # noqa: BLE001 - a probe or a backend may raise anything
        with suppress(RuntimeWarning):  # where warnings are errors the run goes on all the same
            warnings.warn(
                f"what the run should cost is not known: {told(error)}",
                RuntimeWarning,
                stacklevel=3,
            )
        return None


def expect_series(spec: SuiteSpec, instrumentation: BackendInstrumentation) -> None:
    """Begin at 0 the series that a run will count, where they can be told without its backend.

    A counter that is first scraped with its last value has not grown, for
    Prometheus. Loading a model mostly takes longer than a scrape interval, so
    series that begin before it are seen at 0 and then grow.

    Args:
        spec: What will be run.
        instrumentation: Of its backend, which need not be there yet.
    """
    counting = counting_backend(None, cache_enabled=spec.cache.enabled)
    try:
        _ask(spec, counting)
    except Exception:  # noqa: BLE001 - `plan_run` tells it, when the backend is there
        return
    finally:
        counting.close()
    instrumentation.ledger.expect(counting.instrumentation.ledger.snapshot())


def _caches(spec: SuiteSpec, backend: Backend | None) -> bool:
    if backend is None:
        return spec.cache.enabled
    return not isinstance(backend.instrumentation.cache, DisabledCache)


def _ask(spec: SuiteSpec, counting: CountingBackend) -> None:
    for result in run_probes(spec, counting, Accounts(counting.instrumentation), Observers()):
        if result.verdict is Verdict.ERROR:
            raise ProbeError(f"probe {result.name!r} cannot be planned: {result.message}")
