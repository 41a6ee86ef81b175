"""Compare batched gets from a store on a server with plain pipelined GETs of the same values.

Run with the URL of an empty server: python benchmarks/remote_store.py redis://127.0.0.1:6379/0
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Final

import redis
from stored import _entry

from forwardscope.store.codec import encode
from forwardscope.store.redis import RedisStore
from forwardscope.store.redis_address import RedisAddress

_ENTRIES: Final = 2048
_BATCH: Final = 64
_ROUNDS: Final = 7


def _ns(batches: list[list[bytes]], get: Callable[[list[bytes]], int]) -> float:
    start = time.perf_counter_ns()
    found = sum(get(batch) for batch in batches)
    spent = time.perf_counter_ns() - start
    if found != _ENTRIES:
        raise ValueError(f"{found} of {_ENTRIES} values were found")
    return spent / _ENTRIES


def main(url: str) -> None:
    """Print the time of one value on both sides, and their ratio in each round."""
    store = RedisStore(RedisAddress.parse(url), required=True)
    client = redis.Redis.from_url(url)
    entries = [_entry(number) for number in range(_ENTRIES)]
    for start in range(0, _ENTRIES, 512):
        store.put_many(entries[start : start + 512])
        store.flush(60.0)
    client.mset({b"plain:" + one.digest: encode(one.value, one.digest) for one in entries})
    digests = [one.digest for one in entries]
    batches = [digests[at : at + _BATCH] for at in range(0, _ENTRIES, _BATCH)]

    def plain(batch: list[bytes]) -> int:
        pipeline = client.pipeline(transaction=False)
        for digest in batch:
            pipeline.get(b"plain:" + digest)
        return sum(value is not None for value in pipeline.execute())

    ratios = []
    for _ in range(_ROUNDS):
        theirs, ours = _ns(batches, plain), _ns(batches, lambda one: len(store.get_many(one)))
        ratios.append(ours / theirs)
        sys.stdout.write(f"pipelined GET {theirs / 1e3:.1f} us, store {ours / 1e3:.1f} us\n")
    sys.stdout.write(f"ratio {statistics.median(ratios):.2f} ({_BATCH} in a batch)\n")
    store.close()


if __name__ == "__main__":
    main(sys.argv[1])
