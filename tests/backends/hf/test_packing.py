"""Every prompt is in exactly one batch, and no batch exceeds its bounds."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import example, given

from forwardscope.backends.hf.packing import (
    ACCELERATOR_TOKENS,
    CPU_TOKENS,
    FREE_TOKENS,
    MAX_LOGITS,
    MAX_PADDING,
    pack,
)

Rows = list[tuple[int, int]]

#: (tokens, positions) of prompts, up to twice the tokens of a batch.
prompts: st.SearchStrategy[Rows] = st.lists(
    st.integers(1, 2 * CPU_TOKENS).flatmap(
        lambda length: st.tuples(st.just(length), st.integers(1, length))
    ),
    max_size=40,
) | st.lists(st.tuples(st.integers(1, 90), st.just(1)), max_size=60)
vocab_sizes = st.sampled_from([300, 50_257, 256_000])
bounds = st.sampled_from([FREE_TOKENS, CPU_TOKENS, ACCELERATOR_TOKENS])


def _pack(rows: Rows, vocab_size: int, max_tokens: int) -> list[list[int]]:
    return pack([n for n, _ in rows], [k for _, k in rows], vocab_size, max_tokens)


@given(prompts, vocab_sizes, bounds)
def test_each_prompt_is_in_one_batch(rows: Rows, vocab_size: int, max_tokens: int) -> None:
    """Each index is in one batch, and no batch is empty."""
    batches = _pack(rows, vocab_size, max_tokens)
    assert sorted(index for batch in batches for index in batch) == list(range(len(rows)))
    assert all(batches)


@given(prompts, vocab_sizes, bounds)
@example([(1, 1)] * FREE_TOKENS + [(2, 1)], 300, CPU_TOKENS)
def test_bounds_hold(rows: Rows, vocab_size: int, max_tokens: int) -> None:
    """A batch of several prompts respects the bounds of positions, padding and logits."""
    for batch in _pack(rows, vocab_size, max_tokens):
        if len(batch) == 1:
            continue
        lengths, positions = zip(*(rows[index] for index in batch), strict=True)
        padded = len(batch) * max(lengths)
        assert padded <= max_tokens
        assert padded <= FREE_TOKENS or padded <= MAX_PADDING * sum(lengths)
        needed = {
            position
            for length, last in zip(lengths, positions, strict=True)
            for position in range(length - last, length)
        }  # a model computes the same positions of each row
        assert len(batch) * len(needed) * vocab_size <= MAX_LOGITS


@given(prompts, vocab_sizes, bounds)
def test_shortest_come_first(rows: Rows, vocab_size: int, max_tokens: int) -> None:
    """Over all batches in order, lengths never decrease."""
    order = [index for batch in _pack(rows, vocab_size, max_tokens) for index in batch]
    assert [rows[i][0] for i in order] == sorted(length for length, _ in rows)


@pytest.mark.parametrize("max_tokens", [CPU_TOKENS, ACCELERATOR_TOKENS])
def test_prompt_longer_than_a_batch_is_alone(max_tokens: int) -> None:
    """A prompt with more tokens than a batch may have gets a batch of its own."""
    assert pack([3, 2 * max_tokens, 3], [1, 1, 1], 300, max_tokens) == [[0, 2], [1]]


@pytest.mark.parametrize("max_tokens", [CPU_TOKENS, ACCELERATOR_TOKENS])
def test_positions_fill_a_batch_to_the_bound(max_tokens: int) -> None:
    """A batch holds as many prompts as its positions allow."""
    length = max_tokens // 4
    assert pack([length] * 5, [1] * 5, 300, max_tokens) == [[0, 1, 2, 3], [4]]


def test_logits_beyond_the_bound_are_alone() -> None:
    """Prompts whose logits exceed the bound together are in separate batches."""
    assert pack([500, 500], [500, 500], 256_000) == [[0], [1]]
    assert pack([500, 500], [1, 1], 256_000) == [[0, 1]]
    assert pack([400, 500], [400, 1], 256_000) == [[0], [1]]


def test_short_prompts_share_a_batch_whatever_the_padding() -> None:
    """Up to `FREE_TOKENS` positions, prompts of any lengths are in one batch."""
    assert pack([1, 60, 2, 3], [1, 1, 1, 1], 300) == [[0, 2, 3, 1]]


def test_long_and_short_prompts_are_separate() -> None:
    """Beyond `FREE_TOKENS` positions, short prompts are not padded to the length of long ones."""
    assert pack([1, 500, 1, 480], [1, 1, 1, 1], 300) == [[0, 2], [3, 1]]


def test_no_prompts() -> None:
    """No prompts give no batches."""
    assert pack([], [], 300) == []
