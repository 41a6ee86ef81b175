"""Whether a server is set up for a store, for `forwardscope doctor --store`."""

from __future__ import annotations

from collections.abc import Iterator

from forwardscope.cli.quantities import shown_size
from forwardscope.errors import UserError
from forwardscope.store.locations import is_server, open_server
from forwardscope.store.redis_address import RedisAddress

__all__ = ["server_lines"]

_POLICIES = ("allkeys-lru", "allkeys-lfu")


def server_lines(url: str) -> Iterator[str]:
    """Yield what a server is, and what to change, each as a line.

    Raises:
        StoreError: The URL has a mistake, or the server cannot be used.
        MissingExtraError: redis-py is not installed.
    """
    if not is_server(url):
        raise UserError("--store takes the URL of a server, such as redis://HOST:6379/0")
    opened = open_server(url, "read", required=True)
    try:
        found = opened.server_info()
    finally:
        opened.close(0.0)
    bound = "no bound" if found.max_bytes is None else shown_size(found.max_bytes)
    yield f"store {opened.name}: version {found.version}, {shown_size(found.used_bytes)} in use"
    yield f"maxmemory {bound}, maxmemory-policy {found.policy}"
    if found.max_bytes is None:
        yield "set maxmemory, so that the store does not take all memory: CONFIG SET maxmemory 4gb"
    expires = RedisAddress.parse(url).ttl_s is not None
    if found.policy not in _POLICIES and not (found.policy.startswith("volatile-") and expires):
        yield (
            "set a policy that evicts what is not used, or a full server takes no values: "
            "CONFIG SET maxmemory-policy allkeys-lru"
        )
