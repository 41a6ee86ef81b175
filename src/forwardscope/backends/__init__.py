"""Scoring views of one set of weights, and the backends that open them."""

from forwardscope.backends.base import (
    Backend,
    NullBackend,
    ScalableBackend,
    ScoringView,
)
from forwardscope.backends.values import RollingLogprob, TokenDist

__all__ = [
    "Backend",
    "NullBackend",
    "RollingLogprob",
    "ScalableBackend",
    "ScoringView",
    "TokenDist",
]
