"""One record: its keys, its line, and what is taken from other tools."""

from __future__ import annotations

import json
import sys
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from msgspec.structs import replace

from forwardscope import TraceEvent
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
}

any_text = st.text(st.characters(exclude_categories=()))
finite = st.floats(allow_nan=False, allow_infinity=False)
whole = st.integers(-(2**63), 2**63)
#: Values of any type that a backend may give by mistake. -0.0 is left out: what is kept of
#: an earlier line with 0.0 is equal to it.
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
    },
)


def test_plain_record_is_eight_keys_in_order() -> None:
    """The line is known to the byte: it is what older readers have always got."""
    assert line_of(TraceEvent(**_FIXED)) == (
        b'{"ts": 1795406197.3149176, "probe": null, "view_id": "base", '
        b'"prompt_hash": "aaf4c61ddcc5", "top_k": 8, "op": "next_token_dist", '
        b'"wall_ms": 57.91170900010911, "hit": false}\n'
    )


def test_optional_keys_follow_in_order() -> None:
    """All eight come after the fixed ones, in the order of the contract."""
    event = TraceEvent(**_FIXED, **_OPTIONAL)
    assert list(event.to_dict()) == [*_FIXED, *_OPTIONAL]
    assert json.loads(line_of(event)) == _FIXED | _OPTIONAL


@pytest.mark.parametrize("key", _OPTIONAL)
def test_optional_key_is_written_only_where_it_applies(key: str) -> None:
    """One that is set stands alone behind the eight; the others are absent, not null."""
    event = TraceEvent(**_FIXED, **{key: _OPTIONAL[key]})
    assert list(event.to_dict()) == [*_FIXED, key]


@pytest.mark.parametrize("key", ["batch", "tokens", "tokens_reused"])
def test_zero_applies(key: str) -> None:
    """A count of 0 was told, so it is written."""
    told: dict[str, Any] = {key: 0}
    assert TraceEvent(**_FIXED, **told).to_dict()[key] == 0


@given(fixed_parts, optional_parts)
def test_line_is_what_json_dumps_writes(fixed: dict[str, Any], more: dict[str, Any]) -> None:
    """Whatever the strings and numbers, the line equals `json.dumps` of the keys in order."""
    ordered = {key: fixed[key] for key in _FIXED} | {
        key: more[key] for key in _OPTIONAL if key in more
    }
    assert line_of(TraceEvent(**fixed, **more)) == json.dumps(ordered).encode("ascii") + b"\n"


@given(st.lists(st.fixed_dictionaries(dict.fromkeys([*_FIXED, *_OPTIONAL], anything)), max_size=5))
def test_line_of_values_of_any_type(records: list[dict[str, Any]]) -> None:
    """Equal values of other types, numpy's included, never take the place of one another."""
    for record in records:
        event = TraceEvent(**record)
        expected = json.dumps(event.to_dict(), default=lambda value: value.item())
        assert line_of(event) == expected.encode("ascii") + b"\n"


@given(fixed_parts, optional_parts)
def test_record_reads_back_as_it_was(fixed: dict[str, Any], more: dict[str, Any]) -> None:
    """A line is one line, and gives the event that it was made from."""
    event = TraceEvent(**fixed, **more)
    line = line_of(event)
    assert line.count(b"\n") == 1
    assert TraceEvent.from_dict(json.loads(line)) == event


def test_event_cannot_be_changed() -> None:
    """What happened, happened."""
    with pytest.raises(AttributeError):
        TraceEvent(**_FIXED).hit = True  # type: ignore[misc]
    assert replace(TraceEvent(**_FIXED), hit=True).hit


def test_unknown_keys_are_ignored() -> None:
    """Another tool may write more than we know."""
    event = TraceEvent.from_dict({"gpu": "A100", **_FIXED, "nested": {"a": [1]}})
    assert event == TraceEvent(**_FIXED)


def test_whole_numbers_do_for_times() -> None:
    """A time without a fraction is a time."""
    event = TraceEvent.from_dict(_FIXED | {"ts": 1795406197, "wall_ms": 3})
    assert (event.ts, event.wall_ms) == (1795406197, 3)


@pytest.mark.parametrize("key", _FIXED)
def test_missing_fixed_key_is_refused(key: str) -> None:
    """Each of the eight is needed, `probe` too, though it may be null."""
    record = {name: value for name, value in _FIXED.items() if name != key}
    with pytest.raises(ValueError, match=f"^{key} is missing or of the wrong type$"):
        TraceEvent.from_dict(record)


@pytest.mark.parametrize(
    ("key", "value"),
    [
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
def test_wrong_type_of_a_fixed_key_is_refused(key: str, value: object) -> None:
    """A bool is no number, a number is no bool, and text is neither."""
    with pytest.raises(ValueError, match=f"^{key} is missing or of the wrong type$"):
        TraceEvent.from_dict(_FIXED | {key: value})


@pytest.mark.parametrize("key", ["ts", "wall_ms"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 10**400, -(10**400)])
def test_number_that_is_not_finite_is_refused(key: str, value: float) -> None:
    """One NaN would spoil every sum over the trace, and so would a number beyond any float."""
    with pytest.raises(ValueError, match=f"^{key} is not a finite number$"):
        TraceEvent.from_dict(_FIXED | {key: value})


def test_largest_float_is_finite() -> None:
    """The bound is that of floats, not one of ours."""
    assert TraceEvent.from_dict(_FIXED | {"wall_ms": sys.float_info.max}).wall_ms > 1e308


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
def test_wrong_type_of_an_optional_key_is_dropped(key: str, value: object) -> None:
    """Another tool may mean something else by it; the other optional keys are kept."""
    event = TraceEvent.from_dict(_FIXED | _OPTIONAL | {key: value})
    expected = {name: kept for name, kept in _OPTIONAL.items() if name != key}
    assert event == TraceEvent(**_FIXED, **expected)


@pytest.mark.parametrize("record", [None, 3, "text", [], [["ts", 1.0]], True])
def test_only_an_object_is_a_record(record: object) -> None:
    """Any other JSON is refused in the same way."""
    with pytest.raises(ValueError, match=r"^a record must be a JSON object$"):
        TraceEvent.from_dict(record)


def test_numpy_numbers_are_written_as_numbers() -> None:
    """A backend that counts with numpy has its records all the same."""
    event = TraceEvent(1.0, None, "base", "abc", np.int64(8), "op", 0.5, False, tokens=np.int64(3))
    record = json.loads(line_of(event))
    assert (record["top_k"], record["tokens"]) == (8, 3)


@pytest.mark.parametrize("key", ["top_k", "hit", "tokens"])
@pytest.mark.parametrize("value", [8, 8.0, True, 1, 1.0, float("nan"), float("inf"), np.int64(8)])
def test_values_of_equal_hash_have_lines_of_their_own(key: str, value: Any) -> None:
    """1, 1.0 and True are equal, and so are 8 and 8.0; each is written as `json.dumps` does."""
    for other in (True, 1, 1.0, 8, 8.0):
        line_of(TraceEvent(**_FIXED | {key: other}))
    line = line_of(TraceEvent(**_FIXED | {key: value}))
    written = value.item() if isinstance(value, np.int64) else value
    assert line == json.dumps(_FIXED | {key: written}).encode("ascii") + b"\n"
