"""The result of a run, as plain data and as JSON.

The module is longer than others because it is the whole format of one file.
"""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    model_validator,
)

from forwardscope.core.series import Counts, SeriesKey
from forwardscope.core.stats import BackendStats
from forwardscope.files import write_file
from forwardscope.probes import Outcome, Verdict
from forwardscope.store.base import Tier
from forwardscope.suite.formats import format_interval
from forwardscope.suite.trace_url import TracesUrl, trace_url
from forwardscope.text import plural, shown

__all__ = [
    "CacheUse",
    "Delivery",
    "FewKeys",
    "ProbeResult",
    "PromptTokens",
    "Reconciliation",
    "SeriesResult",
    "ServerUse",
    "StoreUse",
    "SuiteResult",
    "Tally",
]


_TOTALS: Final = tuple(BackendStats().to_dict())
#: Keys of an object.
_MAX_KEYS: Final = 1000


def _few_keys(value: Any) -> Any:
    """Check the size of an object before its content, of which each mistake takes memory."""
    if isinstance(value, dict) and len(value) > _MAX_KEYS:
        raise ValueError(f"has {len(value)} keys, more than {_MAX_KEYS}")
    return value


def _with_all_totals(stats: dict[str, int | float]) -> dict[str, int | float]:
    missing = ", ".join(name for name in _TOTALS if name not in stats)
    if missing:
        raise ValueError(f"lacks {missing}")
    return stats


#: Bounds that every run keeps, and with which no arithmetic of a report overflows.
_Count = Annotated[int, Field(ge=0, lt=2**63)]
_Seconds = Annotated[float, Field(ge=0, le=1e10)]
_Share = Annotated[float, Field(ge=0, le=1)]
_Total = Annotated[int | float, Field(ge=0, lt=2**63)]
#: Bounds the keys of an object.
FewKeys: Final = BeforeValidator(_few_keys)
_Totals = Annotated[dict[str, _Total], AfterValidator(_with_all_totals), FewKeys]
_Names = Annotated[dict[str, str], FewKeys]
_T = TypeVar("_T")
_List = Annotated[list[_T], FailFast()]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    _check_keys = model_validator(mode="before")(_few_keys)


class Tally(_Record):
    """Counts of lookups and forward passes.

    Attributes:
        lookups: All lookups.
        cache_hits: Lookups without a forward pass of their own, including coalesced ones.
        coalesced: Lookups answered by a forward pass in flight.
        cache_misses: Lookups with a forward pass of their own.
        forward_passes: Forward passes that succeeded.
        forward_errors: Forward passes that failed.
        hit_rate: cache_hits / lookups; 0.0 without lookups.
        scoring_wall_s: Wall time of the lookups in seconds, including waiting.
        forward_s: Part of `scoring_wall_s` spent in forward passes, in seconds.
        store_hits: Part of `cache_hits` that a store answered.
        remote_coalesced: Part of `coalesced` and of `store_hits`: computed by another machine
            meanwhile.
        bypasses: Part of `cache_misses` for which no cache was asked.
    """

    lookups: _Count
    cache_hits: _Count
    coalesced: _Count
    cache_misses: _Count
    forward_passes: _Count
    forward_errors: _Count
    hit_rate: _Share
    scoring_wall_s: _Seconds
    forward_s: _Seconds
    store_hits: _Count = 0
    remote_coalesced: _Count = 0
    bypasses: _Count = 0

    @property
    def demand(self) -> int:
        """Forward passes that an empty store would have needed."""
        return self.forward_passes + self.store_hits

    @classmethod
    def of(cls, counts: Counts, **more: Any) -> Self:
        """Return a tally of the ledger's counts."""
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
            store_hits=counts.store_hits,
            remote_coalesced=counts.remote_coalesced,
            bypasses=counts.bypasses,
            **more,
        )


