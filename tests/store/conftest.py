"""Stores for the tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from forwardscope.store.sqlite import SqliteStore

from .entries import new, put, text_of


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of a store that does not exist."""
    return tmp_path / "folder" / "store.db"


@pytest.fixture
def filled(path: Path) -> Path:
    """Return a closed store of 100 texts, each of its prompt and of about a page."""
    store = SqliteStore(path)
    put(store, *(new(f"{n}", text_of(f"{n}")) for n in range(100)))
    store.close()
    return path
