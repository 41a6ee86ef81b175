"""What the trace says of each lookup, and where its time went."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from forwardscope import BackendInstrumentation, records
from forwardscope.core.keys import prompt_hash
from forwardscope.core.series import Counts, SeriesKey

_OP, _VIEW, _TOP_K = "rolling_logprob", "ft", 8


@pytest.fixture
def backend(tmp_path: Path, clock: Any) -> BackendInstrumentation:
    """A backend that traces, with the answers to `x` and `y` in its cache."""
    backend = BackendInstrumentation(trace_path=tmp_path / "trace.jsonl", clock=clock)
    for prompt in ("x", "y"):
        backend.cache.put((_OP, _VIEW, prompt, _TOP_K), prompt.upper())
    return backend


def _ask(backend: BackendInstrumentation, prompt: str, compute: Callable[[], Any]) -> Any:
    return backend.cached(_OP, _VIEW, prompt, _TOP_K, compute)


def _ask_batch(
    backend: BackendInstrumentation,
    prompts: str,
    compute: Callable[[list[int]], Sequence[Any]] = lambda indices: indices,
) -> list[Any]:
    return backend.cached_batch(_OP, _VIEW, list(prompts), _TOP_K, compute)


def _records(backend: BackendInstrumentation) -> list[dict[str, Any]]:
    assert backend.trace.path is not None
    return [json.loads(line) for line in backend.trace.path.read_text("ascii").splitlines()]


def _values(backend: BackendInstrumentation, key: str) -> list[Any]:
    """One key of every record, None where it is absent."""
    return [record.get(key) for record in _records(backend)]


def _counts(backend: BackendInstrumentation) -> Counts:
    return backend.ledger.snapshot()[SeriesKey(None, _VIEW, _OP)]


def test_records_of_a_hit_and_a_miss(backend: BackendInstrumentation, clock: Any) -> None:
    """A plain lookup is the eight keys, with the prompt's hash and never its text."""
    backend.set_current_probe("delta_kl")
    _ask(backend, "secret", lambda: 0)
    _ask(backend, "secret", lambda: 0)
    fixed = {"view_id": _VIEW, "prompt_hash": prompt_hash("secret"), "top_k": _TOP_K, "op": _OP}
    fixed |= {"ts": 1_000_000.0, "wall_ms": 0.0, "probe": "delta_kl"}
    assert _records(backend) == [{**fixed, "hit": False}, {**fixed, "hit": True}]
    assert backend.trace.path is not None
    assert "secret" not in backend.trace.path.read_text("ascii")


def test_records_of_a_batch_are_in_the_order_of_the_prompts(
    backend: BackendInstrumentation,
) -> None:
    """The file tells each lookup in the order it was asked, with what became of it."""
    _ask_batch(backend, "bxabxa")
    assert _values(backend, "prompt_hash") == [prompt_hash(prompt) for prompt in "bxabxa"]
    assert _values(backend, "hit") == [False, True, False, True, True, True]
    assert _values(backend, "result") == [None, None, None, "coalesced", None, "coalesced"]
    assert _values(backend, "batch") == [2, None, 2, None, None, None]


def test_record_is_in_the_file_before_the_lookup_returns(backend: BackendInstrumentation) -> None:
    """Nothing is buffered, so a killed process has traced all that it answered."""
    for answered in (1, 2, 3):
        _ask(backend, "p", lambda: 0)
        assert len(_records(backend)) == backend.stats.total_lookups == answered
    _ask_batch(backend, "pqr")
    assert len(_records(backend)) == backend.stats.total_lookups == 6