class SeriesResult(Tally):
    """Counts of one probe, view and op.

    Attributes:
        probe: Name of the probe; null for lookups outside any probe.
        view_id: Id of the view.
        op: Name of the op.
        expected_forward_passes: Planned forward passes of this series, to compare
            with `demand`; null if it was not planned.
    """

    probe: str | None
    view_id: str
    op: str
    expected_forward_passes: _Count | None = None

    @classmethod
    def of_series(
        cls, key: SeriesKey, counts: Counts, planned: Counts | None = None
    ) -> SeriesResult:
        """Return the result of one series of the ledger, with its planned counts."""
        expected = None if planned is None else planned.forward_passes
        place = {"probe": key.probe, "view_id": key.view_id, "op": key.op}
        return cls.of(counts, **place, expected_forward_passes=expected)


class ProbeResult(_Record):
    """Outcome and counts of one probe; see `forwardscope.probes.Outcome`.

    `error_type`, the class of the exception of an ERROR, and `n` are null in results of
    older versions. `weight` is that of the score in the score of the suite.
    """

    name: str
    kind: str
    verdict: Verdict
    error_type: str | None = None
    score: float | None = None
    raw: float | None = None
    z_score: float | None = None
    ci_95: tuple[float, float] | None = None
    n: _Count | None = None
    lower_is_better: bool = False
    weight: Annotated[float, Field(ge=0, le=1e9)] = 1.0
    message: str
    evidence: dict[str, Any] = {}
    duration_s: _Seconds
    stats: Tally

    @classmethod
    def of(cls, name: str, kind: str, outcome: Outcome, **more: Any) -> ProbeResult:
        """Return the result of a probe with an outcome; `more` are the other fields."""
        return cls(
            name=name,
            kind=kind,
            verdict=outcome.verdict,
            score=outcome.score,
            raw=outcome.raw,
            z_score=outcome.z_score,
            ci_95=outcome.ci_95,
            n=outcome.n,
            lower_is_better=outcome.lower_is_better,
            message=outcome.message,
            evidence=dict(outcome.evidence),
            **more,
        )

    @property
    def interval_note(self) -> str | None:
        """How many values stand behind the interval, and how many would halve it; or None.

        The width of a bootstrap interval falls with the square root of their number.
        """
        if self.ci_95 is None or self.n is None:
            return None
        values, (low, high) = plural(self.n, "value"), self.ci_95
        needed = f"; {4 * self.n} would halve it" if low < high else ""
        return f"95 % interval {format_interval(self.ci_95)} from {values}{needed}"


class CacheUse(_Record):
    """Contents and bounds of the cache at the end of the run."""

    enabled: bool
    max_entries: int
    max_bytes: int | None
    entries: _Count
    bytes: _Count
    evictions: _Count
    rejections: _Count


class StoreUse(_Record):
    """What a run had from its store, and the store at the end of the run.

    Attributes:
        name: Its path, or the URL of its server without password and query.
        tier: Where it is: `disk` or `remote`.
        hits: Lookups that it answered.
        verified: Hits that were computed again and agreed.
        mismatches: Hits that were computed again and did not; the computed value was used.
        entries: Entries in it, of all runs.
        bytes: Bytes that they take.
        max_bytes: Bound of `bytes`.
        corrupt: Damaged entries that the run found; each was a miss.
        dropped: Values of the run that could not be stored in time.
        errors: Operations that failed.
        unavailable: Whether it was given up after a failure.
        unidentified_views: Views whose values are not stored, because nothing says what
            determines them.
    """

    name: str
    tier: Tier = "disk"
    hits: _Count
    verified: _Count
    mismatches: _Count
    entries: _Count
    bytes: _Count
    max_bytes: _Count | None
    corrupt: _Count
    dropped: _Count
    errors: _Count
    unavailable: bool
    unidentified_views: _List[str] = []

    def problems(self) -> Iterator[str]:
        """Yield what a reader should know, as parts of a sentence; nothing if all went well."""
        if self.mismatches:
            yield (
                f"{plural(self.mismatches, 'stored value')} did not agree with the computed one, "
                "which was used and stored"
            )
        if self.corrupt:
            yield f"{plural(self.corrupt, 'damaged entry')} computed again"
        if self.dropped:
            yield f"{plural(self.dropped, 'value')} not stored"
        if self.errors:
            yield plural(self.errors, "failed operation")
        if self.unavailable:
            yield "given up after a failure"
        if self.unidentified_views:
            views = ", ".join(map(shown, self.unidentified_views))
            yield f"no identity, so nothing stored: {views}"


