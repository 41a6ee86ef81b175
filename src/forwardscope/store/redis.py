"""A store on a Redis or Valkey server, which many machines can share. Only it imports redis-py.

Entries, leases and descriptions have keys that begin with `forwardscope:1:`. A sorted set has
the last use of each entry, as the server's own times of use change where entries are read to
list them.

The module is longer than others because only here redis-py is known: how entries are packed, the
queue, the leases and the bound of lost time are in modules beside it.
"""

from __future__ import annotations

import secrets
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from forwardscope.core.forks import reset_in_children
from forwardscope.errors import StoreError
from forwardscope.store.base import (
    IdentityInfo,
    Lease,
    NewEntry,
    StoredEntry,
    StoredRow,
    StoreStats,
    Tier,
)
from forwardscope.store.codec import CorruptValueError, UnknownValueError
from forwardscope.store.counting import StoreCounts
from forwardscope.store.redis_address import RedisAddress
from forwardscope.store.redis_entries import (
    BEGINNING,
    IDENTITIES,
    USED,
    entry_key,
    lease_key,
    unpack,
    unpack_facts,
)
from forwardscope.store.redis_faults import TIMEOUT_S, Breaker
from forwardscope.store.redis_leases import LEASE_MS, Claims, RedisLease
from forwardscope.store.redis_writer import Deletion, Description, RedisWriter, Written
from forwardscope.store.sqlite_schema import Mode
from forwardscope.text import shown

__all__ = ["RedisStore", "ServerInfo"]

T = TypeVar("T")

#: Keys that one step of a scan visits, and entries whose values are read at once.
_SCANNED: Final = 1000
_CONTENTS: Final = 16
_CHUNK: Final = 256
_MICROSECONDS: Final = 1e6

#: Returns of each entry its value, 1 where it is the caller's now, 2 where it was before, or 0.
_CLAIM: Final = """
local claims = {}
for i = 1, #KEYS, 2 do
  local value = redis.call('GET', KEYS[i])
  if value then
    claims[#claims + 1] = value
  else
    local set = redis.call('SET', KEYS[i + 1], ARGV[1], 'NX', 'PX', ARGV[2])
    local held = not set and redis.call('GET', KEYS[i + 1]) == ARGV[1]
    claims[#claims + 1] = set and 1 or held and 2 or 0
  end
end
return claims
"""
_RELEASE: Final = """
for _, key in ipairs(KEYS) do
  if redis.call('GET', key) == ARGV[1] then redis.call('DEL', key) end
end
"""
_RENEW: Final = """
for _, key in ipairs(KEYS) do
  if redis.call('GET', key) == ARGV[1] then redis.call('PEXPIRE', key, ARGV[2]) end
end
"""
#: Forgets the last use of entries that the server has evicted or that have expired. It tries a
#: few at random, so that those without an entry stay a small part.
_TRIM: Final = """
for _, digest in ipairs(redis.call('ZRANDMEMBER', KEYS[1], ARGV[2])) do
  if redis.call('EXISTS', ARGV[1] .. digest) == 0 then redis.call('ZREM', KEYS[1], digest) end
end
"""
_TRIED: Final = 4


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """A server, as it describes itself.

    Attributes:
        version: Its version.
        used_bytes: Memory in use, of all keys of the server.
        max_bytes: Its `maxmemory`; None for no bound.
        policy: Its `maxmemory-policy`.
    """

    version: str
    used_bytes: int
    max_bytes: int | None
    policy: str


