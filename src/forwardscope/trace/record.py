"""One record of the trace, and its form as a line."""

from __future__ import annotations

import json
import sys
from typing import Any

import msgspec

__all__ = ["HitLine", "TraceEvent", "end_of_line", "hit_line"]

_OPTIONAL = (
    *("result", "batch", "tokens", "tokens_reused", "error"),
    *("run_id", "trace_id", "parent_id"),
)
_COUNTS = ("batch", "tokens", "tokens_reused")


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
        tokens_reused: Of these, the first ones that an earlier prompt had computed.
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
    tokens_reused: int | None = None
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
            if type(record.get(key)) is (int if key in _COUNTS else str)
        }
        return cls(**fixed, **optional)


class HitLine:
    """The lines of hits that differ in prompt and time alone.

    Joined with `hit_line`, the parts give what `TraceEvent.to_line` would, for a small
    part of its cost.

    Args:
        probe: As in `TraceEvent`, and so are the others.
        view_id: The same.
        top_k: The same.
        op: The same.
        run_id: The same.

    Attributes:
        tail: What follows `wall_ms`, without the end of the line; see `end_of_line`.
    """

    __slots__ = ("_after_hash", "_after_ts", "tail")

    def __init__(
        self, probe: str | None, view_id: str, top_k: int, op: str, run_id: str | None
    ) -> None:
        self._after_ts = _inside(probe=probe, view_id=view_id) + b', "prompt_hash": "'
        self._after_hash = b'"' + _inside(top_k=top_k, op=op) + b', "wall_ms": '
        self.tail = _inside(hit=True) if run_id is None else _inside(hit=True, run_id=run_id)

    def middle(self, digest: bytes) -> bytes:
        """Return what stands between `ts` and `wall_ms`, for a prompt of this hash."""
        return b"".join((self._after_ts, digest, self._after_hash))


def hit_line(time_ns: int, middle: bytes, wall_ns: int, end: bytes) -> bytes:
    """Return the line of one hit.

    Args:
        time_ns: Its end, in nanoseconds since the epoch.
        middle: Of its `HitLine`.
        wall_ns: The time that it took, in nanoseconds.
        end: The tail of its `HitLine`, and the end of the line.
    """
    wall_ms = wall_ns / 1e6
    wall = _FLOAT(wall_ms) if wall_ns >= _PLAIN_FROM_NS else repr(wall_ms).encode()
    return b"".join((b'{"ts": ', _FLOAT(time_ns / 1e9), middle, wall, end))


def _inside(**fields: Any) -> bytes:
    return f", {_ENCODER.encode(fields)[1:-1]}".encode("ascii")


def end_of_line(trace_id: str | None, parent_id: str | None) -> bytes:
    """Return the end of a line: the ids of a span's trace and parent, where there are any."""
    trace = "" if trace_id is None else f', "trace_id": "{trace_id}"'
    parent = "" if parent_id is None else f', "parent_id": "{parent_id}"'
    return f"{trace}{parent}}}\n".encode("ascii")


#: A float's shortest form, seven times as fast as `repr`, and the same up to 1e16.
_FLOAT = msgspec.json.Encoder().encode
#: What is under 1e-4 ms gets an exponent, of which the two have different forms.
_PLAIN_FROM_NS = 100

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