class ServerUse(_Record):
    """Requests of a run to the server that holds its model.

    Attributes:
        address: Host of the server.
        port: Its port.
        requests: Number of requests.
        retries: Attempts after the first one of each request.
        throttled: Answers that refuse one request too many.
        failed: Requests without an answer that could be used.
    """

    address: str
    port: Annotated[int, Field(ge=0, lt=2**16)]
    requests: _Count
    retries: _Count
    throttled: _Count
    failed: _Count

    @property
    def sentence(self) -> str:
        """What a run sent to the server, in words."""
        said = (
            f"requests to the server: {self.requests}, retried {self.retries}, "
            f"throttled {self.throttled}"
        )
        return f"{said}, failed {self.failed}" if self.failed else said


class PromptTokens(_Record):
    """Prompt tokens of successful forward passes.

    Attributes:
        computed: Tokens that the model computed.
        reused: Tokens of prefixes that an earlier prompt of the view computed.
    """

    computed: _Count
    reused: _Count


class Reconciliation(_Record):
    """Comparison of the ledger's lookups with trace records and spans.

    An output that is disabled is null and is not compared.

    Attributes:
        lookups: Lookups in the ledger.
        trace_records: Lines in the trace; null without a trace.
        trace_write_errors: Records that could not be written; null without a trace.
        spans: Number of spans of lookups by outcome (`exported`, or `ended`
            if the program has its own SDK; `dropped`, `elided`, `pending`);
            null if spans are not recorded.
        holds: Whether lookups == trace_records + trace_write_errors, and
            lookups == the sum of spans.
    """

    lookups: _Count
    trace_records: _Count | None = None
    trace_write_errors: _Count | None = None
    spans: Annotated[dict[str, int], FewKeys] | None = None
    holds: bool


class Delivery(_Record):
    """Delivery of telemetry to one destination.

    Attributes:
        to: The destination.
        what: What was delivered, or why it was not.
        ok: Whether all of it arrived, as far as this can be checked.
    """

    to: str
    what: str
    ok: bool


