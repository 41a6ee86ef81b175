"""The entries of a store in one file, and files that are none."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from contextlib import closing
from hashlib import blake2b, sha256
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forwardscope.backends.values import TokenDist
from forwardscope.errors import StoreError
from forwardscope.store.base import IMPORTED, IdentityInfo, NewEntry, Store
from forwardscope.store.codec import encode
from forwardscope.store.maintenance import verify
from forwardscope.store.portable import Imported, export_to, import_from, open_export
from forwardscope.store.sqlite import MIN_BYTES, SqliteStore
from forwardscope.testing import MemoryStore

from .entries import new, put, text_of, value_of
from .writer import Writer, wait_for_entries

_FIRST_LINE = b"forwardscope store export 1\n"


def exported(store: Store) -> bytes:
    file = BytesIO()
    export_to(store, file)
    return file.getvalue()


def imported(path: Path, content: bytes, store: Store | None = None) -> tuple[Imported, Store]:
    path.write_bytes(content)
    store = store or MemoryStore()
    with open_export(path) as file:
        return import_from(store, file, path.name), store


def error_of(path: Path, content: bytes, store: Store | None = None) -> str:
    with pytest.raises(StoreError) as raised:
        imported(path, content, store)
    return str(raised.value)


def rows_of(store: Store) -> set[Any]:
    """Return all that a file keeps of the entries of a store."""
    return {(row[:7], content) for row, content in store.contents()}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "values.fwstore"


@pytest.fixture
def small() -> MemoryStore:
    """Return a store of one identity and three entries."""
    store = MemoryStore()
    store.describe_identity("base-1", {"weights": "0f"}, model="m", adapter=None, view_family="b")
    put(store, new("one", 1.0), new("two", "text"), new("three", (1.0, True), "ft-1"))
    return store


_TEXT = st.text(st.characters(), max_size=20)
_IDS = st.none() | st.integers(0, 2**64 - 1)
_LOGPROBS = st.lists(st.floats(-1e4, 0.0, width=32), max_size=20)
_VALUES = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    _TEXT,
    _LOGPROBS.map(lambda some: TokenDist(np.arange(len(some)), np.array(some, np.float32), 99)),
)


@st.composite
def _entries(draw: st.DrawFn) -> NewEntry:
    run_id, call = draw(st.none() | _TEXT), draw(_IDS)
    return NewEntry(
        digest=draw(st.binary(min_size=32, max_size=32)),
        question=draw(st.binary(min_size=32, max_size=32)),
        identity=draw(_TEXT),
        value=draw(_VALUES),
        run_id=None if run_id is None else IMPORTED + run_id,
        trace_id=None if call is None else f"{call:032x}",
        span_id=None if call is None else f"{call:016x}",
    )


_INFOS = st.builds(IdentityInfo, st.dictionaries(_TEXT, _TEXT), _TEXT, st.none() | _TEXT, _TEXT)


@given(st.lists(_entries(), max_size=10), st.dictionaries(_TEXT, _INFOS, max_size=3))
@settings(max_examples=50)
def test_what_goes_out_comes_in(
    entries: Sequence[NewEntry], identities: dict[str, IdentityInfo]
) -> None:
    """Another store has the same entries and identities, bit for bit."""
    store = MemoryStore()
    for name, info in identities.items():
        about = {"model": info.model, "adapter": info.adapter, "view_family": info.view_family}
        store.describe_identity(name, info.parts, **about)
    put(store, *entries)
    with TemporaryDirectory() as folder:
        done, other = imported(Path(folder) / "file", exported(store))
        with closing(SqliteStore(Path(folder) / "store.db")) as disk:
            imported(Path(folder) / "file", exported(store), disk)
            on_disk = rows_of(disk), disk.identities()
    marked = {(row[:3], row[3] or IMPORTED, *row[4:], value) for row, value in rows_of(store)}
    for rows, described in ((rows_of(other), other.identities()), on_disk):
        assert {(row[:3], *row[3:], value) for row, value in rows} == marked
        assert described == identities
    assert done == Imported(taken=len(rows_of(store)))


def test_imported_entries_are_marked(file: Path, small: MemoryStore) -> None:
    """Their run id says that they came from a file, once however often they are carried on."""
    _, other = imported(file, exported(small))
    _, third = imported(file, exported(other))
    assert {row.run_id for row in small.scan()} == {"run-1"}
    assert {row.run_id for row in other.scan()} == {f"{IMPORTED}run-1"}
    assert rows_of(third) == rows_of(other)


def test_entries_that_are_there_are_kept(file: Path, small: MemoryStore) -> None:
    """Neither a value nor a description is replaced, and both are counted."""
    store = MemoryStore()
    store.describe_identity("base-1", {}, model="mine", adapter=None, view_family="b")
    put(store, new("one", 7.0))
    done, _ = imported(file, exported(small), store)
    assert done == Imported(taken=2, kept=1)
    assert value_of(store, "one") == 7.0
    assert store.identities()["base-1"].model == "mine"


def test_a_large_store(file: Path, path: Path) -> None:
    """Many batches are all taken, none is dropped, and the progress is that of the file."""
    with closing(SqliteStore(path)) as store:
        for start in range(0, 3000, 500):
            put(store, *(new(f"{n}", float(n)) for n in range(start, start + 500)))
        content = exported(store)
    file.write_bytes(content)
    done: list[int] = []
    with closing(SqliteStore(path.with_name("other.db"))) as other, open_export(file) as source:
        assert import_from(other, source, "file", done.append) == Imported(taken=3000)
        assert other.stats().entries == 3000
        assert value_of(other, "2999") == 2999.0
    assert done == sorted(done)
    assert done[-1] == len(content)


def test_the_bound_of_the_store_holds(file: Path, path: Path) -> None:
    """The least recently used entries are evicted, and what is larger than all is left out."""
    store = MemoryStore()
    put(store, *(new(f"{n}", text_of(f"{n}")) for n in range(900)), new("large", "x" * 2**21))
    with closing(SqliteStore(path, max_bytes=MIN_BYTES)) as bounded:
        done, _ = imported(file, exported(store), bounded)
        assert done == Imported(taken=900, too_large=1)
        stats = bounded.stats()
        assert stats.bytes <= MIN_BYTES
        assert stats.entries + stats.evictions == 900


def test_damaged_entries_are_left_out(file: Path, filled: Path) -> None:
    """An export has what is sound, and says how much is not."""
    content = filled.read_bytes()
    at = content.index(text_of("50").encode()[:100])
    filled.write_bytes(content[:at] + b"?" + content[at + 1 :])
    with closing(SqliteStore(filled, mode="read")) as store, file.open("wb") as output:
        assert export_to(store, output) == (99, 1)
    done, other = imported(file, file.read_bytes())
    assert done.taken == 99
    assert value_of(other, "50") is None


def test_values_that_no_store_takes(file: Path, small: MemoryStore) -> None:
    """Values of unknown types, and NaN, are counted and left out."""
    entry = new("nan")
    sound = encode(1.5, entry.digest)
    at = sound.index(struct.pack("<d", 1.5))
    nan = sound[:at] + struct.pack("<d", float("nan")) + sound[at + 8 : -16]
    unknown = sound[:-16].replace(b"float", b"other")
    content = _FIRST_LINE
    for body in (nan, unknown):
        digest = entry.digest if body is nan else new("unknown").digest
        content += record("entry", digest, *rest_of(entry), signed(body, digest))
    done, store = imported(file, content + record("end", 2))
    assert done == Imported(unknown=2)
    assert store.stats().entries == 0


def signed(body: bytes, digest: bytes) -> bytes:
    return body + sha256(digest + body).digest()[:16]


def rest_of(entry: NewEntry) -> tuple[Any, ...]:
    return entry.question, entry.identity.encode(), b"run-1", entry.trace_id, entry.span_id


def record(*fields: Any) -> bytes:
    """Return a record with a right length and checksum."""
    payload = msgspec.msgpack.encode(fields)
    return struct.pack("<I", len(payload)) + blake2b(payload, digest_size=16).digest() + payload


def test_every_cut_is_an_error(file: Path, small: MemoryStore) -> None:
    """A file of any shorter length is refused; the entries before the cut are sound."""
    content, all_rows = exported(small), rows_of(imported(file, exported(small))[1])
    for length in range(len(content)):
        store = MemoryStore()
        error = error_of(file, content[:length], store)
        assert "\n" not in error
        assert rows_of(store) <= all_rows
        if length >= len(_FIRST_LINE):
            taken = store.stats().entries
            assert f"({taken} entr{'y' if taken == 1 else 'ies'} taken)" in error


def test_every_changed_bit_is_an_error(file: Path, small: MemoryStore) -> None:
    """A flipped bit in any byte is found, and no entry is another one."""
    content, all_rows = exported(small), rows_of(imported(file, exported(small))[1])
    for at in range(len(content)):
        changed = bytearray(content)
        changed[at] ^= 1 << at % 8
        store = MemoryStore()
        error_of(file, bytes(changed), store)
        assert rows_of(store) <= all_rows


def test_parts_that_are_lost(file: Path, small: MemoryStore) -> None:
    """A record that is missing, and bytes after the end, are found."""
    content = exported(small)
    one = record("entry", *hostile_entry()[1:])
    error = error_of(file, content.replace(record("end", 3), one + record("end", 3)))
    assert error.endswith("does not end as it should, after 4 entries (4 entries taken)")
    error = error_of(file, content + b"\0")
    assert error.endswith("does not end as it should, after 3 entries (3 entries taken)")


def hostile_entry(**changes: Any) -> list[Any]:
    """Return the fields of an entry, some of them changed."""
    entry = new("hostile")
    fields = {
        "tag": "entry",
        "digest": entry.digest,
        "question": entry.question,
        "identity": b"base-1",
        "run_id": b"run-1",
        "trace_id": "a" * 32,
        "span_id": "b" * 16,
        "content": encode(1.5, entry.digest),
    }
    return list((fields | changes).values())


@pytest.mark.parametrize(
    "fields",
    [
        hostile_entry(digest=b"d" * 31),
        hostile_entry(digest=b"d" * 33),
        hostile_entry(digest=b"d" * 32),  # the value is of another
        hostile_entry(digest="d" * 32),
        hostile_entry(question=b""),
        hostile_entry(identity=b"\xff"),
        hostile_entry(identity=None),
        hostile_entry(run_id=7),
        hostile_entry(trace_id="A" * 32),
        hostile_entry(trace_id="a" * 32 + "\n"),
        hostile_entry(span_id="b" * 17),
        hostile_entry(content=b""),
        hostile_entry(content=None),
        hostile_entry(tag="pickle"),
        hostile_entry(more=1),
        hostile_entry()[:-1],
        [],
        [["entry"]],
        {"tag": "entry"},
        "entry",
        ["identity", b"i", "{}"],
        ["identity", b"i", "[" * 50_000],
        ["identity", b"i", '{"parts": {"a": 1}, "model": "m", "adapter": null, "view_family": ""}'],
        ["identity", b"\xed", "{}"],
        ["end", -1],
        ["end", True],
    ],
    ids=repr,
)
def test_records_that_are_none(file: Path, fields: Any) -> None:
    """A record with right checksums and wrong fields is refused, after the ones before it."""
    payload = msgspec.msgpack.encode(fields)
    frame = struct.pack("<I", len(payload)) + blake2b(payload, digest_size=16).digest()
    store = MemoryStore()
    first = record("entry", *hostile_entry(digest=new("a").digest, content=first_value())[1:])
    error = error_of(file, _FIRST_LINE + first + frame + payload + record("end", 2), store)
    assert error.startswith("values.fwstore ")
    assert error.endswith("(1 entry taken)")
    assert value_of(store, "a") == 2.5


def first_value() -> bytes:
    return encode(2.5, new("a").digest)


@pytest.mark.parametrize(
    "payload",
    [
        b"\xdd\xff\xff\xff\xff",  # an array of 2^32 items
        b"\xc6\xff\xff\xff\xff",  # bytes of 2^32
        b"\xdf\xff\xff\xff\xff",  # a map
        b"\x91" * 100_000,  # arrays in arrays
        b"\x97\xa5entry" + b"\x91" * 100_000,
        b"\xc1",
        b"",
    ],
)
def test_hostile_payloads(file: Path, payload: bytes) -> None:
    """Huge lengths and deep nesting within a record take neither memory nor stack."""
    frame = struct.pack("<I", len(payload)) + blake2b(payload, digest_size=16).digest()
    assert "is damaged at byte 28: " in error_of(file, _FIRST_LINE + frame + payload)


def test_a_long_description(file: Path) -> None:
    """What describes an identity has a bound, as its objects would take many times its size."""
    info = '{"parts": {}, "model": "m", "adapter": null, "view_family": "b", "more": [PAD]}'
    for pad, fits in ("0," * 500_000 + "0", True), ("0," * 600_000 + "0", False):
        description = record("identity", b"i", info.replace("PAD", pad))
        content = _FIRST_LINE + description + record("end", 0)
        if fits:
            assert imported(file, content)[1].identities()["i"].model == "m"
        else:
            assert "the JSON has more than" in error_of(file, content)


@pytest.mark.parametrize("length", [2**32 - 1, 2**31, 2**30 + 1, 101])
def test_a_length_is_not_trusted(file: Path, length: int) -> None:
    """A record that is longer than the rest of the file is refused before it is read."""
    content = _FIRST_LINE + struct.pack("<I", length) + bytes(16) + bytes(100)
    assert "a record is longer than the file" in error_of(file, content)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"", "is no file that `forwardscope store export` wrote"),
        (b"forwardscope store export 1", "is no file that"),
        (b"forwardscope store export x\n", "is no file that"),
        (b"forwardscope store export \n", "is no file that"),
        (b"forwardscope store export -1\n", "is no file that"),
        (b"forwardscope store export \xb2\n", "is no file that"),
        (b"SQLite format 3\0" + bytes(100), "is no file that"),
        (b"forwardscope store export 2\n", "has format 2, of a newer forwardscope; .*: upgrade it"),
    ],
)
def test_first_lines(file: Path, line: bytes, message: str) -> None:
    """Other files and newer formats are refused before anything is stored."""
    file.write_bytes(line + record("end", 0))
    with pytest.raises(StoreError, match=message):
        open_export(file)


def test_paths_that_are_no_files(tmp_path: Path, file: Path, small: MemoryStore) -> None:
    """A link is followed; a pipe, a folder and what is not there are errors at once."""
    link, pipe = tmp_path / "link", tmp_path / "pipe"
    file.write_bytes(exported(small))
    link.symlink_to(file)
    open_export(link).close()
    os.mkfifo(pipe)
    for path in (pipe, tmp_path, Path(os.devnull)):
        with pytest.raises(StoreError, match="is not a plain file; name one"):
            open_export(path)
    for path in (tmp_path / "none", Path("a\0b"), Path("x" * 300)):
        with pytest.raises(StoreError, match="cannot be read: "):
            open_export(path)


def test_exporting_while_another_process_writes(file: Path, filled: Path) -> None:
    """The file has all that was there, and only sound entries."""
    writer = Writer(filled)
    with closing(SqliteStore(filled, mode="read")) as store:
        wait_for_entries(store, 120)
        for _ in range(5):
            with file.open("wb") as output:
                written, damaged = export_to(store, output)
            assert (written >= 120, damaged) == (True, 0)
    _, errors, corrupt = writer.end()
    done, other = imported(file, file.read_bytes())
    assert (done.taken, errors, corrupt) == (written, 0, 0)
    assert {value_of(other, f"{n}") for n in range(100)} == {text_of(f"{n}") for n in range(100)}


def test_importing_while_another_process_writes(file: Path, filled: Path, small: Store) -> None:
    """All of the file is taken, and neither process fails."""
    writer = Writer(filled)
    store = MemoryStore()
    put(store, *(new(f"imported-{n}", text_of(f"{n}")) for n in range(2000)))
    with closing(SqliteStore(filled)) as shared:
        wait_for_entries(shared, 110)
        done, _ = imported(file, exported(store), shared)
        _, errors, corrupt = writer.end()
        assert (done, errors, corrupt) == (Imported(taken=2000), 0, 0)
        assert verify(shared) == (shared.stats().entries, [])
