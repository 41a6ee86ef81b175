"""The trace record of each lookup: labels, wall time and tokens."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

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


def test_records_of_a_batch(backend: BackendInstrumentation) -> None:
    """They are in the order of the prompts, each with its result."""
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


def test_untraced_lookup_hashes_no_prompt() -> None:
    """Without a trace and spans no prompt is hashed; lookups are still counted."""
    backend = BackendInstrumentation()
    for _ in range(2):
        _look_up(backend, _NotHashed("p"), lambda: 0)
        backend.cached_batch(_OP, _VIEW, [_NotHashed("p"), _NotHashed("q")], _TOP_K, list)
    assert (backend.stats.total_lookups, backend.stats.forward_passes) == (6, 2)


def test_probe_and_run_label_later_records(backend: BackendInstrumentation) -> None:
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


def test_wall_time_of_a_miss_is_its_compute(backend: BackendInstrumentation, clock: Any) -> None:
    """A failed one has it as well; the scoring time is the sum."""
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


@pytest.mark.parametrize(
    ("prompts", "share"), [(None, 6.0), ("x", 6.0), ("xyxy", 1.5), ("xyyy", 1.5)]
)
def test_wall_time_of_hits_is_their_lookup(
    backend: BackendInstrumentation, clock: Any, prompts: str | None, share: float
) -> None:
    """The hits of a batch share the time of their lookup; no compute time is counted."""
    clock.step_ms = 6
    if prompts is None:
        _look_up(backend, "x", lambda: 0)
    else:
        _look_up_batch(backend, prompts)
    assert _values(backend, "wall_ms") == [share] * len(prompts or "x")
    assert _counts(backend).scoring_ns == (6_000_000 if prompts is None else 12_000_000)
    assert _counts(backend).forward_ns == 0


def test_tokens_of_a_batch(backend: BackendInstrumentation) -> None:
    """Each miss has its own counts; reused tokens are read when compute has returned."""
    reused = [0, 0]

    def compute(indices: list[int]) -> list[int]:
        backend.report_tokens([7, 9], reused)
        reused[1] = 6
        return indices

    _look_up_batch(backend, "axba", compute)
    assert _values(backend, "tokens") == [7, None, 9, None]
    assert _values(backend, "tokens_reused") == [None, None, 6, None]
    assert _token_counts(backend) == (10, 6)


def test_tokens_of_a_failed_pass(backend: BackendInstrumentation) -> None:
    """They are in its record but in no sum."""

    def failing(_: list[int] | None = None) -> list[int]:
        backend.report_tokens([7], [3])
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        _look_up(backend, "a", failing)
    with pytest.raises(ValueError, match="no"):
        _look_up_batch(backend, "b", failing)
    assert _values(backend, "tokens") == [7, 7]
    assert _token_counts(backend) == (0, 0)


def test_tokens_with_telemetry_and_without(tmp_path: Path) -> None:
    """Counts that can be read once are read once; unreadable ones fail no lookup."""
    for number, make in enumerate((BackendInstrumentation, InMemoryTelemetry().instrumentation)):
        backend = make(trace_path=tmp_path / f"{number}.jsonl")

        def report(tokens: Any, backend: BackendInstrumentation = backend) -> str:
            backend.report_tokens(tokens)
            return "value"

        assert _look_up(backend, "a", lambda report=report: report(iter([7]))) == "value"
        assert _look_up(backend, "b", lambda report=report: report(5)) == "value"
        assert _values(backend, "tokens") == [7, None]
        assert _token_counts(backend) == (7, 0)
        backend.close()


def test_tokens_go_to_the_innermost_forward_call(backend: BackendInstrumentation) -> None:
    """A pass inside a pass has its own tokens; outside any, nothing happens."""
    backend.report_tokens([1])

    def outer() -> None:
        backend.report_tokens([2])
        _look_up(backend, "inner", lambda: backend.report_tokens([3]))

    _look_up(backend, "outer", outer)
    _look_up(backend, "plain", lambda: 0)
    assert _values(backend, "tokens") == [3, 2, None]