class SuiteResult(_Record):
    """The result of one run.

    Attributes:
        schema_version: Version of this format. Results of version 1 are read too.
        run_id: Id of this run; also in each of its trace records.
        trace_id: Id of its OpenTelemetry trace, 32 hex digits; null if spans
            are not recorded.
        traces_url: The suite's `telemetry.traces_url`, or null.
        suite: Name of the suite.
        model: Path or hub id of the model.
        adapter: Path or hub id of the adapter, or of the tuned model in its place.
        identity: Hash of everything that determines the backend's values.
        base_identity: Identity of the base view, 64 hex digits; null if nothing says what
            determines its values, and in results of older versions.
        tuned_identity: Identity of the fine-tuned view; likewise.
        exactness: `fast` or `strict`, as the backend computed.
        dtype: Dtype of the weights.
        device: Device of the weights. A backend that does not say which exactness,
            dtype and device it has is recorded with those of the suite file.
        versions: Versions of Python, forwardscope, the libraries of the model, and of the
            server that holds it, where it says one.
        seed: Seed of the suite.
        period_s: Intended interval between runs, in seconds, or null.
        started_at: Start of the run, ISO 8601, UTC.
        wall_s: Time from the first lookup to the last verdict, in seconds.
        probes: Results in the order in which the probes ran.
        not_run: Probes without a result, because the run was interrupted.
        warnings: Warnings about the model and its adapter, for example that the
            adapter was trained on a model of another name.
        optimisations: State of each optimisation of the backend: `on`,
            `on (limit)` or `off (reason)`; empty in results of older versions.
        expected_forward_passes: Planned forward passes from an empty cache and an
            empty store if nothing is evicted or rejected, to compare with `demand`;
            null if the run could not be planned.
        enough_entries: Smallest `cache.max_entries` with which the suite computes nothing
            twice, as `forwardscope plan` prints it; null unless evictions made the run
            need more passes than planned.
        backend_stats: Totals of the run, in the form of `BackendStats.to_dict`.
        series: Counts by probe, view and op.
        cache: Contents and bounds of the forward cache at the end.
        store: What the run had from its store; null without one.
        server: Requests to the server that holds the model; null without one.
        prompt_tokens: Computed and reused tokens; null in results of older
            versions.
        reconciliation: Whether ledger, trace and spans agree.
        delivery: Destinations of telemetry and what was delivered.
    """

    schema_version: Literal[1, 2] = 2
    run_id: str
    trace_id: str | None = None
    traces_url: TracesUrl | None = None
    suite: str
    model: str
    adapter: str
    identity: str
    base_identity: str | None = None
    tuned_identity: str | None = None
    exactness: str
    dtype: str
    device: str
    versions: _Names
    seed: int
    period_s: int | None
    started_at: str
    wall_s: _Seconds
    probes: _List[ProbeResult]
    not_run: _List[str] = []
    warnings: _List[str] = []
    optimisations: _Names = {}
    expected_forward_passes: _Count | None = None
    enough_entries: _Count | None = None
    backend_stats: _Totals
    series: _List[SeriesResult]
    cache: CacheUse
    store: StoreUse | None = None
    server: ServerUse | None = None
    prompt_tokens: PromptTokens | None = None
    reconciliation: Reconciliation
    delivery: _List[Delivery] = []

    @property
    def passed(self) -> bool:
        """Whether all probes ran without failure or error, and no stored value was found wrong."""
        wrong = self.store is not None and self.store.mismatches > 0
        return not (wrong or self.not_run) and all(
            probe.verdict in (Verdict.PASS, Verdict.SKIP) for probe in self.probes
        )

    @property
    def demand(self) -> int:
        """Forward passes that an empty store would have needed."""
        stored = sum(one.store_hits for one in self.series)
        return int(self.backend_stats["forward_passes"]) + stored

    @property
    def complete(self) -> bool:
        """Whether all probes ran without an error, so that the costs of runs can be compared."""
        errors = any(probe.verdict is Verdict.ERROR for probe in self.probes)
        return not errors and not self.not_run

    @property
    def score(self) -> float | None:
        """Mean of the probes' scores by their weights; an ERROR counts as 0. None without any."""
        scored = [
            (0.0 if probe.verdict is Verdict.ERROR else probe.score, probe.weight)
            for probe in self.probes
        ]
        known = [(score, weight) for score, weight in scored if score is not None]
        weights = sum(weight for _, weight in known)
        return sum(score * weight for score, weight in known) / weights if weights else None

    @property
    def about(self) -> str:
        """What was measured, in one line: models, dtype, device and exactness."""
        models = f"model {self.model}"
        if self.adapter:
            identity = "" if self.tuned_identity is None else f" ({self.tuned_identity[:8]})"
            models = f"base {self.model}, fine-tuned {self.adapter}{identity}"
        return f"{models}; {self.dtype} on {self.device}, {self.exactness}"

    @property
    def trace_url(self) -> str | None:
        """Address of the run's trace in a viewer; see `forwardscope.suite.trace_url.trace_url`."""
        return trace_url(self.trace_id, self.traces_url)

    def to_records(self) -> list[dict[str, Any]]:
        """Return one flat dict for each probe, for a table such as `pandas.DataFrame(records)`.

        Evidence is left out. Records of several results can be in one table.
        """
        run = ("run_id", "started_at", "suite", "model", "adapter", "device", "dtype")
        of_run = {name: getattr(self, name) for name in run}
        records = []
        for probe in self.probes:
            measured = probe.model_dump(mode="json", exclude={"evidence", "ci_95", "stats"})
            low, high = probe.ci_95 or (None, None)
            records.append(
                {**of_run, **measured, "ci_low": low, "ci_high": high, **probe.stats.model_dump()}
            )
        return records

    def write(self, path: str | PathLike[str]) -> None:
        """Write the result as JSON; see `forwardscope.files.replace_content`.

        Raises:
            OutputError: The file cannot be written; an existing file is unchanged.
        """
        write_file("result", Path(path), self.model_dump_json(indent=2) + "\n")
