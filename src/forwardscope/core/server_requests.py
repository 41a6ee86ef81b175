"""Counts of the requests to a model server, by operation and by how they ended."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from forwardscope.core.forks import reset_in_children
from forwardscope.core.ledger import DURATION_BOUNDS_S, Exemplar, Histogram

__all__ = ["REQUEST_BOUNDS_S", "Exchange", "RequestCounts", "ServerRequests"]

#: Upper bounds of the buckets for the duration of a request, in seconds.
REQUEST_BOUNDS_S: Final = (*DURATION_BOUNDS_S, 120.0, 300.0)
#: Outcome of a request whose answer was used.
_USED: Final = "2xx"
_CLASSES: Final = (_USED, "3xx", "4xx", "5xx")
#: The operation of forward calls.
_COMPLETIONS: Final = "completions"


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request with all its attempts.

    Attributes:
        operation: Last part of the endpoint's path, such as `completions`; one of a fixed set.
        seconds: From the first attempt to the last answer, waits included.
        attempts: Number of attempts; at least 1.
        throttled: Number of answers that refuse one request too many.
        status: Status of the last answer; None without one, or where it was cut.
        failed: Whether there is no answer that can be used.
    """

    operation: str
    seconds: float
    attempts: int
    throttled: int
    status: int | None
    failed: bool = False

    @property
    def outcome(self) -> str:
        """Class of the last status; `unusable`, such as for an answer that is too long; or `none`.

        An answer that was cut is none.
        """
        if self.status is None:
            return "none"
        found = f"{self.status // 100}xx"
        return "unusable" if found not in _CLASSES or (found == _USED and self.failed) else found


@dataclass(frozen=True, slots=True)
class RequestCounts:
    """Counts of requests, as of one moment.

    Attributes:
        durations: Seconds of the requests, by operation.
        outcomes: Number of requests, by operation and `Exchange.outcome`.
        retries: Attempts after the first one, by operation.
        throttled: Answers that refuse one request too many, by operation.
    """

    durations: Mapping[str, Histogram] = field(default_factory=dict)
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    retries: Counter[str] = field(default_factory=Counter)
    throttled: Counter[str] = field(default_factory=Counter)

    @property
    def requests(self) -> int:
        """Number of all requests."""
        return self.outcomes.total()

    @property
    def failed(self) -> int:
        """Number of requests without an answer that could be used."""
        return sum(n for (_, outcome), n in self.outcomes.items() if outcome != _USED)


class ServerRequests:
    """Counts of the requests to one server in this process.

    Safe under threads: one lock, held for each change and each copy. It is reentrant, so a
    signal handler may read what its own thread is counting.

    Args:
        server: Scheme, host and port.
        address: Host.
        port: Port.
    """

    def __init__(self, server: str, address: str, port: int) -> None:
        self.server: Final = server
        self.address: Final = address
        self.port: Final = port
        self._durations: dict[str, Histogram] = {}
        self._outcomes: Counter[tuple[str, str]] = Counter()
        self._retries: Counter[str] = Counter()
        self._throttled: Counter[str] = Counter()
        self.after_fork()
        reset_in_children(self)
        self._begin(_COMPLETIONS)

    def after_fork(self) -> None:
        """Make a lock that no thread holds."""
        self._lock = threading.RLock()

    def add(self, exchange: Exchange, exemplar: Exemplar | None = None) -> None:
        """Count a request that is over."""
        operation = exchange.operation
        with self._lock:
            self._begin(operation)
            self._durations[operation].observe(exchange.seconds, exemplar)
            self._outcomes[operation, exchange.outcome] += 1
            self._retries[operation] += exchange.attempts - 1
            self._throttled[operation] += exchange.throttled

    def snapshot(self) -> RequestCounts:
        """Return a copy of all counts, as of one moment."""
        with self._lock:
            return RequestCounts(
                durations={name: seen.copy() for name, seen in self._durations.items()},
                outcomes=self._outcomes.copy(),
                retries=self._retries.copy(),
                throttled=self._throttled.copy(),
            )

    def _begin(self, operation: str) -> None:
        """Begin counts at 0, so that a scraper sees the first request as an increase."""
        if operation not in self._durations:
            self._durations[operation] = Histogram(REQUEST_BOUNDS_S)
            self._outcomes[operation, _USED] = 0
            self._retries[operation] = self._throttled[operation] = 0
