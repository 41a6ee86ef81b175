"""The planner: what a suite would ask and pay, found by asking a backend without a model."""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from forwardscope.backends.base import Backend
from forwardscope.backends.dry_run import DryRunBackend, dry_run_backend
from forwardscope.core.cache import DisabledCache
from forwardscope.core.series import Counts, SeriesKey
from forwardscope.errors import ProbeError
from forwardscope.instrumentation import BackendInstrumentation
from forwardscope.probes import Verdict
from forwardscope.suite.execution import format_error, run_probes
from forwardscope.suite.observer import Observers
from forwardscope.suite.run_counters import RunCounters
from forwardscope.suite.spec import SuiteSpec
from forwardscope.trace import TraceEvent, TraceWriter

__all__ = [
    "Plan",
    "enough_entries",
    "expect_series",
    "expected_forward_passes",
    "plan_run",
    "plan_suite",
    "shared_work",
]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a suite asks, and what that costs with a cache of one size.

    Attributes:
        series: Counts by probe, view and op, in the order in which each is first asked.
        evictions: Entries that are removed for room.
    """

    series: Mapping[SeriesKey, Counts]
    evictions: int

    @property
    def total(self) -> Counts:
        """The whole suite."""
        return sum(self.series.values(), Counts())

    @property
    def forward_passes(self) -> int:
        """Forward passes of the whole suite."""
        return self.total.forward_passes


def plan_suite(
    spec: SuiteSpec, backend: Backend | None = None, *, max_entries: int = sys.maxsize
) -> Plan:
    """Return what a suite asks and pays, by default when nothing is evicted or rejected.

    The suite's own probes are run, as a run would, on a backend without a
    model that counts. With a cache it pays for the distinct questions,
    the finite check's included; without one, for those that each call asks.

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
            assumed as `dry_run_backend` does.
        max_entries: Bound of the cache; the bytes of real answers are not known here.

    Raises:
        ProbeError: A probe cannot be planned, as it raises without a model.
    """
    caches = _caches(spec, backend)
    counting = dry_run_backend(backend, cache_enabled=caches, max_entries=max_entries)
    try:
        _ask(spec, counting)
        instrumentation = counting.instrumentation
        return Plan(instrumentation.ledger.snapshot(), instrumentation.cache.evictions)
    finally:
        counting.close()


def expected_forward_passes(spec: SuiteSpec, backend: Backend | None = None) -> int:
    """Return the forward passes that a suite costs when nothing is evicted or rejected.

    See `plan_suite`, also for what it raises.
    """
    return plan_suite(spec, backend).forward_passes


def enough_entries(spec: SuiteSpec) -> int:
    """Return a size of the cache with which a suite pays for nothing twice; 0 without one.

    It is the smallest that a search by halves finds; with that size the suite was
    planned, and it paid no more than with an endless cache.

    Raises:
        ProbeError: As `plan_suite` does.
    """
    endless = plan_suite(spec).forward_passes
    too_few, enough = 0, endless if spec.cache.enabled else 0
    while enough - too_few > 1:
        size = (too_few + enough) // 2
        if plan_suite(spec, max_entries=size).forward_passes > endless:
            too_few = size
        else:
            enough = size
    return enough


def shared_work(spec: SuiteSpec) -> dict[tuple[str | None, str | None], int]:
    """Return how many lookups of one probe are answered by what another, or itself, paid for.

    Keys are who asks and who paid, None being outside any probe, with an endless cache.

    Raises:
        ProbeError: As `plan_suite` does.
    """
    counting = dry_run_backend(None, cache_enabled=spec.cache.enabled)
    counting.instrumentation.trace = notes = _Notes()
    try:
        _ask(spec, counting)
    finally:
        counting.close()
    paid_by: dict[tuple[str, str, str, int], str | None] = {}
    shared: Counter[tuple[str | None, str | None]] = Counter()
    for event in notes.events:
        question = (event.view_id, event.op, event.prompt_hash, event.top_k)
        if event.hit:
            shared[event.probe, paid_by[question]] += 1
        else:
            paid_by[question] = event.probe
    return dict(shared)


def plan_run(spec: SuiteSpec, backend: Backend) -> Plan | None:
    """Return `plan_suite`, or warn and return None: no run fails for its plan."""
    try:
        return plan_suite(spec, backend)
    except Exception as error:  # noqa: BLE001 - a probe or a backend may raise anything
        with suppress(RuntimeWarning):  # where warnings are errors the run goes on all the same
            warnings.warn(
                f"what the run should cost is not known: {format_error(error)}",
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
    counting = dry_run_backend(None, cache_enabled=spec.cache.enabled)
    try:
        _ask(spec, counting)
    except Exception:  # noqa: BLE001 - `plan_run` tells it, when the backend is there
        return
    finally:
        counting.close()
    instrumentation.ledger.expect(counting.instrumentation.ledger.snapshot())


class _Notes(TraceWriter):
    """Keeps records in memory."""

    def __init__(self) -> None:
        super().__init__(None)
        self.events: list[TraceEvent] = []

    @property
    def enabled(self) -> bool:
        return True

    def write(self, event: TraceEvent) -> None:
        self.events.append(event)

    def write_batch(self, events: Sequence[TraceEvent]) -> None:
        self.events.extend(events)


def _caches(spec: SuiteSpec, backend: Backend | None) -> bool:
    if backend is None:
        return spec.cache.enabled
    return not isinstance(backend.instrumentation.cache, DisabledCache)


def _ask(spec: SuiteSpec, counting: DryRunBackend) -> None:
    for result in run_probes(spec, counting, RunCounters(counting.instrumentation), Observers()):
        if result.verdict is Verdict.ERROR:
            raise ProbeError(f"probe {result.name!r} cannot be planned: {result.message}")
