"""The trace record of each lookup: labels, wall time and tokens."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forwardscope import BackendInstrumentation
from forwardscope.core.keys import prompt_hash
from forwardscope.core.series import Counts, SeriesKey
from forwardscope.testing import InMemoryTelemetry

_OP, _VIEW, _TOP_K = "rolling_logprob", "ft", 8


@pytest.fixture
def backend(tmp_path: Path, clock: Any) -> BackendInstrumentation:
    """Return a backend that traces, with the values of `x` and `y` in its cache."""
    backend = BackendInstrumentation(trace_path=tmp_path / "trace.jsonl", clock=clock)
    for prompt in ("x", "y"):
        backend.cache.put((_OP, _VIEW, prompt, _TOP_K), prompt.upper())
    return backend


def _look_up(backend: BackendInstrumentation, prompt: str, compute: Callable[[], Any]) -> Any:
    return backend.cached(_OP, _VIEW, prompt, _TOP_K, compute)


def _look_up_batch(
    backend: BackendInstrumentation,
    prompts: str,
    compute: Callable[[list[int]], Sequence[Any]] = lambda indices: indices,
) -> list[Any]:
    return backend.cached_batch(_OP, _VIEW, list(prompts), _TOP_K, compute)


def _records(backend: BackendInstrumentation) -> list[dict[str, Any]]:
    assert backend.trace.path is not None
    return [json.loads(line) for line in backend.trace.path.read_text("ascii").splitlines()]


def _values(backend: BackendInstrumentation, key: str) -> list[Any]:
    """Return one key of every record, None where it is absent."""
    return [record.get(key) for record in _records(backend)]


def _counts(backend: BackendInstrumentation) -> Counts:
    return backend.ledger.snapshot().series[SeriesKey(None, _VIEW, _OP)]


def _token_counts(backend: BackendInstrumentation) -> tuple[int, int]:
    """Return the tokens that were computed, and those that were reused."""
    snapshot = backend.ledger.snapshot()
    return snapshot.tokens_computed, snapshot.tokens_reused


def test_records_of_a_hit_and_a_miss(backend: BackendInstrumentation, clock: Any) -> None:
    """A plain record has the eight keys, with the prompt's hash and never its text."""
    backend.set_current_probe("delta_kl")
    _look_up(backend, "secret", lambda: 0)
    _look_up(backend, "secret", lambda: 0)
    fixed = {"view_id": _VIEW, "prompt_hash": prompt_hash("secret"), "top_k": _TOP_K, "op": _OP}
    fixed |= {"ts": 1_000_000.0, "wall_ms": 0.0, "probe": "delta_kl"}
    assert _records(backend) == [{**fixed, "hit": False}, {**fixed, "hit": True}]
    assert backend.trace.path is not None
    assert "secret" not in backend.trace.path.read_text("ascii")


def test_records_of_a_batch_are_in_the_order_of_the_prompts(
    backend: BackendInstrumentation,
) -> None:
    """The records of a batch are in the order of its prompts, each with its result."""
    _look_up_batch(backend, "bxabxa")
    assert _values(backend, "prompt_hash") == [prompt_hash(prompt) for prompt in "bxabxa"]
    assert _values(backend, "hit") == [False, True, False, True, True, True]
    assert _values(backend, "result") == [None, None, None, "coalesced", None, "coalesced"]
    assert _values(backend, "batch") == [2, None, 2, None, None, None]


def test_record_is_in_the_file_before_the_lookup_returns(backend: BackendInstrumentation) -> None:
    """Nothing is buffered, so a killed process loses no answered lookup."""
    for lookups in (1, 2, 3):
        _look_up(backend, "p", lambda: 0)
        assert len(_records(backend)) == backend.stats.total_lookups == lookups
    _look_up_batch(backend, "pqr")
    assert len(_records(backend)) == backend.stats.total_lookups == 6


class _NotHashed(str):
    """A prompt that cannot be encoded, and so not be hashed for a record or a span."""

    __slots__ = ()

    def encode(self, *_: Any, **__: Any) -> bytes:
        raise AssertionError("a prompt was hashed")


def test_untraced_lookup_makes_no_record() -> None:
    """Without a trace and without spans no prompt is hashed; lookups are counted all the same."""
    backend = BackendInstrumentation()
    for _ in range(2):
        _look_up(backend, _NotHashed("p"), lambda: 0)
        backend.cached_batch(_OP, _VIEW, [_NotHashed("p"), _NotHashed("q")], _TOP_K, list)
    assert (backend.stats.total_lookups, backend.stats.forward_passes) == (6, 2)


