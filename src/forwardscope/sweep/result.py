"""The result of a sweep, as plain data and as JSON."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field

from forwardscope.files import write_file
from forwardscope.probes import Verdict
from forwardscope.suite.result import Delivery, FewKeys
from forwardscope.suite.trace_url import TracesUrl, trace_url

__all__ = ["AdapterRow", "Comparisons", "Passes", "ProbeCell", "SweepResult"]

_Count = Annotated[int, Field(ge=0, lt=2**63)]
_Seconds = Annotated[float, Field(ge=0, le=1e10)]
_P = Annotated[float, Field(ge=0, le=1)]
_Tiers = Annotated[dict[str, _Count], FewKeys]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Passes(_Record):
    """What lookups cost.

    Attributes:
        lookups: All lookups.
        hits: Lookups without a forward pass of their own, those that a store answered included.
        by_tier: Hits by tier: `memory`, `disk` or `remote`.
        forward_passes: Prompts computed by the model, without verifications.
        demand: Forward passes that an empty store would have needed.
    """

    lookups: _Count = 0
    hits: _Count = 0
    by_tier: _Tiers = {}
    forward_passes: _Count = 0
    demand: _Count = 0

    def __add__(self, other: Passes) -> Passes:
        """Return the sums."""
        tiers = {
            tier: self.by_tier.get(tier, 0) + other.by_tier.get(tier, 0)
            for tier in [*self.by_tier, *other.by_tier]
        }
        return Passes(
            lookups=self.lookups + other.lookups,
            hits=self.hits + other.hits,
            by_tier=tiers,
            forward_passes=self.forward_passes + other.forward_passes,
            demand=self.demand + other.demand,
        )


class ProbeCell(_Record):
    """What one probe measured of one adapter.

    Attributes:
        name: Name of the probe.
        kind: Its kind.
        verdict: Its verdict.
        score: Its score, 0 to 1, or null.
        raw: What it measured, or null.
        z_score: Distance of it from random adapters, or null.
        ci_95: 95 % interval of `raw`, or null.
        change: `raw` less that of the adapter before, or null.
        clear: Whether each of the two values lies outside the other's interval, or null.
        p: Probability of such a change if there were none, corrected for all comparisons of
            the sweep; null without intervals, so not corrected.
    """

    name: str
    kind: str
    verdict: Verdict
    score: float | None = None
    raw: float | None = None
    z_score: float | None = None
    ci_95: tuple[float, float] | None = None
    change: float | None = None
    clear: bool | None = None
    p: _P | None = None


class AdapterRow(_Record):
    """One adapter of a sweep.

    Attributes:
        index: Its position.
        adapter: Folder or hub id.
        label: Its short name.
        status: `finished`, `resumed` (it had a finished result) or `error`.
        error: Why it could not be measured, in one sentence; null if it was.
        error_type: Class of that error.
        worker: Name of the worker that measured it; empty if it was resumed.
        folder: Where its result and trace are, relative to the sweep's folder.
        run_id: Id of its run, or null.
        passed: Whether its run passed.
        score: Score of the suite, or null.
        started_at: Start of its run, ISO 8601, UTC, or null.
        device: Device of the weights; empty without a result.
        dtype: Their dtype; empty without a result.
        wall_s: Time of its run in seconds.
        compared_with: Label of the adapter before that has a result, or null.
        passes: What its lookups cost when it was measured.
        probes: What the probes measured.
        notes: What a reader should know of it.
    """

    index: _Count
    adapter: str
    label: str
    status: Literal["finished", "resumed", "error"]
    error: str | None = None
    error_type: str | None = None
    worker: str = ""
    folder: str
    run_id: str | None = None
    passed: bool = False
    score: float | None = None
    started_at: str | None = None
    device: str = ""
    dtype: str = ""
    wall_s: _Seconds = 0.0
    compared_with: str | None = None
    passes: Passes = Passes()
    probes: Annotated[list[ProbeCell], FailFast()] = []
    notes: Annotated[list[str], FailFast()] = []


class Comparisons(_Record):
    """How the changes of a sweep were tested.

    Attributes:
        changes: Changes against the adapter before.
        tested: Those of them with a p-value; all are corrected together.
        correction: The method.
    """

    changes: _Count = 0
    tested: _Count = 0
    correction: Literal["holm"] = "holm"


class SweepResult(_Record):
    """The result of one sweep.

    Attributes:
        schema_version: Version of this format.
        trace_id: Id of its OpenTelemetry trace, 32 hex digits; null if spans are not recorded.
        traces_url: The suite's `telemetry.traces_url`, or null.
        suite: Name of the suite.
        model: Path or hub id of the base.
        started_at: Start of the sweep, ISO 8601, UTC.
        wall_s: Time of the sweep in seconds.
        workers: Number of workers that it had.
        store: Where values are kept between adapters, or null.
        rows: The adapters in order; those that were not reached are in `not_run`.
        not_run: Labels of adapters without a row, because the sweep was interrupted.
        passes: What the lookups of this sweep cost, without those of resumed adapters.
        comparisons: How the changes were tested.
        events: What happened that a reader should know, in order.
        delivery: Destinations of telemetry and what was delivered.
    """

    schema_version: Literal[1] = 1
    trace_id: str | None = None
    traces_url: TracesUrl | None = None
    suite: str
    model: str
    started_at: str
    wall_s: _Seconds
    workers: _Count
    store: str | None = None
    rows: Annotated[list[AdapterRow], FailFast()]
    not_run: Annotated[list[str], FailFast()] = []
    passes: Passes = Passes()
    comparisons: Comparisons = Comparisons()
    events: Annotated[list[str], FailFast()] = []
    delivery: Annotated[list[Delivery], FailFast()] = []

    @property
    def passed(self) -> bool:
        """Whether every adapter was measured and passed."""
        return not self.not_run and all(row.passed for row in self.rows)

    @property
    def trace_url(self) -> str | None:
        """Address of the sweep's trace in a viewer."""
        return trace_url(self.trace_id, self.traces_url)

    def write(self, path: str | PathLike[str]) -> None:
        """Write the result as JSON; see `forwardscope.files.replace_content`.

        Raises:
            OutputError: The file cannot be written; an existing file is unchanged.
        """
        write_file("sweep", Path(path), self.model_dump_json(indent=2) + "\n")
