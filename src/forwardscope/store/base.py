"""What every store does, and the plain types that go in and come out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple, Protocol, Self

import msgspec

from forwardscope.core.ledger import Histogram

__all__ = [
    "IMPORTED",
    "IdentityInfo",
    "Lease",
    "NewEntry",
    "Operation",
    "Store",
    "StoreStats",
    "StoredEntry",
    "StoredRow",
    "Tier",
]

#: Where a store is: on this machine, or on a server.
Tier = Literal["disk", "remote"]
#: What is timed and whose failures are counted.
Operation = Literal["get", "put", "lease"]

#: Precedes the run id of a value that came from a file; see `portable`.
IMPORTED: Final = "imported:"

#: Maximum length of what describes an identity; ours have some thousand bytes.
_MAX_JSON: Final = 2**20


class StoredEntry(NamedTuple):
    """A value that was found, and the forward call that computed it.

    Attributes:
        value: The value; its arrays are read-only.
        run_id: Id of the run that computed it, after `IMPORTED` if it came from a file;
            or None.
        trace_id: Trace of its forward call, 32 hex digits; None if it was not sampled.
        span_id: Span of its forward call, 16 hex digits, or None.
        nbytes: Size of the encoded value.
    """

    value: Any
    run_id: str | None
    trace_id: str | None
    span_id: str | None
    nbytes: int


@dataclass(frozen=True, slots=True)
class NewEntry:
    """A computed value to store.

    Attributes:
        digest: Key of the entry; see `keys.entry_digest`.
        question: Digest of op, prompt and top_k; see `keys.question_digest`.
        identity: View identity.
        value: A value of a type that the codec knows.
        run_id: Id of the run that computed it, or None.
        trace_id: Trace of its forward call, or None.
        span_id: Span of its forward call, or None.
    """

    digest: bytes
    question: bytes
    identity: str
    value: Any
    run_id: str | None = None
    trace_id: str | None = None
    span_id: str | None = None


class StoredRow(NamedTuple):
    """What is known of an entry without its value.

    Attributes:
        digest: Key of the entry.
        question: Digest of op, prompt and top_k.
        identity: View identity.
        run_id: Id of the run that computed the value, or None.
        trace_id: Trace of its forward call, or None.
        span_id: Span of its forward call, or None.
        nbytes: Size of the encoded value.
        last_used: Seconds since the epoch, to about a minute.
    """

    digest: bytes
    question: bytes
    identity: str
    run_id: str | None
    trace_id: str | None
    span_id: str | None
    nbytes: int
    last_used: float


@dataclass(frozen=True, slots=True)
class IdentityInfo:
    """What a view identity is made of.

    Attributes:
        parts: Digest or short text of each part, by name, such as `model weights`.
        model: Name of the model.
        adapter: Name of the adapter, or of the fine-tuned model in its place; None for views
            without it.
        view_family: `base`, `ft`, `scaled`, `null`.
    """

    parts: Mapping[str, str]
    model: str
    adapter: str | None
    view_family: str

    def to_json(self) -> str:
        """Return it as JSON, in ASCII."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, data: str | bytes) -> Self:
        """Return what `to_json` gave.

        Raises:
            ValueError: The JSON is damaged, or something else, or too long.
        """
        if len(data) > _MAX_JSON:  # as objects it could take 25 times the memory
            raise ValueError(f"the JSON has more than {_MAX_JSON} bytes")
        try:
            return msgspec.convert(json.loads(data), cls)
        except RecursionError as error:
            raise ValueError("the JSON is nested too deeply") from error


@dataclass(frozen=True, slots=True)
class StoreStats:
    """The counts of a store, as of one moment; those of this process where not said otherwise.

    Attributes:
        entries: Entries in the store, of all processes.
        bytes: Bytes that they take, of all processes.
        max_bytes: Bound of `bytes`; None for no bound.
        evictions: Entries removed to make room.
        corrupt: Entries that could not be decoded; each was a miss and was deleted.
        unsupported: Values not stored because the codec does not know their type.
        dropped: Values not stored because the queue was full or closed, or writing failed.
        expired_waits: Values computed here after another machine did not store them in time.
        errors: Failed operations, by operation and class of the error.
        unavailable: Whether the store gave up after a failure.
        durations: Seconds of each operation that ended, by operation.
    """

    entries: int = 0
    bytes: int = 0
    max_bytes: int | None = None
    evictions: int = 0
    corrupt: int = 0
    unsupported: int = 0
    dropped: int = 0
    expired_waits: int = 0
    errors: Mapping[tuple[Operation, str], int] = field(default_factory=dict)
    unavailable: bool = False
    durations: Mapping[Operation, Histogram] = field(default_factory=dict)