def test_probe_and_run_label_what_follows(backend: BackendInstrumentation) -> None:
    """Labels hold from when they are set until they are set again."""
    for probe, run_id in (("one", "run-1"), ("two", "run-2"), (None, None)):
        backend.set_current_probe(probe)
        backend.set_run_id(run_id)
        _look_up(backend, "p", lambda: 0)
        _look_up_batch(backend, "px")
    assert _values(backend, "probe") == ["one"] * 3 + ["two"] * 3 + [None] * 3
    assert _values(backend, "run_id") == ["run-1"] * 3 + ["run-2"] * 3 + [None] * 3
    assert "run_id" not in _records(backend)[-1]
    by_series = {key: counts.lookups for key, counts in backend.ledger.snapshot().series.items()}
    assert by_series == {SeriesKey(probe, _VIEW, _OP): 3 for probe in ("one", "two", None)}


def test_wall_time_is_split(backend: BackendInstrumentation, clock: Any) -> None:
    """A miss shows its compute time, a hit its lookup time, and scoring time is both."""
    _look_up(backend, "p", lambda: clock.advance_ms(40))
    clock.advance_ms(1000)
    _look_up(backend, "p", lambda: 0)

    def failing() -> None:
        clock.advance_ms(2)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        _look_up(backend, "q", failing)
    assert _values(backend, "wall_ms") == [40.0, 0.0, 2.0]
    assert _values(backend, "ts") == [1_000_000.04, 1_000_001.04, 1_000_001.042]
    assert backend.stats.scoring_wall_s == 0.042
    assert (_counts(backend).scoring_ns, _counts(backend).forward_ns) == (42_000_000, 42_000_000)


def test_wall_time_of_a_hit_is_its_lookup(tmp_path: Path, stepping_clock: Any) -> None:
    """A slow lookup in memory is a slow hit; no compute time is counted for it."""
    backend = BackendInstrumentation(trace_path=tmp_path / "trace.jsonl", clock=stepping_clock)
    backend.cache.put((_OP, _VIEW, "x", _TOP_K), 0)
    stepping_clock.step_ms = 6
    _look_up(backend, "x", lambda: 0)
    assert _values(backend, "wall_ms") == [6.0]
    assert (_counts(backend).scoring_ns, _counts(backend).forward_ns) == (6_000_000, 0)


def test_wall_time_of_a_batch_is_divided_evenly(
    backend: BackendInstrumentation, clock: Any
) -> None:
    """Each miss has its share of the batch; the scoring time is that of the call."""

    def compute(indices: list[int]) -> list[int]:
        clock.advance_ms(8)
        return indices

    _look_up_batch(backend, "axbcda", compute)
    assert _values(backend, "wall_ms") == [2.0, 0.0, 2.0, 2.0, 2.0, 0.0]
    assert set(_values(backend, "ts")) == {1_000_000.008}
    assert (_counts(backend).scoring_ns, _counts(backend).forward_ns) == (8_000_000, 8_000_000)
    assert backend.stats.scoring_wall_s == 0.008


@pytest.mark.parametrize(("prompts", "share"), [("x", 6.0), ("xyxy", 1.5), ("xyyy", 1.5)])
def test_hits_of_a_batch_share_the_time_of_their_lookup(
    tmp_path: Path, stepping_clock: Any, prompts: str, share: float
) -> None:
    """Each has an even share of their lookup in memory; the scoring time is that of the call."""
    backend = BackendInstrumentation(trace_path=tmp_path / "trace.jsonl", clock=stepping_clock)
    for prompt in "xy":
        backend.cache.put((_OP, _VIEW, prompt, _TOP_K), 0)
    stepping_clock.step_ms = 6
    _look_up_batch(backend, prompts)
    assert _values(backend, "wall_ms") == [share] * len(prompts)
    assert (_counts(backend).scoring_ns, _counts(backend).forward_ns) == (12_000_000, 0)


def test_tokens_of_a_pass(backend: BackendInstrumentation) -> None:
    """The record of a pass has its tokens, whether it succeeded or failed; a hit has none."""
    _look_up(backend, "p", lambda: backend.report_tokens([7]))
    _look_up(backend, "p", lambda: 0)

    def failing() -> None:
        backend.report_tokens([9])
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        _look_up(backend, "q", failing)
    assert _values(backend, "tokens") == [7, None, 9]


def test_reused_tokens(backend: BackendInstrumentation) -> None:
    """Reused tokens are in the record and the counts; they are read when compute has returned."""
    reused = [0, 0]

    def compute(indices: list[int]) -> list[int]:
        backend.report_tokens([7, 9], reused)
        reused[1] = 6
        return indices

    _look_up_batch(backend, "ab", compute)
    _look_up(backend, "c", lambda: backend.report_tokens([5], [4]))
    assert _values(backend, "tokens") == [7, 9, 5]
    assert _values(backend, "tokens_reused") == [None, 6, 4]
    assert _token_counts(backend) == (11, 10)


def test_tokens_of_a_failed_pass_are_in_no_sum(backend: BackendInstrumentation) -> None:
    """A failed pass adds nothing to the tokens that were computed or reused."""

    def failing(_: list[int] | None = None) -> list[int]:
        backend.report_tokens([7], [3])
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        _look_up(backend, "a", failing)
    with pytest.raises(ValueError, match="no"):
        _look_up_batch(backend, "b", failing)
    assert _token_counts(backend) == (0, 0)


