"""`forwardscope doctor --store` on real servers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from click.testing import Result

from ..store import redis_server


@pytest.mark.parametrize(
    ("policy", "query", "advised"),
    [
        ("noeviction", "", True),
        ("allkeys-lru", "", False),
        ("allkeys-lfu", "", False),
        ("volatile-lru", "", True),
        ("volatile-lru", "?ttl=7d", False),
    ],
)
def test_the_policy_of_a_server(
    invoke: Callable[..., Result], policy: str, query: str, advised: bool
) -> None:
    """A policy under which a full server takes no values comes with the command that changes it."""
    with redis_server.running("--maxmemory", "64mb", "--maxmemory-policy", policy) as port:
        ran = invoke("doctor", "--store", f"redis://127.0.0.1:{port}/0{query}")
    assert ran.exit_code == 0
    assert f"maxmemory 64.0 MiB, maxmemory-policy {policy}" in ran.stdout
    assert ("CONFIG SET maxmemory-policy allkeys-lru" in ran.stdout) == advised
    assert "CONFIG SET maxmemory 4gb" not in ran.stdout


def test_a_server_without_a_bound(invoke: Callable[..., Result]) -> None:
    """It could take all memory, and the command that bounds it is shown."""
    with redis_server.running() as port:
        ran = invoke("doctor", "--store", f"redis://127.0.0.1:{port}/0")
    assert "CONFIG SET maxmemory 4gb" in ran.stdout
    assert "version" in ran.stdout


def test_a_server_that_cannot_be_asked(error_of: Callable[..., str]) -> None:
    """It is one sentence, without the password."""
    message = error_of("doctor", "--store", "redis://:secret@127.0.0.1:1/0")
    assert "there is no connection to the server" in message
    assert "secret" not in message
    assert "URL of a server" in error_of("doctor", "--store", "runs.db")
