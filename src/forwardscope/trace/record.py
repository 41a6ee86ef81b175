"""One record of the trace, and its form as a line."""

from __future__ import annotations

import json
import sys
from typing import Any

import msgspec

__all__ = ["TraceEvent"]

_OPTIONAL = ("result", "batch", "tokens", "error", "run_id", "trace_id", "parent_id")


def _plain(value: Any) -> Any:
    """Write a number of numpy's as Python's: no record may fail the lookup that it is about."""
    return value.item() if hasattr(value, "item") else str(value)


#: As `json.dumps` would, but for values of other types than a record's.
_ENCODER = json.JSONEncoder(default=_plain)


class TraceEvent(msgspec.Struct, frozen=True, gc=False):
    """One lookup, as the trace has it; what it is made from is not checked.

    Attributes:
        ts: End of the lookup, in seconds since the epoch.
        probe: The probe that asked, or None outside any.
        view_id: The view that was asked.
        prompt_hash: First 12 hex digits of SHA-1 over the prompt's UTF-8.
        top_k: How many tokens of the distribution were asked for; 0 for other ops.
        op: What was asked.
        wall_ms: Compute time of a miss (an even share of its batch's), or lookup
            time of a hit, in milliseconds.
        hit: Whether the lookup was answered without paying a forward pass.
        result: `coalesced` where another's pass answered, else None.
        batch: Prompts in the forward batch that a miss was part of.
        tokens: Tokens of the prompt in the forward pass.
        error: Class of the exception that the forward pass raised.
        run_id: The run that asked.
        trace_id: The OpenTelemetry trace that it belongs to, 32 hex digits.
        parent_id: The span that the lookup's own hangs under, 16 hex digits.
    """

    ts: float
    probe: str | None
    view_id: str
    prompt_hash: str
    top_k: int
    op: str
    wall_ms: float
    hit: bool
    result: str | None = None
    batch: int | None = None
    tokens: int | None = None
    error: str | None = None
    run_id: str | None = None
    trace_id: str | None = None
    parent_id: str | None = None

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
        for key in _OPTIONAL:
            value = getattr(self, key)
            if value is not None:
                record[key] = value
        return record

    def to_line(self) -> bytes:
        """Return the record as one line of ASCII JSON, newline included."""
        return _ENCODER.encode(self.to_dict()).encode("ascii") + b"\n"

    @classmethod
    def from_dict(cls, record: object) -> TraceEvent:
        """Read a record, written by forwardscope or by another tool.

        Keys that are not known are ignored, and so is an optional key whose
        value is not of its type: another tool may mean something else by it.

        Raises:
            ValueError: It is no mapping, or one of the eight fixed keys is
                missing, of the wrong type or not finite.
        """
        if not isinstance(record, dict):
            raise ValueError("a record must be a JSON object")  # noqa: TRY004 - one error for callers
        fixed: dict[str, Any] = {key: record.get(key) for key in _FIXED_TYPES}
        for key, types in _FIXED_TYPES.items():
            if key not in record or type(fixed[key]) not in types:
                raise ValueError(f"{key} is missing or of the wrong type")
        for key in ("ts", "wall_ms"):
            if not abs(fixed[key]) <= sys.float_info.max:  # NaN, infinite, or no float at all
                raise ValueError(f"{key} is not a finite number")
        optional: dict[str, Any] = {
            key: record[key]
            for key in _OPTIONAL
            if type(record.get(key)) is (int if key in ("batch", "tokens") else str)
        }
        return cls(**fixed, **optional)


_NUMBER = (int, float)
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