def test_untraced_lookup_makes_no_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a file nothing is hashed or written; the lookups are counted all the same."""

    def forbidden(*_: object) -> Any:
        raise AssertionError("a record was made for nobody")

    monkeypatch.setattr(records, "prompt_hash", forbidden)
    backend = BackendInstrumentation()
    for _ in range(2):
        _ask(backend, "p", lambda: 0)
        _ask_batch(backend, "pq")
    assert backend.stats.total_lookups == 6


def test_probe_and_run_label_what_follows(backend: BackendInstrumentation) -> None:
    """Labels hold from when they are set until they are set again."""
    for probe, run_id in (("one", "run-1"), ("two", "run-2"), (None, None)):
        backend.set_current_probe(probe)
        backend.set_run_id(run_id)
        _ask(backend, "p", lambda: 0)
        _ask_batch(backend, "px")
    assert _values(backend, "probe") == ["one"] * 3 + ["two"] * 3 + [None] * 3
    assert _values(backend, "run_id") == ["run-1"] * 3 + ["run-2"] * 3 + [None] * 3
    assert "run_id" not in _records(backend)[-1]
    by_series = {key: counts.lookups for key, counts in backend.ledger.snapshot().items()}
    assert by_series == {SeriesKey(probe, _VIEW, _OP): 3 for probe in ("one", "two", None)}


def test_wall_time_is_split(backend: BackendInstrumentation, clock: Any) -> None:
    """A miss shows its compute time, a hit its lookup time, and scoring time is both."""
    _ask(backend, "p", lambda: clock.advance_ms(40))
    clock.advance_ms(1000)
    _ask(backend, "p", lambda: 0)

    def failing() -> None:
        clock.advance_ms(2)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        _ask(backend, "q", failing)
    assert _values(backend, "wall_ms") == [40.0, 0.0, 2.0]
    assert _values(backend, "ts") == [1_000_000.04, 1_000_001.04, 1_000_001.042]
    assert backend.stats.scoring_wall_s == 0.042
    assert (_counts(backend).scoring_ns, _counts(backend).forward_ns) == (42_000_000, 42_000_000)


def test_wall_time_of_a_hit_is_its_lookup(tmp_path: Path, stepping_clock: Any) -> None:
    """A slow look into the cache is a slow hit; no compute time is counted for it."""
    backend = BackendInstrumentation(trace_path=tmp_path / "trace.jsonl", clock=stepping_clock)
    backend.cache.put((_OP, _VIEW, "x", _TOP_K), 0)
    stepping_clock.step_ms = 6
    _ask(backend, "x", lambda: 0)
    assert _values(backend, "wall_ms") == [6.0]
    assert (_counts(backend).scoring_ns, _counts(backend).forward_ns) == (6_000_000, 0)


def test_wall_time_of_a_batch_is_divided_evenly(
    backend: BackendInstrumentation, clock: Any
) -> None:
    """Each miss has its share of the batch; the scoring time is that of the call."""

    def compute(indices: list[int]) -> list[int]:
        clock.advance_ms(8)
        return indices

    _ask_batch(backend, "axbcda", compute)
    assert _values(backend, "wall_ms") == [2.0, 0.0, 2.0, 2.0, 2.0, 0.0]
    assert set(_values(backend, "ts")) == {1_000_000.008}
    assert (_counts(backend).scoring_ns, _counts(backend).forward_ns) == (8_000_000, 8_000_000)
    assert backend.stats.scoring_wall_s == 0.008


@pytest.mark.parametrize(("prompts", "share"), [("x", 6.0), ("xyxy", 1.5), ("xyyy", 1.5)])
def test_hits_of_a_batch_share_the_time_of_the_look(
    tmp_path: Path, stepping_clock: Any, prompts: str, share: float
) -> None:
    """Each has an even part of what it took to look all of them up."""
    backend = BackendInstrumentation(trace_path=tmp_path / "trace.jsonl", clock=stepping_clock)
    for prompt in "xy":
        backend.cache.put((_OP, _VIEW, prompt, _TOP_K), 0)
    stepping_clock.step_ms = 6
    _ask_batch(backend, prompts)
    assert _values(backend, "wall_ms") == [share] * len(prompts)
    assert (_counts(backend).scoring_ns, _counts(backend).forward_ns) == (6_000_000, 0)


def test_compute_can_tell_its_tokens(backend: BackendInstrumentation) -> None:
    """The record of the pass has them, whether it succeeded or failed; a hit has none."""
    _ask(backend, "p", lambda: backend.report_tokens([7]))
    _ask(backend, "p", lambda: 0)

    def failing() -> None:
        backend.report_tokens([9])
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        _ask(backend, "q", failing)
    assert _values(backend, "tokens") == [7, None, 9]


def test_compute_can_tell_what_it_took_over(backend: BackendInstrumentation) -> None:
    """Tokens of a shared prefix are in the record and the books, told as late as the end."""
    reused = [0, 0]

    def compute(indices: list[int]) -> list[int]:
        backend.report_tokens([7, 9], reused)
        reused[1] = 6
        return indices

    _ask_batch(backend, "ab", compute)
    _ask(backend, "c", lambda: backend.report_tokens([5], [4]))
    assert _values(backend, "tokens") == [7, 9, 5]
    assert _values(backend, "tokens_reused") == [None, 6, 4]
    books = backend.ledger.books()
    assert (books.tokens_computed, books.tokens_reused) == (11, 10)


def test_tokens_of_a_failed_pass_are_in_no_sum(backend: BackendInstrumentation) -> None:
    """Nobody knows how far it came."""

    def failing(indices: list[int] = []) -> list[int]:  # noqa: B006 - it is not changed
        backend.report_tokens([7], [3])
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        _ask(backend, "a", failing)
    with pytest.raises(ValueError, match="no"):
        _ask_batch(backend, "b", failing)
    books = backend.ledger.books()
    assert (books.tokens_computed, books.tokens_reused) == (0, 0)


@pytest.mark.parametrize("told", [[None], ["many"], [-3], [float("nan")]])
def test_tokens_that_are_no_count_harm_nothing(
    backend: BackendInstrumentation, told: list[Any]
) -> None:
    """A compute that tells nonsense has its value all the same."""
    _ask(backend, "a", lambda: backend.report_tokens(told, told))
    books = backend.ledger.books()
    assert (books.tokens_computed, books.tokens_reused) == (0, 0)


def test_tokens_go_to_the_innermost_pass(backend: BackendInstrumentation) -> None:
    """A pass inside a pass has its own tokens, and outside any nothing happens."""
    backend.report_tokens([1])

    def outer() -> None:
        backend.report_tokens([2])
        _ask(backend, "inner", lambda: backend.report_tokens([3]))

    _ask(backend, "outer", outer)
    _ask(backend, "plain", lambda: 0)
    assert _values(backend, "tokens") == [3, 2, None]


def test_tokens_of_a_batch_go_to_its_misses_in_order(backend: BackendInstrumentation) -> None:
    """Each computed prompt has its own count of tokens in its record."""

    def compute(indices: list[int]) -> list[int]:
        backend.report_tokens([10 + index for index in indices])
        return indices

    _ask_batch(backend, "axba", compute)
    assert _values(backend, "tokens") == [10, None, 12, None]


@pytest.mark.parametrize(
    ("told", "kept"), [([5], [5, None]), ([5, 6, 7], [5, 6]), ([], [None, None])]
)
def test_wrong_number_of_tokens_harms_nothing(
    backend: BackendInstrumentation, told: list[int], kept: list[int | None]
) -> None:
    """What was told too much is dropped, and what was not told is not in the record."""

    def compute(indices: list[int]) -> list[int]:
        backend.report_tokens(told)
        return indices

    _ask_batch(backend, "ab", compute)
    assert _values(backend, "tokens") == kept
