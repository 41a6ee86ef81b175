"""Plan the lookups and forward passes of a suite by running it without a model."""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from forwardscope.backends.base import Backend
from forwardscope.backends.dry_run import DryRunBackend, ForwardCall, dry_run_backend
from forwardscope.core.cache import DisabledCache
from forwardscope.core.keys import Question
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
    "forward_calls",
    "plan_run",
    "plan_suite",
    "shared_work",
]


@dataclass(frozen=True, slots=True)
class Plan:
    """Planned lookups, forward passes and evictions of a suite, for one cache size.

    Attributes:
        series: Counts by probe, view and op, in the order of their first lookups.
        evictions: Number of evicted entries.
    """

    series: Mapping[SeriesKey, Counts]
    evictions: int

    @property
    def total(self) -> Counts:
        """Counts of the whole suite."""
        return sum(self.series.values(), Counts())

    @property
    def forward_passes(self) -> int:
        """Forward passes of the whole suite."""
        return self.total.forward_passes


def plan_suite(
    spec: SuiteSpec, backend: Backend | None = None, *, max_entries: int = sys.maxsize
) -> Plan:
    """Return the plan of a suite; by default nothing is evicted or rejected.

    The suite is run on a dry-run backend, with the same code as a real run.
    With a cache, each distinct lookup of the suite costs one forward pass,
    including those of the check before the probes. Without a cache, each distinct
    lookup of a call costs one.

    A run that starts with an empty cache costs exactly the planned forward
    passes, except if an event that cannot be planned makes it cheaper: a failed
    check before the probes, a failed forward pass, a `DivergenceError` within
    `adapter_ablation` or `null_adapter`, or filler that equals another prompt. A
    cache that is not empty also makes it cheaper. The lookups of the built-in
    probes do not depend on values. A custom probe whose lookups do is planned
    with made-up values and may cost more or less.

    Args:
        spec: The suite.
        backend: The backend of the run. Only its abilities, its optional
            attributes (see `Backend`) and whether its cache is enabled are read.
            Without a backend, `cache.enabled` of the suite is used, and a plain
            LoRA adapter is assumed, or none where the suite has `model.tuned`, or a server
            without `model.adapter_dir`.
        max_entries: Maximum number of cache entries. The plan has no bound in
            bytes, because the sizes of real values are unknown.

    Raises:
        ProbeError: A probe cannot be planned, because it fails without a model.
    """
    dry_run = _dry_run(spec, backend, max_entries)
    try:
        _run_or_raise(spec, dry_run)
        instrumentation = dry_run.instrumentation
        return Plan(instrumentation.ledger.snapshot().series, instrumentation.cache.evictions)
    finally:
        dry_run.close()


def expected_forward_passes(spec: SuiteSpec, backend: Backend | None = None) -> int:
    """Return the forward passes that a suite costs when nothing is evicted or rejected.

    See `plan_suite`, also for the errors.
    """
    return plan_suite(spec, backend).forward_passes


def enough_entries(spec: SuiteSpec, backend: Backend | None = None) -> int:
    """Return a cache size with which a suite computes no lookup twice; 0 without a cache.

    It is the smallest size that a binary search finds.

    Raises:
        ProbeError: As `plan_suite` does.
    """
    unbounded = plan_suite(spec, backend).forward_passes
    too_few, enough = 0, unbounded if spec.cache.enabled else 0
    while enough - too_few > 1:
        size = (too_few + enough) // 2
        if plan_suite(spec, backend, max_entries=size).forward_passes > unbounded:
            too_few = size
        else:
            enough = size
    return enough


def shared_work(
    spec: SuiteSpec, backend: Backend | None = None
) -> dict[tuple[str | None, str | None], int]:
    """Return the number of hits by the probe of the hit and the probe of the forward pass.

    Both probes of a key can be the same; None means outside any probe. The cache
    is unbounded.

    Raises:
        ProbeError: As `plan_suite` does.
    """
    dry_run = _dry_run(spec, backend)
    dry_run.instrumentation.trace = trace = _TraceInMemory()
    try:
        _run_or_raise(spec, dry_run)
    finally:
        dry_run.close()
    computed_by: dict[Question, str | None] = {}
    shared: Counter[tuple[str | None, str | None]] = Counter()
    for event in trace.events:
        key = Question(event.op, event.view_id, event.prompt_hash, event.top_k)
        if event.hit:
            shared[event.probe, computed_by[key]] += 1
        else:
            computed_by[key] = event.probe
    return dict(shared)


def forward_calls(spec: SuiteSpec, backend: Backend) -> list[ForwardCall]:
    """Return the forward calls of a suite on a backend with its filler and chats, in order.

    With a cache, each prompt of each view is in one of them.

    Raises:
        ProbeError: As `plan_suite` does.
    """
    dry_run = _dry_run(spec, backend, real_texts=True)
    try:
        _run_or_raise(spec, dry_run)
    finally:
        dry_run.close()
    return dry_run.computed


def plan_run(spec: SuiteSpec, backend: Backend) -> Plan | None:
    """Return the plan of a suite, or warn and return None if it cannot be planned."""
    try:
        return plan_suite(spec, backend)
    except Exception as error:  # noqa: BLE001 - a probe or a backend may raise anything
        with suppress(RuntimeWarning):  # a run continues even if warnings are errors
            warnings.warn(
                f"the run has no plan: {format_error(error, show=spec.show_errors)}",
                RuntimeWarning,
                stacklevel=3,
            )
        return None


def expect_series(spec: SuiteSpec, instrumentation: BackendInstrumentation) -> None:
    """Start the series of a run at 0, before its model is loaded.

    `increase()` of Prometheus misses a counter's value at its first scrape.
    Loading a model usually takes longer than a scrape interval, so series that
    start before it are scraped at 0. A suite that cannot be planned starts no
    series.

    Args:
        spec: The suite that will be run.
        instrumentation: Instrumentation of the run's backend.
    """
    dry_run = _dry_run(spec)
    try:
        _run_or_raise(spec, dry_run)
    except Exception:  # noqa: BLE001 - `plan_run` warns later
        return
    finally:
        dry_run.close()
    instrumentation.ledger.expect(dry_run.instrumentation.ledger.snapshot().series)


class _TraceInMemory(TraceWriter):
    """A trace writer that stores records in memory."""

    def __init__(self) -> None:
        super().__init__(None)
        self.events: list[TraceEvent] = []

    @property
    def enabled(self) -> bool:
        return True

    def write_batch(self, events: Sequence[TraceEvent]) -> None:
        self.events.extend(events)


def _dry_run(
    spec: SuiteSpec,
    backend: Backend | None = None,
    max_entries: int = sys.maxsize,
    real_texts: bool = False,
) -> DryRunBackend:
    return dry_run_backend(
        backend,
        cache_enabled=_cache_enabled(spec, backend),
        max_entries=max_entries,
        has_adapter=spec.model.has_adapter,
        real_texts=real_texts,
    )


def _cache_enabled(spec: SuiteSpec, backend: Backend | None) -> bool:
    if backend is None:
        return spec.cache.enabled
    return not isinstance(backend.instrumentation.cache, DisabledCache)


def _run_or_raise(spec: SuiteSpec, dry_run: DryRunBackend) -> None:
    for result in run_probes(spec, dry_run, RunCounters(dry_run.instrumentation), Observers()):
        if result.verdict is Verdict.ERROR:
            raise ProbeError(f"probe {result.name!r} cannot be planned: {result.message}")