@pytest.fixture(params=["plain", "trace", "trace and spans"])
def any_backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BackendInstrumentation]:
    """Yield a backend without telemetry, with a trace, or with a trace and spans."""
    path = None if request.param == "plain" else tmp_path / "trace.jsonl"
    if request.param == "trace and spans":
        backend = InMemoryTelemetry().instrumentation(trace_path=path)
    else:
        backend = BackendInstrumentation(trace_path=path)
    yield backend
    backend.close()


@pytest.mark.parametrize(
    "make",
    [
        list,
        tuple,
        np.array,
        lambda counts: np.array(counts, dtype=np.int32)[::1],
        lambda counts: np.array(counts, dtype=np.float32),
        iter,
        lambda counts: (count for count in counts),
    ],
    ids=["list", "tuple", "array", "int32", "float32", "iterator", "generator"],
)
def test_tokens_come_in_many_types(
    any_backend: BackendInstrumentation, make: Callable[[list[int]], Any]
) -> None:
    """Counts are taken from any iterable of numbers, the same with and without telemetry."""
    backend = any_backend

    def compute(indices: list[int]) -> list[str]:
        backend.report_tokens(make([7, 9]), make([3, 4]))
        return ["A", "B"]

    assert _look_up_batch(backend, "ab", compute) == ["A", "B"]
    assert _token_counts(backend) == (9, 7)
    if backend.trace.enabled:
        assert _values(backend, "tokens") == [7, 9]
        assert _values(backend, "tokens_reused") == [3, 4]


class _Unreadable:
    """Raises whatever is done with it."""

    def __iter__(self) -> Any:
        raise RuntimeError("not now")

    def __bool__(self) -> bool:
        raise RuntimeError("not now")

    def __len__(self) -> int:
        raise RuntimeError("not now")


@pytest.mark.parametrize(
    "reported",
    [
        *([None], ["many"], [-3], [float("nan")], [float("inf")], [object()], [[1]]),
        *(None, 5, 0, "many", object(), _Unreadable(), [_Unreadable()], {}, set()),
        *(np.array(5), np.array([[1, 2], [3, 4]]), np.array([np.nan]), np.array([])),
        (1 // 0 for _ in "a"),
    ],
    ids=repr,
)
def test_tokens_that_are_no_counts_are_ignored(
    any_backend: BackendInstrumentation, reported: Any
) -> None:
    """The lookup has its value, the pass is counted and the value is stored."""
    backend = any_backend

    def compute() -> str:
        backend.report_tokens(reported, reported)
        return "value"

    assert _look_up(backend, "a", compute) == "value"
    assert _look_up(backend, "a", lambda: "again") == "value"
    stats = backend.stats
    assert (stats.cache_hits, stats.cache_misses, stats.forward_passes) == (1, 1, 1)
    assert _token_counts(backend) == (0, 0)


def test_only_as_many_tokens_are_read_as_there_are_prompts(
    any_backend: BackendInstrumentation,
) -> None:
    """An iterator that does not end does not keep the lookup."""
    backend, read = any_backend, []

    def endless() -> Iterator[int]:
        while len(read) < 1000:  # a test that fails should end
            read.append(7)
            yield 7

    assert _look_up(backend, "a", lambda: backend.report_tokens(endless())) is None
    assert _token_counts(backend) == (7, 0)
    assert len(read) <= 2


def test_tokens_go_to_the_innermost_forward_call(backend: BackendInstrumentation) -> None:
    """A pass inside a pass has its own tokens; outside any, nothing happens."""
    backend.report_tokens([1])

    def outer() -> None:
        backend.report_tokens([2])
        _look_up(backend, "inner", lambda: backend.report_tokens([3]))

    _look_up(backend, "outer", outer)
    _look_up(backend, "plain", lambda: 0)
    assert _values(backend, "tokens") == [3, 2, None]


def test_tokens_of_a_batch_go_to_its_misses_in_order(backend: BackendInstrumentation) -> None:
    """Each computed prompt has its own count of tokens in its record."""

    def compute(indices: list[int]) -> list[int]:
        backend.report_tokens([10 + index for index in indices])
        return indices

    _look_up_batch(backend, "axba", compute)
    assert _values(backend, "tokens") == [10, None, 12, None]


@pytest.mark.parametrize(
    ("reported", "kept"), [([5], [5, None]), ([5, 6, 7], [5, 6]), ([], [None, None])]
)
def test_wrong_number_of_tokens(
    backend: BackendInstrumentation, reported: list[int], kept: list[int | None]
) -> None:
    """Counts beyond the prompts are dropped; a prompt without one has none in its record."""

    def compute(indices: list[int]) -> list[int]:
        backend.report_tokens(reported)
        return indices

    _look_up_batch(backend, "ab", compute)
    assert _values(backend, "tokens") == kept
