"""One record: its keys, its line, and records of other tools."""

from __future__ import annotations

import json
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from msgspec.structs import replace

from forwardscope import TraceEvent
from forwardscope.trace.record import MAX_COUNT, MAX_TS, MAX_WALL_MS
from forwardscope.trace.writer import line_of

_FIXED: dict[str, Any] = {
    "ts": 1795406197.3149176,
    "probe": None,
    "view_id": "base",
    "prompt_hash": "aaf4c61ddcc5",
    "top_k": 8,
    "op": "next_token_dist",
    "wall_ms": 57.91170900010911,
    "hit": False,
}
_OPTIONAL: dict[str, Any] = {
    "result": "coalesced",
    "batch": 4,
    "tokens": 17,
    "tokens_reused": 5,
    "error": "ValueError",
    "run_id": "run-1",
    "trace_id": "0af7651916cd43dd8448eb211c80319c",
    "parent_id": "b7ad6b7169203331",
    "pass_trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    "pass_span_id": "00f067aa0ba902b7",
    "pass_run_id": "run-0",
    "view_identity": "3c1f",
}

any_text = st.text(st.characters(exclude_categories=()))
finite = st.floats(allow_nan=False, allow_infinity=False)
whole = st.integers(-(2**63), 2**63)
count = st.integers(0, MAX_COUNT)
#: Values of any type that a backend may pass by mistake. -0.0 is omitted: it is equal to 0.0,
#: which may be cached.
anything = (
    st.none()
    | st.booleans()
    | st.integers(-2, 2)
    | whole
    | st.sampled_from([0.0, 1.0, 2.0])
    | st.floats().filter(bool)
    | any_text
    | st.builds(np.int64, st.integers(-2, 2))
    | st.builds(np.float64, st.floats().filter(bool))
    | st.builds(np.float32, st.floats(width=32).filter(bool))
    | st.builds(np.bool_, st.booleans())
)
fixed_parts = st.fixed_dictionaries(
    {
        "ts": finite,
        "probe": st.none() | any_text,
        "view_id": any_text,
        "prompt_hash": any_text,
        "top_k": whole,
        "op": any_text,
        "wall_ms": finite,
        "hit": st.booleans(),
    }
)
optional_parts = st.fixed_dictionaries(
    {},
    optional={
        "result": any_text,
        "batch": whole,
        "tokens": whole,
        "tokens_reused": whole,
        "error": any_text,
        "run_id": any_text,
        "trace_id": any_text,
        "parent_id": any_text,
        "pass_trace_id": any_text,
        "pass_span_id": any_text,
        "pass_run_id": any_text,
        "view_identity": any_text,
    },
)


def test_record_without_optional_keys() -> None:
    """Its line has the eight fixed keys in order, byte for byte."""
    assert line_of(TraceEvent(**_FIXED)) == (
        b'{"ts": 1795406197.3149176, "probe": null, "view_id": "base", '
        b'"prompt_hash": "aaf4c61ddcc5", "top_k": 8, "op": "next_token_dist", '
        b'"wall_ms": 57.91170900010911, "hit": false}\n'
    )


@given(fixed_parts, optional_parts)
def test_line_equals_json_dumps(fixed: dict[str, Any], more: dict[str, Any]) -> None:
    """The optional keys that are set follow the fixed ones, in order."""
    ordered = {key: fixed[key] for key in _FIXED} | {
        key: more[key] for key in _OPTIONAL if key in more
    }
    assert line_of(TraceEvent(**fixed, **more)) == json.dumps(ordered).encode("ascii") + b"\n"


@given(st.lists(st.fixed_dictionaries(dict.fromkeys([*_FIXED, *_OPTIONAL], anything)), max_size=5))
def test_line_of_values_of_any_type(records: list[dict[str, Any]]) -> None:
    """1, 1.0, True and NumPy scalars are equal, but each has its own text."""
    for record in records:
        event = TraceEvent(**record)
        expected = json.dumps(event.to_dict(), default=lambda value: value.item())
        assert line_of(event) == expected.encode("ascii") + b"\n"


@given(
    st.fixed_dictionaries(
        {
            **dict.fromkeys(["view_id", "prompt_hash", "op"], st.text()),
            "probe": st.none() | st.text(),
            "ts": st.floats(0, MAX_TS),
            "wall_ms": st.floats(0, MAX_WALL_MS),
            "top_k": count,
            "hit": st.booleans(),
        }
    ),
    st.fixed_dictionaries(
        {},
        optional={
            key: count if isinstance(value, int) else st.text() for key, value in _OPTIONAL.items()
        },
    ),
)
def test_record_is_read_back_unchanged(fixed: dict[str, Any], more: dict[str, Any]) -> None:
    """A record of plausible numbers is one line, and gives an equal event."""
    event = TraceEvent(**fixed, **more)
    line = line_of(event)
    assert line.count(b"\n") == 1
    assert TraceEvent.from_dict(json.loads(line)) == event