class RedisStore:
    """A store on a server. Safe under threads, in forked children and between machines.

    A thread of its own writes and renews leases. All waits for a server that is down, hangs
    or is slow are bounded together: then it is given up.

    Args:
        address: Where it is.
        mode: `read` for a store that this process must not change.
        required: Whether a server that cannot be used is an error; else it is given up.

    Raises:
        StoreError: The server cannot be used, and is required.
    """

    tier: Tier = "remote"

    def __init__(
        self, address: RedisAddress, *, mode: Mode = "write", required: bool = False
    ) -> None:
        self.name: Final = address.name
        self._mode: Final[Mode] = mode
        self._ttl_s = address.ttl_s
        self._token = secrets.token_bytes(16)
        self._closed = False
        self._size: tuple[int, int, int | None] = 0, 0, None
        self._counts = StoreCounts(self.name)
        self._breaker = Breaker(self._counts, _reason_of)
        self._client: Any = redis.Redis(
            **address.arguments,
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
            retry=Retry(NoBackoff(), 1, (redis.ConnectionError,)),
            protocol=2,
        )
        self._writer = RedisWriter(self, self._counts)
        self._begin(required=required)
        reset_in_children(self)

    def after_fork(self) -> None:
        """Claim in the child with a token of its own."""
        self._token = secrets.token_bytes(16)

    def get_many(self, digests: Sequence[bytes]) -> dict[bytes, StoredEntry]:
        """Return the entries that are there, by digest."""
        if not digests or self._closed:
            return {}
        keys = [entry_key(digest) for digest in digests]
        contents = self._breaker.run("get", lambda: self._contents_of(keys))
        found: dict[bytes, StoredEntry] = {}
        for digest, content in zip(digests, contents or (), strict=False):
            if content is not None and (entry := self._entry(digest, content)) is not None:
                found[digest] = entry
        self._touch(found)
        return found

    def put_many(self, entries: Sequence[NewEntry]) -> None:
        """Queue entries to be stored; in mode `read` nothing happens."""
        if self._mode == "write":
            self._writer.put(entries)

    def delete(self, digests: Sequence[bytes]) -> None:
        """Queue entries to be removed."""
        if self._mode == "write":
            self._writer.put([Deletion(digest) for digest in digests])

    def scan(
        self,
        *,
        question: bytes | None = None,
        identity: str | None = None,
        oldest_first: bool = False,
    ) -> Iterator[StoredRow]:
        """Yield what is known of the entries of a question, an identity, or all.

        All keys of the database are visited, a thousand at a time. With `oldest_first`,
        entries that are used meanwhile are left out.

        Raises:
            StoreError: The server does not answer.
        """
        pages = self._pages_by_use() if oldest_first else self._pages()
        for digests in pages:
            for row in self._rows(digests):
                if question in (None, row.question) and identity in (None, row.identity):
                    yield row

    def contents(self) -> Iterator[tuple[StoredRow, bytes]]:
        """Yield all entries with their encoded values, 16 at a time.

        Raises:
            StoreError: The server does not answer.
        """
        for page in self._pages():
            for digests in _chunks(page, _CONTENTS):
                keys = [entry_key(digest) for digest in digests]
                contents = self._read(lambda keys=keys: self._client.mget(keys))  # type: ignore[misc]
                used = self._last_uses(digests)
                for digest, content, at in zip(digests, contents, used, strict=True):
                    if content is not None:
                        yield _row_of(digest, content, at), _value_of(digest, content)

    def compact(self) -> None:
        """Forget identities without entries; not in mode `read`.

        Raises:
            StoreError: The server does not answer.
        """
        if self._mode == "read":
            return
        used = {row.identity.encode("utf-8", "surrogatepass") for row in self.scan()}
        self._writer.flush(TIMEOUT_S)
        names = self._read(lambda: self._client.hkeys(IDENTITIES))
        if unused := [name for name in names if name not in used]:
            self._read(lambda: self._client.hdel(IDENTITIES, *unused))

    def lease(self, digests: Sequence[bytes]) -> Lease:
        """Claim entries before they are computed; all are the caller's where that fails."""
        if self._mode == "read" or self._closed or self._breaker.is_open:
            return Lease(digests)
        return RedisLease(self, digests)

    def claim(self, digests: Sequence[bytes], held: set[bytes]) -> Claims | None:
        """Claim entries, and add to `held` what is leased; None if the server failed."""
        keys = [key for one in digests for key in (entry_key(one), lease_key(one))]
        arguments = len(keys), *keys, self._token, LEASE_MS
        claims = self._breaker.run("lease", lambda: self._client.eval(_CLAIM, *arguments))
        if not isinstance(claims, list) or len(claims) != len(digests):
            return None
        answers = list(zip(digests, claims, strict=True))
        stored = {digest: content for digest, content in answers if isinstance(content, bytes)}
        found = {at: entry for at, one in stored.items() if (entry := self._entry(at, one))}
        ours = [digest for digest, claim in answers if claim == 2]
        # of ours, what is not held: the answer to its claim was lost
        leased = {digest for digest, claim in answers if claim == 1} | self._writer.not_held(ours)
        held |= leased  # before they are renewed, so that an interrupted caller gives them up
        self._writer.hold(list(leased))
        self._touch(found)
        return Claims(found, frozenset(leased | (stored.keys() - found.keys())))

    def give_up(self, digests: Sequence[bytes]) -> None:
        """Delete the leases of entries that are not queued to be stored."""
        if ended := self._writer.forget_leases(digests):
            self.release(ended)

    def count_expired(self, number: int) -> None:
        """Count entries that were waited for in vain."""
        self._counts.add("expired_waits", number)

    def describe_identity(
        self,
        identity: str,
        parts: Mapping[str, str],
        *,
        model: str,
        adapter: str | None,
        view_family: str,
    ) -> None:
        """Queue what an identity is made of."""
        if self._mode == "write":
            info = IdentityInfo(dict(parts), model, adapter, view_family)
            name = identity.encode("utf-8", "surrogatepass")
            self._writer.put([Description(name, info.to_json())])

    def identities(self) -> dict[str, IdentityInfo]:
        """Return all identities that were described.

        Raises:
            StoreError: The server does not answer.
        """
        described = {}
        for name, info in self._read(lambda: self._client.hgetall(IDENTITIES)).items():
            with suppress(ValueError, TypeError):  # of other content
                described[name.decode("utf-8", "surrogatepass")] = IdentityInfo.from_json(info)
        return described

    def stats(self) -> StoreStats:
        """Return the counts of now; `bytes` and `max_bytes` are those of the whole server."""
        if not self._closed:
            self._size = self._breaker.run("get", self._measured) or self._size
        return self._counts.snapshot(*self._size)

    def server_info(self) -> ServerInfo:
        """Return what the server says of itself.

        Raises:
            StoreError: The server does not answer.
        """
        return self._read(lambda: _info_of(self._client.info()))

    def flush(self, timeout_s: float) -> bool:
        """Wait until all that was queued is stored; return whether it is."""
        return self._writer.flush(timeout_s)

    def close(self, timeout_s: float = 5.0) -> None:
        """Store what is queued, drop the rest at the timeout; may be called twice."""
        self._writer.close(timeout_s)
        if not self._closed:
            self.stats()  # the last numbers
            self._closed = True
            with suppress(Exception):  # whatever the state of its connections
                self._client.close()

    def write(self, changes: Sequence[Written], used: Sequence[bytes]) -> bool:
        """Write changes in one transaction, and note uses; return whether it succeeded."""
        awaited = self._writer.is_awaited
        done = self._breaker.run("put", lambda: self._write(changes, used), is_awaited=awaited)
        return done is not None

    def renew(self, digests: Sequence[bytes]) -> None:
        """Renew leases of this store."""
        self._on_leases(_RENEW, digests, LEASE_MS, is_awaited=self._writer.is_awaited)

    def release(self, digests: Sequence[bytes]) -> None:
        """Delete leases of this store."""
        self._on_leases(_RELEASE, digests)

    def _on_leases(
        self,
        script: str,
        digests: Sequence[bytes],
        *arguments: int,
        is_awaited: Callable[[], bool] = lambda: True,
    ) -> None:
        keys = [lease_key(digest) for digest in digests]
        self._breaker.run(
            "lease",
            lambda: self._client.eval(script, len(keys), *keys, self._token, *arguments),
            is_awaited=is_awaited,
        )

    def _begin(self, *, required: bool) -> None:
        """Connect; a server that cannot be used is an error, or is given up."""
        if not required:
            self._size = self._breaker.run("get", self._measured, is_decisive=True) or self._size
            return
        try:
            self._size = self._measured()
        except Exception as error:  # noqa: BLE001 - whatever a hostile server makes of an answer
            _, reason = _reason_of(error)
            self._writer.close(0.0)
            raise StoreError(f"the store {self.name} cannot be used: {reason}") from None

    def _contents_of(self, keys: Sequence[bytes]) -> list[Any]:
        contents: list[Any] = []
        for some in _chunks(keys, _CHUNK):
            answer = self._client.mget(some)
            if not isinstance(answer, list) or len(answer) != len(some):
                raise redis.InvalidResponse
            contents += answer
        return contents

    def _entry(self, digest: bytes, content: bytes) -> StoredEntry | None:
        """Return the entry of packed bytes; None for one that cannot be decoded."""
        try:
            return unpack(content, digest)
        except UnknownValueError:  # of a program that knows more types
            return None
        except Exception:  # noqa: BLE001 - whatever others write there
            self._counts.add("corrupt")
            self.delete([digest])
            return None

    def _touch(self, found: Iterable[bytes]) -> None:
        if self._mode == "write" and (digests := list(found)):
            self._writer.touch(digests)

    def _write(self, changes: Sequence[Written], used: Sequence[bytes]) -> bool:
        now = time.time_ns() // 1000
        uses = {digest: now + at for at, digest in enumerate(used)}
        pipeline = self._client.pipeline(transaction=True)
        for at, change in enumerate(changes, now + len(used)):
            if isinstance(change, Description):
                pipeline.hset(IDENTITIES, change.identity, change.info)
            elif isinstance(change, Deletion):
                uses.pop(change.digest, None)
                pipeline.delete(entry_key(change.digest))
                pipeline.zrem(USED, change.digest)
            else:
                digest, content = change
                pipeline.set(entry_key(digest), content, ex=self._ttl_s)
                pipeline.delete(lease_key(digest))
                uses[digest] = at
        if uses:
            pipeline.zadd(USED, uses)
        if stored := len(changes):
            pipeline.eval(_TRIM, 1, USED, entry_key(b""), _TRIED * stored)
        pipeline.execute()
        return True

    def _pages(self) -> Iterator[list[bytes]]:
        """Yield the digests of all entries, some at a time."""
        start, cursor = entry_key(b""), 0
        while True:
            at = cursor
            cursor, keys = self._read(
                lambda at=at: self._client.scan(at, start + b"*", _SCANNED)  # type: ignore[misc]
            )
            yield [key.removeprefix(start) for key in keys]
            if not cursor:
                return

    def _pages_by_use(self) -> Iterator[list[bytes]]:
        """Yield the digests of entries by their last use, some at a time, up to the one of now."""
        newest = self._read(lambda: self._client.zrange(USED, -1, -1, withscores=True))
        end = newest[0][1] if newest else -1.0
        last, seen = 0.0, set[bytes]()
        while True:
            score, most = last, _SCANNED + len(seen)
            page = self._read(
                lambda score=score, most=most: self._client.zrangebyscore(  # type: ignore[misc]
                    USED, score, end, start=0, num=most, withscores=True
                )
            )
            new = [digest for digest, _ in page if digest not in seen]
            if not new:
                return
            yield new
            last = page[-1][1]
            seen = {digest for digest, at in page if at == last} | (
                seen if score == last else set()
            )

    def _rows(self, digests: Sequence[bytes]) -> Iterator[StoredRow]:
        pipeline = self._client.pipeline(transaction=False)
        for digest in digests:
            pipeline.getrange(entry_key(digest), 0, BEGINNING - 1)
        beginnings = self._read(pipeline.execute)
        used = self._last_uses(digests)
        for digest, beginning, at in zip(digests, beginnings, used, strict=True):
            if beginning:
                yield _row_of(digest, beginning, at)

    def _last_uses(self, digests: Sequence[bytes]) -> list[float]:
        if not digests:
            return []
        scores = self._read(lambda: self._client.zmscore(USED, digests))
        return [float(score or 0.0) / _MICROSECONDS for score in scores]

    def _measured(self) -> tuple[int, int, int | None]:
        pipeline = self._client.pipeline(transaction=False)
        facts, entries = pipeline.info().zcard(USED).execute()
        info = _info_of(facts)
        return int(entries), info.used_bytes, info.max_bytes

    def _read(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except Exception as error:  # noqa: BLE001 - whatever a hostile server makes of an answer
            _, reason = _reason_of(error)
            raise StoreError(f"the store {self.name} cannot be read: {reason}") from None


def _reason_of(error: BaseException) -> tuple[str, str]:
    """Return the class of an error and what it means; a server's text may echo the password."""
    name = type(error).__name__
    causes = error, error.__cause__, error.__context__
    if any(isinstance(one, ssl.SSLError) for one in causes):
        return "SSLError", "the server's certificate is not accepted, or it does not speak TLS"
    if str(error) == _NOT_ACCEPTED:
        return "InvalidResponse", _REASONS[redis.InvalidResponse]
    for kind, reason in _REASONS.items():
        if isinstance(error, kind):
            return name, reason
    return name, f"{_REASONS[redis.InvalidResponse]} ({name})"


#: What redis-py says of an answer to AUTH that is neither OK nor an error.
_NOT_ACCEPTED: Final = "Invalid Username or Password"


_REASONS: Final[dict[type[Exception], str]] = {
    redis.InvalidResponse: "it does not answer as a Redis server",
    redis.AuthenticationError: "the server does not accept user and password",
    redis.exceptions.AuthorizationError: "the user may not use the server's commands",
    redis.exceptions.NoPermissionError: "the user may not use the server's commands",
    redis.exceptions.OutOfMemoryError: "the server's memory is full and it evicts nothing",
    redis.TimeoutError: "the server does not answer",
    TimeoutError: "the server answers too slowly",
    redis.ConnectionError: "there is no connection to the server",
    redis.ResponseError: "the server refuses a command",
}


def _info_of(facts: Mapping[str, Any]) -> ServerInfo:
    version = facts.get("valkey_version") or facts.get("redis_version", "")
    return ServerInfo(
        shown(str(version)),
        int(facts.get("used_memory", 0)),
        int(facts.get("maxmemory", 0)) or None,
        shown(str(facts.get("maxmemory_policy", ""))),
    )


def _row_of(digest: bytes, beginning: bytes, last_used: float) -> StoredRow:
    """Return the row of an entry; of a damaged one it has the digest alone."""
    try:
        known, _ = unpack_facts(beginning, digest)
        return known.row(digest, last_used)
    except (CorruptValueError, UnicodeDecodeError):
        return StoredRow(digest, b"", "", None, None, None, len(beginning), last_used)


def _value_of(digest: bytes, content: bytes) -> bytes:
    try:
        return content[unpack_facts(content, digest)[1] :]
    except CorruptValueError:
        return b""


def _chunks(items: Sequence[bytes], size: int) -> Iterator[Sequence[bytes]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
