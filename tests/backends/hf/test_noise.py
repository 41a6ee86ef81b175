"""Noise of null adapters: determined by the seed, drawn once, bounded in bytes."""

from __future__ import annotations

import pytest
import torch

from forwardscope.backends.hf.noise import Noise

_SHAPES = [torch.Size((3, 2)), torch.Size((5,))]
_BYTES = (6 + 5) * 4


@pytest.fixture
def draws(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """Record the shape of each drawn tensor."""
    randn, shapes = torch.randn, []

    def counted(shape: torch.Size, **options: torch.Generator) -> torch.Tensor:
        shapes.append(shape)
        return randn(shape, **options)

    monkeypatch.setattr(torch, "randn", counted)
    return shapes


def _same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_seed_is_drawn_once(draws: list[torch.Size]) -> None:
    """A seed gives the same numbers each time, also in another object."""
    noise = Noise()
    first = noise.draw(1, _SHAPES)
    assert _same(first, noise.draw(1, _SHAPES))
    assert draws == _SHAPES
    assert not _same(first, noise.draw(2, _SHAPES))
    assert _same(first, Noise().draw(1, _SHAPES))


def test_stored_noise_is_bounded(draws: list[torch.Size]) -> None:
    """The least recently used seed is evicted, and drawn again with the same numbers."""
    noise = Noise(2 * _BYTES)
    first = noise.draw(1, _SHAPES)
    noise.draw(2, _SHAPES)
    noise.draw(1, _SHAPES)
    noise.draw(3, _SHAPES)  # evicts 2
    assert len(draws) == 3 * len(_SHAPES)
    noise.draw(1, _SHAPES)
    assert len(draws) == 3 * len(_SHAPES)
    noise.draw(2, _SHAPES)
    noise.draw(3, _SHAPES)  # evicts 1
    assert _same(first, noise.draw(1, _SHAPES))


def test_noise_larger_than_the_bound_is_not_stored(draws: list[torch.Size]) -> None:
    """It is returned, and drawn again the next time."""
    noise = Noise(1)
    assert _same(noise.draw(1, _SHAPES), noise.draw(1, _SHAPES))
    assert draws == [*_SHAPES, *_SHAPES]
