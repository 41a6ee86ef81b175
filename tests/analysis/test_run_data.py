"""Any file gives a result or a `UserError` of one sentence."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from forwardscope.analysis.gate import Limits, compare, comparison_table
from forwardscope.analysis.report import report
from forwardscope.analysis.run_data import MAX_BYTES, read_result, run_data_of_result
from forwardscope.analysis.run_files import result_junit, result_markdown
from forwardscope.analysis.tables import as_markdown
from forwardscope.errors import UserError
from forwardscope.probes import DeltaKL
from forwardscope.suite import SuiteSpec, run_suite
from forwardscope.suite.spec import ModelSpec
from forwardscope.testing import ScriptedBackend

any_text = st.text(st.characters(exclude_categories=()), max_size=20)
any_number = st.integers() | st.floats() | st.sampled_from([10**400, -1, 1e308, 2**63])
any_value = st.recursive(
    st.none() | st.booleans() | any_number | any_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    """A valid result as JSON values."""
    probe = DeltaKL(name="one", prompts=["a", "b"])
    spec = SuiteSpec(version=1, model=ModelSpec(path="m", adapter="a"), probes=[probe])
    return dict(json.loads(run_suite(spec, ScriptedBackend()).model_dump_json()))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results") / "r.json"


def _mistake(path: Path, content: str | bytes) -> str:
    """Return the error of a result, after the name of the file."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(UserError) as caught:
        read_result(path)
    return (
        str(caught.value)
        .removeprefix(f"{path} is not a result")
        .removeprefix(" that this version supports: ")
    )


def _places(value: Any, place: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Return the places of all values in a JSON value."""
    items: list[tuple[str | int, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    return [place, *(found for key, one in items for found in _places(one, (*place, key)))]


def _with(record: Any, place: tuple[str | int, ...], value: Any) -> Any:
    """Return a copy with another value at a place."""
    if not place:
        return value
    copy: Any = dict(record) if isinstance(record, dict) else list(record)
    copy[place[0]] = _with(copy[place[0]], place[1:], value)
    return copy


@pytest.mark.parametrize(
    ("place", "value", "mistake"),
    [
        (("backend_stats",), {}, "backend_stats: lacks cache_hits, cache_misses, forward_passes"),
        (("backend_stats", "hit_rate"), "x", "backend_stats.hit_rate.int: must be a valid integer"),
        (("schema_version",), 3, "it has format 3, this version reads formats 1 and 2"),
        (("wall_s",), -1, "wall_s: must be greater than or equal to 0"),
        (("wall_s",), 1e308, "wall_s: must be less than or equal to"),
        (("series", 0, "cache_hits"), 10**400, "series.0.cache_hits: must be less than"),
        (("series", 0, "forward_s"), 1e300, "series.0.forward_s: must be less than"),
        (("probes", 0, "verdict"), "won", "probes.0.verdict: must be 'pass', "),
        (("suite",), None, "suite: must be a valid string"),
        ((), [], "must be a valid dictionary"),
    ],
)
def test_a_mistake_is_named_with_its_place(
    path: Path, record: dict[str, Any], place: tuple[str | int, ...], value: Any, mistake: str
) -> None:
    """The error has the key with the mistake, and what is expected there."""
    assert _mistake(path, json.dumps(_with(record, place, value))).startswith(mistake)


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_not_finite(path: Path, record: dict[str, Any], constant: str) -> None:
    """They are no JSON, also in the evidence of a probe."""
    text = json.dumps(_with(record, ("probes", 0, "evidence"), {"per_prompt": ["?"]}))
    assert _mistake(path, text.replace('"?"', constant)).startswith("Invalid JSON: ")


@pytest.mark.parametrize(
    "content", [b"", b"\x00", b"[" * 100_000, b"\xff\xfe{\x00}\x00", b"9" * 9999]
)
def test_what_is_no_json(path: Path, content: bytes) -> None:
    """It is an error, not an exception of the parser."""
    assert _mistake(path, content).startswith("Invalid JSON: ")


def test_a_name_in_the_error_is_printable_and_short(path: Path, record: dict[str, Any]) -> None:
    """An unknown key cannot drive the terminal."""
    mistake = _mistake(path, json.dumps(record | {"\x1b[31m" + "x" * 10_000: 1}))
    assert mistake.startswith(r"\x1b[31mxxx")
    assert len(mistake) < 150


def test_size_is_bounded(path: Path) -> None:
    """A file above the bound is not parsed."""
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(UserError, match=f"it is larger than {MAX_BYTES} bytes"):
        read_result(path)


@pytest.mark.parametrize(
    ("place", "value", "mistake"),
    [
        (("probes",), [0] * 100_000, "probes.0: must be a valid dictionary"),
        (("series",), [{}] * 100_000, "series.0.lookups: Field required"),
        (("warnings",), [0] * 200_000, "warnings.0: must be a valid string"),
        (("versions",), dict.fromkeys(map(str, range(100_000)), 0), "versions: has 100000 keys"),
        (("store",), dict.fromkeys(map(str, range(100_000)), 0), "store: has 100000 keys"),
    ],
)
def test_many_mistakes_take_little_memory(
    path: Path, record: dict[str, Any], place: tuple[str | int, ...], value: Any, mistake: str
) -> None:
    """The first is told, and the others are not collected."""
    content = json.dumps(_with(record, place, value))
    tracemalloc.start()
    try:
        assert _mistake(path, content).startswith(mistake)
        assert tracemalloc.get_traced_memory()[1] < 2 * MAX_BYTES
    finally:
        tracemalloc.stop()


@settings(max_examples=300)
@given(st.data())
def test_any_value_at_any_place(path: Path, record: dict[str, Any], data: st.DataObject) -> None:
    """A result that is read can be compared and shown; any other is an error of one sentence."""
    place = data.draw(st.sampled_from(_places(record)))
    path.write_text(json.dumps(_with(record, place, data.draw(any_value))))
    try:
        result = read_result(path)
    except UserError as error:
        assert "\n" not in str(error)
        return
    report(result, None).encode()
    run = run_data_of_result(path)
    list(compare(run, run, Limits(slowdown=1.0)))
    result_junit(result).encode()
    result_markdown(result).encode()
    as_markdown(comparison_table(run, run)).encode()


@given(st.binary(max_size=60), st.integers(0, 4000), st.integers(0, 60))
def test_any_bytes_in_a_result(
    path: Path, record: dict[str, Any], patch: bytes, at: int, cut: int
) -> None:
    """A result with some bytes replaced is a result or an error."""
    content = json.dumps(record).encode()
    path.write_bytes(content[:at] + patch + content[at + cut :])
    try:
        report(read_result(path), None).encode()
    except UserError as error:
        assert "\n" not in str(error)