def test_half_a_surrogate_pair_is_escaped() -> None:
    """Text of a record can be written to any file."""
    event = TraceEvent.from_dict(_FIXED | {"probe": "a\ud800", "run_id": "\udcff"})
    assert (event.probe, event.run_id) == (r"a\ud800", r"\udcff")


def test_event_cannot_be_changed() -> None:
    """Its fields cannot be set."""
    with pytest.raises(AttributeError):
        TraceEvent(**_FIXED).hit = True  # type: ignore[misc]
    assert replace(TraceEvent(**_FIXED), hit=True).hit


def test_record_of_another_tool() -> None:
    """Unknown keys are ignored, and times may be integers."""
    event = TraceEvent.from_dict({"gpu": "A100", **_FIXED, "ts": 3, "nested": {"a": [1]}})
    assert event == TraceEvent(**_FIXED | {"ts": 3})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *((key, ...) for key in _FIXED),
        ("ts", "1795406197.3"),
        ("ts", True),
        ("ts", None),
        ("probe", 3),
        ("probe", False),
        ("view_id", None),
        ("prompt_hash", 123),
        ("top_k", "8"),
        ("top_k", 8.0),
        ("top_k", True),
        ("op", ["next_token_dist"]),
        ("wall_ms", False),
        ("wall_ms", {}),
        ("hit", 0),
        ("hit", 1),
        ("hit", "false"),
        ("hit", None),
    ],
)
def test_missing_or_wrong_fixed_key_is_an_error(key: str, value: object) -> None:
    """Each of the eight keys is required; a bool is not accepted as a number."""
    with pytest.raises(ValueError, match=f"^{key} is missing or of the wrong type$"):
        TraceEvent.from_dict(
            {name: one for name, one in {**_FIXED, key: value}.items() if one is not ...}
        )


@pytest.mark.parametrize("key", ["ts", "wall_ms"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e-9, 1e10, 1e308, 10**400])
def test_implausible_time_is_an_error(key: str, value: float) -> None:
    """A time is finite, not negative, and one that a lookup can have."""
    with pytest.raises(ValueError, match=f"^{key} is not from 0 to "):
        TraceEvent.from_dict(_FIXED | {key: value})


@pytest.mark.parametrize("key", ["top_k", "batch", "tokens", "tokens_reused"])
@pytest.mark.parametrize("value", [-1, MAX_COUNT + 1, 10**400])
def test_implausible_count_is_an_error(key: str, value: int) -> None:
    """A count is not negative and has a bound."""
    with pytest.raises(ValueError, match=f"^{key} is not from 0 to "):
        TraceEvent.from_dict(_FIXED | {key: value})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("result", 1),
        ("batch", "4"),
        ("batch", True),
        ("batch", 4.0),
        ("tokens", [1, 2]),
        ("tokens", False),
        ("tokens_reused", 5.0),
        ("error", {"type": "ValueError"}),
        ("run_id", 7),
        ("trace_id", None),
        ("parent_id", 12),
    ],
)
def test_wrong_type_of_an_optional_key_is_ignored(key: str, value: object) -> None:
    """The other optional keys are read."""
    event = TraceEvent.from_dict(_FIXED | _OPTIONAL | {key: value})
    expected = {name: one for name, one in _OPTIONAL.items() if name != key}
    assert event == TraceEvent(**_FIXED, **expected)


@pytest.mark.parametrize("record", [None, 3, "text", [], [["ts", 1.0]], True])
def test_record_must_be_an_object(record: object) -> None:
    """Other JSON values are an error."""
    with pytest.raises(ValueError, match=r"^a record must be a JSON object$"):
        TraceEvent.from_dict(record)


@pytest.mark.parametrize("key", ["top_k", "hit", "tokens"])
def test_values_of_equal_hash_have_their_own_lines(key: str) -> None:
    """1, 1.0, True and NumPy's 1 are written as `json.dumps` writes them, in any order."""
    for value in (True, 1, 1.0, np.int64(1)):
        line = line_of(TraceEvent(**_FIXED | {key: value}))
        written = value.item() if isinstance(value, np.int64) else value
        assert line == json.dumps(_FIXED | {key: written}).encode("ascii") + b"\n"
