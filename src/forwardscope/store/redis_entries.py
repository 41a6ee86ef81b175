"""The keys and the packed entries of a store on a server.

A packed entry is

    magic, 4 bytes | format, 1 | length of the facts, 2 | checksum, 4 | facts | value

The facts are MessagePack; their checksum is CRC-32 over the entry's digest and them. The value
has the codec's own checksum. One GET gives all.
"""

from __future__ import annotations

import struct
from typing import Final
from zlib import crc32

import msgspec

from forwardscope.store.base import NewEntry, StoredEntry, StoredRow
from forwardscope.store.codec import CorruptValueError, decode, encode

__all__ = [
    "BEGINNING",
    "IDENTITIES",
    "PREFIX",
    "USED",
    "Facts",
    "entry_key",
    "lease_key",
    "pack",
    "unpack",
    "unpack_facts",
]

#: All keys of a store begin with it; another format has other keys.
PREFIX: Final = b"forwardscope:1:"
#: A sorted set: digest of each entry by its last use, in microseconds since the epoch.
USED: Final = PREFIX + b"used"
#: A hash: what each view identity is made of.
IDENTITIES: Final = PREFIX + b"identities"
#: Bytes that are read of an entry for its facts alone; more where they are longer.
BEGINNING: Final = 1024

_START: Final = struct.Struct("<4sBHI")
_MAGIC: Final = b"fwsr"
_FORMAT: Final = 1
_MAX_FACTS: Final = 0xFFFF


def entry_key(digest: bytes) -> bytes:
    """Return the key of an entry."""
    return PREFIX + b"e:" + digest


def lease_key(digest: bytes) -> bytes:
    """Return the key of the lease of an entry."""
    return PREFIX + b"l:" + digest


class Facts(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What is known of an entry without its value."""

    question: bytes
    identity: bytes
    run_id: bytes | None
    trace_id: str | None
    span_id: str | None
    nbytes: int

    def row(self, digest: bytes, last_used: float) -> StoredRow:
        """Return them as the row of an entry."""
        run_id = None if self.run_id is None else _text(self.run_id)
        ids = run_id, self.trace_id, self.span_id
        identity = _text(self.identity)
        return StoredRow(digest, self.question, identity, *ids, self.nbytes, last_used)


_decoder: Final = msgspec.msgpack.Decoder(Facts)


def unpack_facts(data: bytes, digest: bytes) -> tuple[Facts, int]:
    """Return the facts at the beginning of a packed entry, and where its value begins.

    Raises:
        CorruptValueError: They are damaged, or of another entry.
    """
    if type(data) is not bytes or len(data) < _START.size:
        raise CorruptValueError("the entry is cut")
    magic, format_, length, checksum = _START.unpack_from(data)
    end = _START.size + length
    facts = data[_START.size : end]
    if checksum != _checksum(facts, digest) or magic != _MAGIC or format_ != _FORMAT:
        raise CorruptValueError("the facts of the entry are damaged")
    try:
        return _decoder.decode(facts), end
    except (ValueError, RecursionError) as error:
        raise CorruptValueError("the facts of the entry are damaged") from error


def pack(entry: NewEntry) -> bytes:
    """Return an entry as bytes.

    Raises:
        UnknownValueError: Its value cannot be stored.
        ValueError: Its identity or run id is too long.
    """
    content = encode(entry.value, entry.digest)
    run_id = None if entry.run_id is None else _bytes(entry.run_id)
    known = Facts(
        *(entry.question, _bytes(entry.identity), run_id),
        *(entry.trace_id, entry.span_id, len(content)),
    )
    facts = msgspec.msgpack.encode(known)
    if len(facts) > _MAX_FACTS:
        raise ValueError("the identity or the run's id is too long")
    checksum = _checksum(facts, entry.digest)
    return _START.pack(_MAGIC, _FORMAT, len(facts), checksum) + facts + content


def unpack(data: bytes, digest: bytes) -> StoredEntry:
    """Return a packed entry.

    Raises:
        CorruptValueError: It is damaged.
        UnknownValueError: A program that knows more types has packed it.
    """
    one, end = unpack_facts(data, digest)
    run_id = None if one.run_id is None else _text(one.run_id)
    value = decode(data, digest, end)
    return StoredEntry(value, run_id, one.trace_id, one.span_id, len(data) - end)


def _checksum(facts: bytes, digest: bytes) -> int:
    return crc32(facts, crc32(digest))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")
