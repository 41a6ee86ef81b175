"""What holds for every store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forwardscope.store.base import IdentityInfo, Store
from forwardscope.store.codec import decode
from forwardscope.store.keys import question_digest
from forwardscope.store.redis import RedisStore
from forwardscope.store.redis_address import RedisAddress
from forwardscope.store.sqlite import SqliteStore
from forwardscope.testing import MemoryStore

from .entries import WAIT_S, new, put, value_of

_OP = "next_token_dist"


def _memory(_: Path) -> Store:
    return MemoryStore()


def _sqlite(folder: Path) -> Store:
    return SqliteStore(folder / "store.db")


@pytest.fixture(params=[_memory, _sqlite, "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "redis":
        url = request.getfixturevalue("redis_url")
        opened: Store = RedisStore(RedisAddress.parse(url), required=True)
    else:
        opened = request.param(tmp_path)
    yield opened
    opened.close()


def test_a_value_is_found_again_with_its_call(store: Store) -> None:
    """A value that was put is found, with its run and the ids of its forward call."""
    one = new("one")
    put(store, one)
    (found,) = store.get_many([one.digest]).values()
    assert found[:4] == (1.5, "run-1", "a" * 32, "b" * 16)


def test_only_what_is_there_is_found(store: Store) -> None:
    """A batch of lookups gets the entries that are there, and equal digests once."""
    one, two, three = (new(prompt) for prompt in ("one", "two", "three"))
    put(store, one, two)
    found = store.get_many([one.digest, three.digest, two.digest, one.digest])
    assert set(found) == {one.digest, two.digest}
    assert store.get_many([]) == {}


def test_a_second_value_replaces_the_first(store: Store) -> None:
    """An entry that is put again has the later value."""
    put(store, new("one", 1.0))
    put(store, new("one", 2.0))
    assert value_of(store, "one") == 2.0
    assert store.stats().entries == 1


def test_a_deleted_entry_is_a_miss(store: Store) -> None:
    """A deleted entry is not found, also if it was just put; others are."""
    store.put_many([new("one"), new("two")])
    store.delete([new("one").digest, new("three").digest])
    assert store.flush(WAIT_S)
    assert value_of(store, "one") is None
    assert value_of(store, "two") == 1.5


def test_rows_can_be_selected(store: Store) -> None:
    """Rows come without values, of all entries, of a question or of an identity."""
    put(store, new("one"), new("one", identity="ft-1"), new("two"))
    assert len(list(store.scan())) == 3
    of_question = store.scan(question=question_digest(_OP, "one", 8))
    assert {row.identity for row in of_question} == {"base-1", "ft-1"}
    of_identity = store.scan(identity="ft-1")
    assert [row.digest for row in of_identity] == [new("one", identity="ft-1").digest]
    assert list(store.scan(identity="unknown")) == []


def test_rows_in_the_order_of_their_use(store: Store) -> None:
    """The least recently used entry comes first, also among those of an identity."""
    put(store, new("one"), new("two"))
    put(store, new("three"), new("four", identity="ft-1"))
    assert value_of(store, "one") == 1.5
    assert store.flush(WAIT_S)
    ordered = [row.digest for row in store.scan(identity="base-1", oldest_first=True)]
    assert ordered == [new(prompt).digest for prompt in ("two", "three", "one")]
    assert len(list(store.scan(oldest_first=True))) == 4


def test_contents_are_the_encoded_values(store: Store) -> None:
    """Each entry comes with its row and the bytes of its value, and is not used by that."""
    put(store, *(new(f"{n}", float(n)) for n in range(40)))
    rows = list(store.scan())
    found = list(store.contents())
    assert [row for row, _ in found] == rows == list(store.scan())
    assert {decode(content, row.digest) for row, content in found} == {float(n) for n in range(40)}
    assert {row.nbytes for row in rows} == {len(content) for _, content in found}


def test_identities_without_entries_are_forgotten(store: Store) -> None:
    """Compacting forgets them, and keeps those of entries."""
    for identity in ("base-1", "ft-1"):
        store.describe_identity(identity, {}, model="m", adapter=None, view_family="base")
    put(store, new("one"))
    store.compact()
    assert set(store.identities()) == {"base-1"}
    assert value_of(store, "one") == 1.5


def test_identities_have_their_parts(store: Store) -> None:
    """The parts of an identity are returned as they were described last."""
    one = IdentityInfo({"model weights": "0f", "tokenizer": "1e"}, "model", None, "base")
    two = IdentityInfo({"model weights": "0f", "dtype": "2d"}, "model", "adapter", "ft")
    for identity, info in (("base-1", two), ("base-1", one), ("ft-1", two)):
        store.describe_identity(
            identity,
            info.parts,
            model=info.model,
            adapter=info.adapter,
            view_family=info.view_family,
        )
    assert store.flush(WAIT_S)
    assert store.identities() == {"base-1": one, "ft-1": two}


def test_a_closed_store_finds_and_stores_nothing(store: Store) -> None:
    """After close, lookups are misses and what is put is counted as dropped."""
    put(store, new("one"))
    store.close()
    store.close()
    store.put_many([new("two")])
    store.delete([new("one").digest])
    assert store.get_many([new("one").digest]) == {}
    assert store.stats().dropped == 1
    assert store.lease([new("one").digest]).owned == {new("one").digest}


def test_threads_share_a_store(
    store: Store, together: Callable[[int, Callable[[int], object]], list[object]]
) -> None:
    """Threads that put and get at once find each value that they put."""

    def work(me: int) -> None:
        for number in range(50):
            prompt = f"{me}-{number}"
            put(store, new(prompt, float(number)))
            assert value_of(store, prompt) == float(number)

    together(4, work)
    assert store.stats().entries == 200
    assert store.stats().dropped == 0


def test_an_unknown_type_is_not_stored(store: Store) -> None:
    """A value that the codec does not know is counted, and is a miss."""
    put(store, new("one", object()), new("two"))
    assert value_of(store, "one") is None
    assert value_of(store, "two") == 1.5
    assert store.stats().unsupported == 1


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
def test_it_is_like_a_dictionary(store: Store, data: st.DataObject) -> None:
    """Any sequence of puts, deletes and lookups gives what a dictionary gives."""
    prompts = st.sampled_from(["a", "b", "c", "d"])
    store.delete([row.digest for row in store.scan()])
    model: dict[str, float] = {}
    for number in range(data.draw(st.integers(1, 12))):
        prompt = data.draw(prompts)
        if data.draw(st.booleans()):
            put(store, new(prompt, float(number)))
            model[prompt] = float(number)
        else:
            store.delete([new(prompt).digest])
            model.pop(prompt, None)
        assert store.flush(WAIT_S)
        assert {one: value_of(store, one) for one in "abcd"} == {
            one: model.get(one) for one in "abcd"
        }
