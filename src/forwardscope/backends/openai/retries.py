"""When a request is repeated, and after which time."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final

__all__ = ["THROTTLED", "Retries", "may_pass"]

#: Status of an answer to one request too many.
THROTTLED: Final = 429
#: Statuses of a server that is busy, starts, or is behind a proxy that does not reach it.
_TRANSIENT: Final = frozenset((THROTTLED, 502, 503, 504))
_SERVER_ERROR: Final = 500
#: Not the module's own numbers, which a program may have seeded.
_RANDOM: Final = random.SystemRandom()


def may_pass(status: int, operation: str) -> bool:
    """Return whether the same request may have another answer soon.

    vLLM also answers 500 to an adapter that it does not load, which stays so.

    Args:
        status: Status of the answer.
        operation: Last part of the endpoint's path.
    """
    return status in _TRANSIENT or (status == _SERVER_ERROR and operation == "completions")


@dataclass(frozen=True, slots=True)
class Retries:
    """Exponential backoff with jitter.

    Attributes:
        attempts: Most attempts of one request.
        first_s: Longest time before the second attempt; it doubles with each.
        longest_s: Longest time before any attempt, also where the server asks for more.
        draw: Returns a random number from 0 to 1.
    """

    attempts: int = 6
    first_s: float = 0.5
    longest_s: float = 30.0
    draw: Callable[[], float] = _RANDOM.random

    def wait_s(self, attempt: int, retry_after: str | None) -> float:
        """Return the seconds to wait after an attempt.

        Args:
            attempt: Its number; the first is 1.
            retry_after: The answer's header Retry-After.
        """
        requested = _seconds(retry_after)
        if requested is not None:
            return min(requested, self.longest_s)
        longest = min(self.first_s * 2.0 ** (attempt - 1), self.longest_s)
        return longest * (1 + self.draw()) / 2


def _seconds(retry_after: str | None) -> float | None:
    """Return the seconds that a header asks for, as a number or a date; None without either."""
    if retry_after is None:
        return None
    if retry_after.strip().isdecimal():
        return float(retry_after[:9])
    with suppress(ValueError, OverflowError):
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    return None
