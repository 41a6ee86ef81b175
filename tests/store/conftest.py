"""Stores for the tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from forwardscope.store.sqlite import SqliteStore

from . import redis_server
from .entries import new, put, text_of


@pytest.fixture(scope="session")
def redis_port() -> Iterator[int]:
    """Yield the port of a server that the tests of a session share."""
    with redis_server.running() as port:
        yield port


@pytest.fixture
def redis_url(redis_port: int) -> str:
    """Return the URL of an empty database."""
    url = f"redis://127.0.0.1:{redis_port}/0"
    with redis.Redis.from_url(url) as client:
        client.flushall()
    return url


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
