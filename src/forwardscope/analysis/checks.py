"""A comparison with a limit."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Check"]


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one comparison.

    Attributes:
        name: What is compared.
        ok: Whether it is within its limit.
        finding: The result in one sentence.
    """

    name: str
    ok: bool
    finding: str
