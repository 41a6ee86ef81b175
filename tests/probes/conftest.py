"""A backend that implements only the `Backend` protocol."""

from __future__ import annotations

from contextlib import AbstractContextManager

import pytest

from forwardscope import BackendInstrumentation
from forwardscope.backends import ScoringView
from forwardscope.testing import ScriptedBackend


class PlainBackend:
    """A backend that can neither scale its adapter nor make random ones."""

    def __init__(self) -> None:
        self._inner = ScriptedBackend()

    @property
    def instrumentation(self) -> BackendInstrumentation:
        return self._inner.instrumentation

    def as_base(self) -> AbstractContextManager[ScoringView]:
        return self._inner.as_base()

    def as_finetuned(self) -> AbstractContextManager[ScoringView]:
        return self._inner.as_finetuned()

    def filler(self, tokens: int) -> str:
        return self._inner.filler(tokens)

    def identity(self) -> str:
        return self._inner.identity()

    def close(self) -> None:
        self._inner.close()


@pytest.fixture
def plain_backend() -> PlainBackend:
    return PlainBackend()
