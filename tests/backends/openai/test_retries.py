"""How long a client waits before it repeats a request."""

from __future__ import annotations

import random
import time
from email.utils import formatdate

import pytest

from forwardscope.backends.openai.retries import Retries


def test_backoff_doubles_up_to_a_limit() -> None:
    """With the largest jitter the times double."""
    retries = Retries(first_s=0.5, longest_s=3.0, draw=lambda: 1.0)
    assert [retries.wait_s(attempt, None) for attempt in range(1, 6)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_jitter_takes_at_most_half() -> None:
    """Clients that failed together do not come back together."""
    assert Retries(first_s=1.0, draw=lambda: 0.0).wait_s(1, None) == 0.5


@pytest.mark.parametrize(
    ("header", "seconds"), [("2", 2.0), ("0", 0.0), ("86400", 30.0), ("9" * 400, 30.0)]
)
def test_the_server_is_obeyed_up_to_a_limit(header: str, seconds: float) -> None:
    """Retry-After replaces the backoff."""
    assert Retries().wait_s(1, header) == seconds


def test_retry_after_as_a_date() -> None:
    """A date in the past means at once; a far one is bounded."""
    now = time.time()
    assert Retries().wait_s(1, formatdate(now - 60, usegmt=True)) == 0.0
    assert Retries().wait_s(1, formatdate(now + 3600, usegmt=True)) == 30.0


_NO_ZONE = f"Mon, 01 Jan 2026 00:00:00 +{'9' * 14}"


@pytest.mark.parametrize("header", ["", "soon", "-5", "1e9", "²", _NO_ZONE])
def test_headers_that_say_nothing(header: str) -> None:
    """The backoff stands."""
    assert Retries(draw=lambda: 1.0).wait_s(1, header) == 0.5


def test_jitter_takes_none_of_a_programs_random_numbers() -> None:
    """A seeded program draws the same numbers, also where requests were repeated."""
    random.seed(7)
    expected = random.random()  # noqa: S311 - no secret
    random.seed(7)
    Retries().wait_s(1, None)
    assert random.random() == expected  # noqa: S311 - no secret
