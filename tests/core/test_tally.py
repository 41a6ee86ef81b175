"""A tally counts what threads add to it."""

from __future__ import annotations

import threading

from forwardscope.core.tally import new_tally, seen_of


def test_looking_changes_nothing() -> None:
    """However often it is looked at, it shows what was counted, and each sees those before it."""
    tally = new_tally()
    for counted in range(3):
        assert [seen_of(tally), seen_of(tally)] == [counted, counted]
        assert next(tally) == counted
    assert seen_of(tally) == 3


def test_threads_lose_no_count() -> None:
    """Eight threads that count at once, while another looks, get each number once."""
    tally, start, each = new_tally(), threading.Barrier(9), 5_000
    numbers: list[list[int]] = []

    def work() -> None:
        start.wait()
        numbers.append([next(tally) for _ in range(each)])

    workers = [threading.Thread(target=work) for _ in range(8)]
    for worker in workers:
        worker.start()
    start.wait()
    seen = [seen_of(tally) for _ in range(200)]
    for worker in workers:
        worker.join()
    assert seen == sorted(seen)
    assert sorted(number for mine in numbers for number in mine) == list(range(8 * each))
    assert seen_of(tally) == 8 * each
