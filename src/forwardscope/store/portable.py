r"""The entries of a store in one file that can be copied, checked in each byte on the way in.

    forwardscope store export 1\n | record | record | … | end

A record is the length of its payload (4 bytes, little-endian), the first 16 bytes of the
payload's BLAKE2b, and the payload: MessagePack of an identity, an entry or the end, which has
the number of entries. The value of an entry is as the store has it, with the codec's checksum
over value and key. Nothing is executed, and no length is trusted: a record has at most the
bytes that the file has. A checksum is no signature, so imported entries are marked, and more of
them are verified.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import IO, Annotated, Final

import msgspec

from forwardscope.errors import StoreError
from forwardscope.store.base import IMPORTED, IdentityInfo, NewEntry, Store, StoredRow
from forwardscope.store.codec import UnknownValueError, decode
from forwardscope.store.keys import DIGEST_SIZE
from forwardscope.store.maintenance import (
    Progress,
    flush,
    is_sound,
    no_progress,
    watched,
)
from forwardscope.text import plural, shown

__all__ = ["FORMAT", "Imported", "export_to", "import_from", "open_export"]

#: Format of the file. A newer one is refused.
FORMAT: Final = 1

_MAGIC: Final = b"forwardscope store export "
_FIRST_LINE: Final = _MAGIC + b"%d\n"
_MAX_FIRST_LINE: Final = 64
_WRITER: Final = "`forwardscope store export`"
_FRAME: Final = struct.Struct("<I16s")
_CHECKSUM: Final = 16
_MAX_PAYLOAD: Final = 2**30
#: Entries, and bytes of their values, that are stored at once.
_BATCH: Final = 256
_BATCH_BYTES: Final = 2**24

_Digest = Annotated[bytes, msgspec.Meta(min_length=DIGEST_SIZE, max_length=DIGEST_SIZE)]
_TraceId = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{32}\Z")]
_SpanId = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{16}\Z")]


class _Record(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """Text is bytes, as it may have lone surrogates."""


class _Identity(_Record, tag="identity"):
    identity: bytes
    info: str


class _Entry(_Record, tag="entry"):
    digest: _Digest
    question: _Digest
    identity: bytes
    run_id: bytes | None
    trace_id: _TraceId | None
    span_id: _SpanId | None
    content: bytes


class _End(_Record, tag="end"):
    entries: int


_decoder: Final = msgspec.msgpack.Decoder(_Identity | _Entry | _End)


class _DamagedFileError(Exception):
    """What is wrong with a file."""


@dataclass(slots=True)
class Imported:
    """What became of the entries of a file.

    Attributes:
        taken: Entries that were stored.
        kept: Entries that the store had already.
        unknown: Entries of a type that this program does not know, or with a value that
            no store takes, such as NaN.
        too_large: Entries that are larger than the store's bound.
    """

    taken: int = 0
    kept: int = 0
    unknown: int = 0
    too_large: int = 0


def export_to(store: Store, file: IO[bytes], progress: Progress = no_progress) -> tuple[int, int]:
    """Write all entries of a store into a file; return the number of them, and of damaged ones.

    Other processes may use the store meanwhile. Damaged entries are left out.

    Raises:
        StoreError: The store cannot be read.
        OSError: The file cannot be written.
    """
    written = damaged = 0
    file.write(_FIRST_LINE % FORMAT)
    for name, info in store.identities().items():
        _write(file, _Identity(_bytes(name), info.to_json()))
    for row, content in watched(store.contents(), progress):
        if is_sound(content, row.digest):
            _write(file, _entry(row, content))
            written += 1
        else:
            damaged += 1
    _write(file, _End(written))
    return written, damaged


def open_export(path: Path) -> IO[bytes]:
    """Open an exported file, and read its first line.

    Raises:
        StoreError: It is none, such as a folder or a pipe, or cannot be read, or has a
            newer format.
    """
    name = shown(str(path))
    try:
        # a pipe without a writer would wait
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise StoreError(f"{name} is not a plain file; name one that {_WRITER} wrote")
        file = open(descriptor, "rb")  # noqa: PTH123, SIM115 - a descriptor, not a path
        wrong = _what_is_wrong_with(file.readline(_MAX_FIRST_LINE))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise StoreError(f"{name} cannot be read: {reason}") from error
    if wrong is not None:
        file.close()
        raise StoreError(f"{name} {wrong}")
    return file


def import_from(
    store: Store, file: IO[bytes], name: str, progress: Progress = no_progress
) -> Imported:
    """Store the entries of an exported file; those that the store has are kept.

    All of them are used now, and those that are stored are marked as imported. Whatever is
    wrong with the file, the entries before that are stored.

    Args:
        store: The store.
        file: What `open_export` returned.
        name: Its name, for messages.
        progress: Called with the number of bytes that are read.

    Raises:
        StoreError: The file is damaged, and how many entries were stored; or the store
            cannot be changed.
    """
    importer = _Importer(store)
    try:
        try:
            for record in watched(_records(file), lambda _: progress(file.tell())):
                importer.take(record)
        finally:
            importer.store_pending()
    except (_DamagedFileError, OSError) as error:
        taken = plural(importer.counts.taken, "entry")
        reason = f"cannot be read: {error.strerror}" if isinstance(error, OSError) else error
        raise StoreError(f"{shown(name)} {reason} ({taken} taken)") from error
    return importer.counts


class _Importer:
    """Stores records in batches.

    Attributes:
        counts: What became of the entries so far.
    """

    def __init__(self, store: Store) -> None:
        self.counts = Imported()
        self._store = store
        self._described = set(store.identities())
        self._pending: dict[bytes, NewEntry] = {}
        self._records = self._bytes = 0

    def take(self, record: _Record) -> None:
        """Check a record, and store it with the next batch."""
        try:
            if isinstance(record, _Identity):
                self._describe(_text(record.identity), IdentityInfo.from_json(record.info))
            elif isinstance(record, _Entry):
                self._add(record)
        except UnknownValueError:
            self.counts.unknown += 1
        except ValueError as error:
            raise _DamagedFileError(f"has a record that is not valid: {error}") from error
        self._records += 1
        if self._records >= _BATCH or self._bytes >= _BATCH_BYTES:
            self.store_pending()

    def store_pending(self) -> None:
        """Store what the store does not have."""
        pending, self._pending = self._pending, {}
        self._records = self._bytes = 0
        there = self._store.get_many(list(pending))
        new = [entry for digest, entry in pending.items() if digest not in there]
        before = self._store.stats()
        self._store.put_many(new)
        flush(self._store)
        after = self._store.stats()
        dropped = after.dropped - before.dropped
        unsupported = after.unsupported - before.unsupported
        self.counts.kept += len(there)
        self.counts.too_large += dropped
        self.counts.unknown += unsupported
        self.counts.taken += len(new) - dropped - unsupported

    def _describe(self, name: str, info: IdentityInfo) -> None:
        if name not in self._described:
            self._described.add(name)
            self._store.describe_identity(
                name,
                info.parts,
                model=info.model,
                adapter=info.adapter,
                view_family=info.view_family,
            )

    def _add(self, entry: _Entry) -> None:
        run_id = _text(entry.run_id or b"")
        new = NewEntry(
            digest=entry.digest,
            question=entry.question,
            identity=_text(entry.identity),
            value=decode(entry.content, entry.digest),
            run_id=run_id if run_id.startswith(IMPORTED) else IMPORTED + run_id,
            trace_id=entry.trace_id,
            span_id=entry.span_id,
        )
        self._pending[new.digest] = new
        self._bytes += len(entry.content)


def _entry(row: StoredRow, content: bytes) -> _Entry:
    return _Entry(
        digest=row.digest,
        question=row.question,
        identity=_bytes(row.identity),
        run_id=None if row.run_id is None else _bytes(row.run_id),
        trace_id=row.trace_id,
        span_id=row.span_id,
        content=content,
    )


def _write(file: IO[bytes], record: _Record) -> None:
    payload = msgspec.msgpack.encode(record)
    file.write(_FRAME.pack(len(payload), _checksum(payload)))
    file.write(payload)


def _records(file: IO[bytes]) -> Iterator[_Record]:
    """Yield the records of a file, to its end."""
    size = os.fstat(file.fileno()).st_size
    entries = 0
    while True:
        at = file.tell()
        try:
            record = _decoder.decode(_payload(file, size - at))
        except (ValueError, RecursionError) as error:
            raise _DamagedFileError(f"is damaged at byte {at}: {error}") from error
        if isinstance(record, _End):
            break
        entries += isinstance(record, _Entry)
        yield record
    if record.entries != entries or file.read(1):
        raise _DamagedFileError(f"does not end as it should, after {plural(entries, 'entry')}")


def _what_is_wrong_with(line: bytes) -> str | None:
    """Return what is wrong with a first line; None for nothing."""
    number = line.removeprefix(_MAGIC).removesuffix(b"\n")
    if not (line.startswith(_MAGIC) and line.endswith(b"\n") and number.isdigit()):
        return f"is no file that {_WRITER} wrote"
    if int(number) > FORMAT:
        return (
            f"has format {int(number)}, of a newer forwardscope; this one reads format {FORMAT}: "
            "upgrade it"
        )
    return None


def _payload(file: IO[bytes], left: int) -> bytes:
    """Return the payload of the next record.

    Raises:
        ValueError: There is none, or a wrong one.
    """
    frame = file.read(_FRAME.size)
    if len(frame) < _FRAME.size:
        raise ValueError("the file is cut")
    length, checksum = _FRAME.unpack(frame)
    if length > min(left - len(frame), _MAX_PAYLOAD):
        raise ValueError("a record is longer than the file, which may be cut")
    payload = file.read(length)
    if len(payload) != length or _checksum(payload) != checksum:
        raise ValueError("the checksum is wrong")
    return payload


def _checksum(payload: bytes) -> bytes:
    return blake2b(payload, digest_size=_CHECKSUM).digest()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")
