"""Noise for null adapters: given by its seed, drawn once, bounded."""

from __future__ import annotations

import pytest
import torch

from forwardscope.backends.hf.toggles import Noise

_SHAPES = [torch.Size((3, 2)), torch.Size((5,))]
_BYTES = (6 + 5) * 4


@pytest.fixture
def draws(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """The shape of each tensor that is drawn."""
    randn, shapes = torch.randn, []

    def counted(shape: torch.Size, **options: torch.Generator) -> torch.Tensor:
        shapes.append(shape)
        return randn(shape, **options)

    monkeypatch.setattr(torch, "randn", counted)
    return shapes


def _same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_seed_is_drawn_once(draws: list[torch.Size]) -> None:
    """It is asked for once a probe, and means the same numbers each time."""
    noise = Noise()
    first = noise.of(1, _SHAPES)
    assert _same(first, noise.of(1, _SHAPES))
    assert draws == _SHAPES
    assert not _same(first, noise.of(2, _SHAPES))
    assert _same(first, Noise().of(1, _SHAPES))


def test_what_is_remembered_is_bounded(draws: list[torch.Size]) -> None:
    """The least recently asked is forgotten, and drawn again with the same numbers."""
    noise = Noise(2 * _BYTES)
    first = noise.of(1, _SHAPES)
    noise.of(2, _SHAPES)
    noise.of(1, _SHAPES)
    noise.of(3, _SHAPES)  # forgets 2
    assert len(draws) == 3 * len(_SHAPES)
    noise.of(1, _SHAPES)
    assert len(draws) == 3 * len(_SHAPES)
    noise.of(2, _SHAPES)
    noise.of(3, _SHAPES)  # forgets 1
    assert _same(first, noise.of(1, _SHAPES))


def test_noise_larger_than_the_bound_is_not_remembered(draws: list[torch.Size]) -> None:
    """It is given out, and drawn anew the next time."""
    noise = Noise(1)
    assert _same(noise.of(1, _SHAPES), noise.of(1, _SHAPES))
    assert draws == [*_SHAPES, *_SHAPES]
