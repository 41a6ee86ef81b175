"""What came of a run, as plain data and as JSON."""

from __future__ import annotations

import tempfile
from os import PathLike
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict

from forwardscope.core.series import Counts, SeriesKey
from forwardscope.errors import OutputError
from forwardscope.probes import Verdict

__all__ = [
    "CacheUse",
    "Delivery",
    "ProbeResult",
    "PromptTokens",
    "Reconciliation",
    "SeriesResult",
    "SuiteResult",
    "Tally",
]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Tally(_Record):
    """Counts of lookups and passes.

    Attributes:
        lookups: Questions asked.
        cache_hits: Those that paid no forward pass, coalesced ones included.
        coalesced: Those answered by a pass that was already under way.
        cache_misses: Those that led a pass.
        forward_passes: Passes that succeeded.
        forward_errors: Passes that failed.
        hit_rate: cache_hits / lookups; 0.0 when nothing was asked.
        scoring_wall_s: Wall time of the calls in seconds, waiting included.
        forward_s: The part of it spent in forward passes.
    """

    lookups: int
    cache_hits: int
    coalesced: int
    cache_misses: int
    forward_passes: int
    forward_errors: int
    hit_rate: float
    scoring_wall_s: float
    forward_s: float

    @classmethod
    def of(cls, counts: Counts, **more: Any) -> Self:
        """Read the ledger's counts."""
        return cls(
            lookups=counts.lookups,
            cache_hits=counts.hits + counts.coalesced,
            coalesced=counts.coalesced,
            cache_misses=counts.misses,
            forward_passes=counts.forward_passes,
            forward_errors=counts.forward_errors,
            hit_rate=counts.hit_rate,
            scoring_wall_s=counts.scoring_ns / 1e9,
            forward_s=counts.forward_ns / 1e9,
            **more,
        )


class SeriesResult(Tally):
    """Counts of one probe, view and op.

    Attributes:
        probe: Who asked; null for lookups outside any.
        view_id: Which view.
        op: What.
        expected_forward_passes: What of the run's expected ones was to be paid here;
            null where that was not planned.
    """

    probe: str | None
    view_id: str
    op: str
    expected_forward_passes: int | None = None

    @classmethod
    def of_series(
        cls, key: SeriesKey, counts: Counts, planned: Counts | None = None
    ) -> SeriesResult:
        """Read one series of the ledger, and of a plan."""
        expected = None if planned is None else planned.forward_passes
        place = {"probe": key.probe, "view_id": key.view_id, "op": key.op}
        return cls.of(counts, **place, expected_forward_passes=expected)


class ProbeResult(_Record):
    """What one probe found, and what it asked; see `forwardscope.probes.Outcome`."""

    name: str
    kind: str
    verdict: Verdict
    score: float | None = None
    raw: float | None = None
    z_score: float | None = None
    ci_95: tuple[float, float] | None = None
    message: str
    evidence: dict[str, Any] = {}
    duration_s: float
    stats: Tally


class CacheUse(_Record):
    """How full the cache was at the end of the run, against its bounds."""

    enabled: bool
    max_entries: int
    max_bytes: int | None
    entries: int
    bytes: int
    evictions: int
    rejections: int


class PromptTokens(_Record):
    """Tokens of the prompts of forward passes that succeeded.

    Attributes:
        computed: Those that the model computed.
        reused: Those of prefixes that an earlier prompt of the view had computed.
    """

    computed: int
    reused: int


class Reconciliation(_Record):
    """Whether everything that was counted is also where it was to go.

    What is off is null, and drops out of the equation.

    Attributes:
        lookups: Counted by the ledger.
        trace_records: Lines in the trace; null without one.
        trace_write_errors: Records that could not be written; null without a trace.
        spans: `cache.lookup` spans by what became of them (`exported`, or
            `ended` where the program has its own SDK; `dropped`, `elided`,
            `pending`); null where nothing records spans.
        holds: Whether lookups == trace_records + trace_write_errors, and
            lookups == the sum of spans.
    """

    lookups: int
    trace_records: int | None = None
    trace_write_errors: int | None = None
    spans: dict[str, int] | None = None
    holds: bool


class Delivery(_Record):
    """What came of one way out for telemetry.

    Attributes:
        to: Where it went.
        what: What went there, or why it did not.
        ok: Whether all of it arrived, as far as can be known.
    """

    to: str
    what: str
    ok: bool


class SuiteResult(_Record):
    """The result of one run.

    Attributes:
        schema_version: Of this format.
        run_id: Of this run; stands in each of its trace records.
        trace_id: Of its OpenTelemetry trace, 32 hex digits; null where no spans
            are recorded.
        suite: The suite's name.
        model: Where the model came from.
        adapter: Where the adapter came from.
        identity: The backend's hash over all that shapes its values.
        exactness: `fast` or `strict`.
        dtype: As the suite asked for it.
        device: As the suite asked for it.
        versions: Of forwardscope and of what computed.
        seed: Of the suite.
        period_s: How often the suite is meant to run, in seconds.
        started_at: ISO 8601, UTC.
        wall_s: From the first lookup to the last verdict, in seconds.
        probes: In the order in which they ran.
        expected_forward_passes: What the run should cost when nothing is evicted or
            rejected, from an empty cache; null where that could not be planned.
        backend_stats: Totals of the run, as `BackendStats.to_dict` has them.
        series: Counts by probe, view and op.
        cache: The forward cache at the end.
        prompt_tokens: What was computed and what taken over; null in results of
            versions that did not count it.
        reconciliation: Whether the numbers agree.
        delivery: Where telemetry was sent, and what arrived.
    """

    schema_version: Literal[1] = 1
    run_id: str
    trace_id: str | None = None
    suite: str
    model: str
    adapter: str
    identity: str
    exactness: str
    dtype: str
    device: str
    versions: dict[str, str]
    seed: int
    period_s: int | None
    started_at: str
    wall_s: float
    probes: list[ProbeResult]
    expected_forward_passes: int | None = None
    backend_stats: dict[str, int | float]
    series: list[SeriesResult]
    cache: CacheUse
    prompt_tokens: PromptTokens | None = None
    reconciliation: Reconciliation
    delivery: list[Delivery] = []

    @property
    def passed(self) -> bool:
        """Whether no probe failed or erred."""
        return all(probe.verdict in (Verdict.PASS, Verdict.SKIP) for probe in self.probes)

    @property
    def complete(self) -> bool:
        """Whether all probes were measured, none having erred: what it paid can be compared."""
        return all(probe.verdict is not Verdict.ERROR for probe in self.probes)

    def write(self, path: str | PathLike[str]) -> None:
        """Write the result as JSON, whole or not at all; to a pipe or a device as it is.

        Raises:
            OutputError: It cannot be written; what stood there before still does.
        """
        target = Path(path)
        text = self.model_dump_json(indent=2) + "\n"
        temporary: Path | None = None
        try:
            if target.exists() and not target.is_file():  # replacing it would take it away
                target.write_text(text, encoding="utf-8")
                return
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(
                "w", encoding="utf-8", dir=target.parent, prefix=f".{target.name}.", delete=False
            ) as file:
                temporary = Path(file.name)
                file.write(text)
            temporary.chmod(0o644)
            temporary.replace(target)
        except OSError as error:
            raise OutputError(
                f"the result cannot be written to {target}: {error.strerror}; choose another file"
            ) from error
        finally:
            if temporary is not None:
                temporary.unlink(missing_ok=True)
