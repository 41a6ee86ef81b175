"""A tally counts what threads add to it."""

from __future__ import annotations

import threading

from forwardscope.core.tally import Tally


def test_looking_changes_nothing() -> None:
    """However often it is looked at, it shows what was counted."""
    tally = Tally()
    for counted in range(3):
        assert [tally.value, tally.value] == [counted, counted]
        next(tally.one_more)
    assert tally.value == 3


def test_threads_lose_no_count() -> None:
    """Eight threads that count at once, and one that looks meanwhile, are all counted."""
    tally, start, each = Tally(), threading.Barrier(9), 5_000

    def work() -> None:
        start.wait()
        for _ in range(each):
            next(tally.one_more)

    workers = [threading.Thread(target=work) for _ in range(8)]
    for worker in workers:
        worker.start()
    start.wait()
    seen = [tally.value for _ in range(200)]
    for worker in workers:
        worker.join()
    assert seen == sorted(seen)
    assert tally.value == 8 * each
