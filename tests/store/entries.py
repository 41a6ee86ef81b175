"""Entries whose keys and values follow from a prompt."""

from __future__ import annotations

from forwardscope.store.base import NewEntry, Store
from forwardscope.store.keys import entry_digest, question_digest

WAIT_S = 300.0
_OP = "next_token_dist"


def new(prompt: str, value: object = 1.5, identity: str = "base-1") -> NewEntry:
    """Return an entry whose key follows from the prompt."""
    digest = entry_digest(identity, _OP, prompt, 8)
    ids = "run-1", "a" * 32, "b" * 16
    return NewEntry(digest, question_digest(_OP, prompt, 8), identity, value, *ids)


def put(store: Store, *entries: NewEntry, timeout_s: float = WAIT_S) -> None:
    """Store entries, and wait until they are."""
    store.put_many(entries)
    assert store.flush(timeout_s)


def value_of(store: Store, prompt: str) -> object:
    """Return the value that is found for a prompt, or None."""
    digest = new(prompt).digest
    found = store.get_many([digest]).get(digest)
    return None if found is None else found.value


def text_of(prompt: str) -> str:
    """Return a text of some kilobytes that follows from a prompt."""
    return f"{prompt}-" * (2000 // len(prompt))
