"""Record of one lookup in the JSONL trace."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

__all__ = ["MAX_COUNT", "MAX_TS", "MAX_WALL_MS", "OPTIONAL", "TraceEvent"]

#: Largest numbers of a record that is read; the smallest are 0. The end of a lookup is in the
#: year 2242, which in nanoseconds still fits 63 bits, and its duration is 11 days.
MAX_TS: Final = float(1 << 33)
MAX_WALL_MS: Final = 1e9
MAX_COUNT: Final = (1 << 31) - 1

#: Optional keys in order; a record has only those that apply.
OPTIONAL = (
    *("result", "tier", "verified", "batch", "tokens", "tokens_reused", "error"),
    *("run_id", "trace_id", "parent_id", "pass_trace_id", "pass_span_id"),
    *("pass_run_id", "view_identity", "bypassed"),
)
_COUNTS = ("batch", "tokens", "tokens_reused")
_Count = Annotated[int, Meta(ge=0, le=MAX_COUNT)]


class TraceEvent(msgspec.Struct, frozen=True, gc=False):
    """One lookup in the trace; the constructor validates no field.

    Attributes:
        ts: End of the lookup, in seconds since the epoch.
        probe: The current probe, or None outside any probe.
        view_id: Exact id of the view.
        prompt_hash: First 12 hex digits of SHA-1 over the prompt's UTF-8.
        top_k: Number of tokens in the distribution; 0 for other ops.
        op: What is computed, such as `next_token_dist`.
        wall_ms: Compute time of a miss (an even share of its batch's time), or
            lookup time of a hit, in milliseconds.
        hit: Whether the lookup needed no forward pass of its own.
        result: `coalesced` where a forward pass in flight answered, else None.
        tier: `disk` or `remote` where a store answered, else None.
        verified: Whether a store's value agreed with the value computed again, where it was.
        batch: Number of prompts in the batch of a miss.
        tokens: Prompt tokens of the forward pass.
        tokens_reused: Those of `tokens` in a prefix that an earlier prompt had computed.
        error: Class of the exception that the forward pass raised.
        run_id: Id of the run.
        trace_id: Id of the lookup's OpenTelemetry trace, 32 hex digits.
        parent_id: Id of the parent of the lookup's span, 16 hex digits.
        pass_trace_id: Trace of the forward call that computed the value, or failed to.
        pass_span_id: Id of that call's span.
        pass_run_id: Id of the run that computed the value, of a hit in a store.
        view_identity: Identity of the view, of a miss in a run with a store.
        bypassed: True for a miss for which no cache was asked and whose value is not kept.
    """

    ts: Annotated[float, Meta(ge=0, le=MAX_TS)]
    probe: str | None
    view_id: str
    prompt_hash: str
    top_k: _Count
    op: str
    wall_ms: Annotated[float, Meta(ge=0, le=MAX_WALL_MS)]
    hit: bool
    result: str | None = None
    tier: str | None = None
    verified: bool | None = None
    batch: _Count | None = None
    tokens: _Count | None = None
    tokens_reused: _Count | None = None
    error: str | None = None
    run_id: str | None = None
    trace_id: str | None = None
    parent_id: str | None = None
    pass_trace_id: str | None = None
    pass_span_id: str | None = None
    pass_run_id: str | None = None
    view_identity: str | None = None
    bypassed: bool | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the eight fixed keys in order, then the optional ones that apply."""
        record: dict[str, Any] = {
            "ts": self.ts,
            "probe": self.probe,
            "view_id": self.view_id,
            "prompt_hash": self.prompt_hash,
            "top_k": self.top_k,
            "op": self.op,
            "wall_ms": self.wall_ms,
            "hit": self.hit,
        }
        for key in OPTIONAL:
            value = getattr(self, key)
            if value is not None:
                record[key] = value
        return record

    @classmethod
    def from_dict(cls, record: object) -> TraceEvent:
        """Return the event of a record that forwardscope or another tool wrote.

        Unknown keys are ignored. An optional key with a value of the wrong type
        is ignored too, because other tools can use the key differently. Half a
        surrogate pair, which no encoding of text has, becomes its escape.

        Raises:
            ValueError: The record is not a dict, one of the eight fixed keys is missing
                or of the wrong type, or a number is out of its bounds (`MAX_TS`,
                `MAX_WALL_MS`, `MAX_COUNT`).
        """
        if not isinstance(record, dict):
            raise ValueError("a record must be a JSON object")  # noqa: TRY004 - one error type
        for key, types in _FIXED_TYPES.items():
            if key not in record or type(record[key]) not in types:
                raise ValueError(f"{key} is missing or of the wrong type")
        known = {key: record[key] for key in _FIXED_TYPES} | {
            key: record[key]
            for key in OPTIONAL
            if type(record.get(key)) is _OPTIONAL_TYPES.get(key, str)
        }
        for key, value in known.items():
            if key in _LARGEST and not 0 <= value <= _LARGEST[key]:  # NaN is never in bounds
                raise ValueError(f"{key} is not from 0 to {_LARGEST[key]:g}")
            if isinstance(value, str):
                known[key] = value.encode(errors="backslashreplace").decode()
        return cls(**known)


_NUMBER = (int, float)
_OPTIONAL_TYPES: dict[str, type] = {**dict.fromkeys(_COUNTS, int), "verified": bool}
_FIXED_TYPES: dict[str, tuple[type, ...]] = {
    "ts": _NUMBER,
    "probe": (str, type(None)),
    "view_id": (str,),
    "prompt_hash": (str,),
    "top_k": (int,),
    "op": (str,),
    "wall_ms": _NUMBER,
    "hit": (bool,),
}
_LARGEST: dict[str, float] = {
    "ts": MAX_TS,
    "wall_ms": MAX_WALL_MS,
    "top_k": MAX_COUNT,
    **dict.fromkeys(_COUNTS, MAX_COUNT),
}
