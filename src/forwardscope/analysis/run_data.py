"""The data of one run, read from its result or its trace."""

from __future__ import annotations

import reprlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
from pydantic import ValidationError

from forwardscope.analysis.summary import summarize
from forwardscope.core.keys import Question
from forwardscope.core.series import Counts, SeriesKey
from forwardscope.errors import UserError
from forwardscope.probes import Verdict
from forwardscope.suite.result import SeriesResult, SuiteResult
from forwardscope.suite.trace_url import trace_url
from forwardscope.text import printable
from forwardscope.trace import TraceEvent

__all__ = [
    "MAX_BYTES",
    "RunData",
    "is_result",
    "read_result",
    "run_data_of_result",
    "run_data_of_trace",
]

#: Maximum bytes of a result, enough for half a million prompts.
MAX_BYTES: Final = 32 << 20
_HEAD_BYTES: Final = 1 << 16
_MAX_PLACE: Final = 80


@dataclass(frozen=True, slots=True)
class RunData:
    """The data of one run.

    Attributes:
        source: Path of the result or trace.
        suite: Name of the suite; None for a trace.
        series: Counts by probe, view and op.
        verdicts: Verdicts by probe; None for a trace.
        distinct_lookups: Distinct lookups by probe; None for a result, which has no prompts.
        trace_url: Address of the run's trace in a viewer, or None.
        result: The result; None for a trace.
    """

    source: Path
    suite: str | None
    series: Mapping[SeriesKey, Counts]
    verdicts: Mapping[str, Verdict] | None
    distinct_lookups: Mapping[str | None, frozenset[Question]] | None
    trace_url: str | None = None
    result: SuiteResult | None = None

    @property
    def total(self) -> Counts:
        """Counts of the whole run."""
        return sum(self.series.values(), Counts())

    def by_probe_and_view(self) -> dict[tuple[str | None, str], Counts]:
        """Return the counts of all ops together, in the order of their first lookups."""
        by_probe_and_view: dict[tuple[str | None, str], Counts] = defaultdict(Counts)
        for key, counts in self.series.items():
            by_probe_and_view[key.probe, key.view_id] += counts
        return dict(by_probe_and_view)


def is_result(path: Path) -> bool:
    """Return whether a file is a result; decided by its first bytes.

    Raises:
        UserError: The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return b'"schema_version"' in file.read(_HEAD_BYTES)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error


def read_result(path: Path) -> SuiteResult:
    """Read a result that `forwardscope run --json` wrote.

    Raises:
        UserError: The file cannot be read, or is not a result that this version supports.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    if len(content) > MAX_BYTES:
        raise UserError(f"{path} is not a result: it is larger than {MAX_BYTES} bytes")
    try:
        # stricter than pydantic's parser, which accepts NaN and infinity
        return SuiteResult.model_validate(msgspec.json.decode(content))
    except ValidationError as error:
        mistake = _first_mistake(error)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        mistake = f"Invalid JSON: {error}"
    raise UserError(f"{path} is not a result that this version supports: {mistake}")


def _first_mistake(error: ValidationError) -> str:
    """Describe the first mistake: its place, and what is expected there."""
    first = error.errors(include_url=False)[0]
    if first["loc"] == ("schema_version",):
        return f"it has format {reprlib.repr(first['input'])}, this version reads formats 1 and 2"
    place = printable(".".join(map(str, first["loc"])))
    message = first["msg"].removeprefix("Value error, ").replace("Input should", "must")
    return f"{place[:_MAX_PLACE]}: {message}" if place else message


def run_data_of_result(path: Path) -> RunData:
    """Return the data of a run from its result; for errors see `read_result`."""
    result = read_result(path)
    series = {
        SeriesKey(tally.probe, tally.view_id, tally.op): _counts(tally) for tally in result.series
    }
    verdicts = {probe.name: probe.verdict for probe in result.probes}
    return RunData(path, result.suite, series, verdicts, None, result.trace_url, result)


def run_data_of_trace(path: Path, events: Iterable[TraceEvent]) -> RunData:
    """Return the data of a run from its trace.

    Raises:
        UserError: The trace has records of several runs.
    """
    lookups: dict[str | None, set[Question]] = defaultdict(set)
    runs: set[str | None] = set()
    traces: set[str | None] = set()

    def collecting() -> Iterator[TraceEvent]:
        for event in events:
            runs.add(event.run_id)
            traces.add(event.trace_id)
            key = Question(event.op, event.view_id, event.prompt_hash, event.top_k)
            lookups[event.probe].add(key)
            yield event

    series = summarize(collecting()).series
    if len(runs) > 1:
        raise UserError(
            f"{path} has records of {len(runs)} runs, but a comparison needs one; "
            "use a trace of one run, or results"
        )
    distinct = {probe: frozenset(keys) for probe, keys in lookups.items()}
    found = traces - {None}
    url = trace_url(found.pop(), None) if len(found) == 1 else None
    return RunData(path, None, series, None, distinct, url)


def _counts(tally: SeriesResult) -> Counts:
    return Counts(
        hits=tally.cache_hits - tally.coalesced,
        coalesced=tally.coalesced,
        forward_passes=tally.forward_passes,
        errors=Counter({"": tally.forward_errors}) if tally.forward_errors else Counter(),
        scoring_ns=round(tally.scoring_wall_s * 1e9),
        forward_ns=round(tally.forward_s * 1e9),
        disk_hits=tally.store_hits - tally.remote_coalesced,
        remote_coalesced=tally.remote_coalesced,
    )