class Lease:
    """The right to compute some entries, so that no other machine computes them meanwhile.

    This one is of a store without leases: all entries are the caller's. Those that it
    leads are computed and stored before it waits.

    Args:
        digests: The entries that the caller is about to compute.

    Attributes:
        owned: Entries that the caller computes now.
        others: Entries that another machine computes now.
        found: Entries that were stored since the caller searched for them.
    """

    others: frozenset[bytes] = frozenset()
    found: Mapping[bytes, StoredEntry] = MappingProxyType({})

    def __init__(self, digests: Sequence[bytes]) -> None:
        self.owned = frozenset(digests)

    def wait(self, stopped: Callable[[], bool] = lambda: False) -> dict[bytes, StoredEntry]:  # noqa: ARG002 - no others
        """Wait, for a bounded time, for the entries of others; return those that came.

        Afterwards `owned` has those that the caller computes in place of others; `others`
        has those to wait for again. A stopped wait returns soon.

        Args:
            stopped: Returns whether the wait is to end.
        """
        return {}

    def release(self) -> None:
        """Give up the entries that were not stored; may be called twice."""


class Store(Protocol):
    """A map from digest to value that outlives the process.

    Safe under threads, and usable in a forked child. A fault of the store never raises
    from the methods of a lookup (`get_many`, `put_many`, `lease`): it is counted, warned
    of once, and is a miss. A value that is found is the one that was put, or there is none.

    Attributes:
        name: What is shown to users; has no password.
        tier: The tier of its hits.
    """

    @property
    def name(self) -> str:
        """What is shown to users; has no password."""
        ...

    @property
    def tier(self) -> Tier:
        """The tier of its hits."""
        ...

    def get_many(self, digests: Sequence[bytes]) -> dict[bytes, StoredEntry]:
        """Return the entries that are there, by digest; each becomes the most recently used.

        Nothing bounds how long a lookup waits for it: a store bounds its own time.
        """
        ...

    def put_many(self, entries: Sequence[NewEntry]) -> None:
        """Queue entries to be stored, and return at once; what does not fit is dropped.

        An entry that is there already is replaced.
        """
        ...

    def delete(self, digests: Sequence[bytes]) -> None:
        """Remove entries, those that are queued included."""
        ...

    def scan(
        self,
        *,
        question: bytes | None = None,
        identity: str | None = None,
        oldest_first: bool = False,
    ) -> Iterator[StoredRow]:
        """Yield what is known of the entries of a question, an identity, or all.

        Entries that are put meanwhile may be left out.

        Args:
            question: Digest of a question.
            identity: View identity.
            oldest_first: Whether the least recently used entries come first.

        Raises:
            StoreError: The store cannot be read.
        """
        ...

    def contents(self) -> Iterator[tuple[StoredRow, bytes]]:
        """Yield all entries with their encoded values, unchecked; none counts as used.

        Entries that are put meanwhile may be left out. Few values are in memory at once.

        Raises:
            StoreError: The store cannot be read.
        """
        ...

    def compact(self) -> None:
        """Forget identities without entries, and give back the space that is free.

        Raises:
            StoreError: The store cannot be changed.
        """
        ...

    def lease(self, digests: Sequence[bytes]) -> Lease:
        """Claim entries before they are computed."""
        ...

    def describe_identity(
        self,
        identity: str,
        parts: Mapping[str, str],
        *,
        model: str,
        adapter: str | None,
        view_family: str,
    ) -> None:
        """Queue what an identity is made of, to be stored."""
        ...

    def identities(self) -> dict[str, IdentityInfo]:
        """Return all identities that were described.

        Raises:
            StoreError: The store cannot be read.
        """
        ...

    def stats(self) -> StoreStats:
        """Return the counts of now; of a fault of the store, those of this process."""
        ...

    def flush(self, timeout_s: float) -> bool:
        """Wait until all that was queued is stored; return whether it is."""
        ...

    def close(self, timeout_s: float = 5.0) -> None:
        """Store what is queued, drop the rest at the timeout; may be called twice.

        Later lookups are misses, and nothing more is stored.
        """
        ...
