"""Lookups that a store answers."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from forwardscope import BackendInstrumentation
from forwardscope.core.series import Counts
from forwardscope.store.base import Lease
from forwardscope.store.portable import export_to, import_from, open_export
from forwardscope.testing import InMemoryTelemetry, MemoryStore
from forwardscope.trace.reader import TraceReader


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def stored_backend(store: MemoryStore, verify: float = 0.0, **settings: Any) -> Any:
    return BackendInstrumentation(
        store=store,
        view_identity=lambda view_id: f"identity of {view_id}",
        verify=verify,
        **settings,
    )


def total(backend: BackendInstrumentation) -> Counts:
    return sum(backend.ledger.snapshot().series.values(), Counts())


def no_pass(*_: object) -> Any:
    raise AssertionError("a forward pass was paid")


def test_a_value_outlives_its_backend(store: MemoryStore) -> None:
    """Another backend gets the value from the store, as a hit, without a forward pass."""
    stored_backend(store).cached("op", "ft", "prompt", 3, lambda: 1.5)
    later = stored_backend(store)
    assert later.cached("op", "ft", "prompt", 3, no_pass) == 1.5
    assert later.cached("op", "ft", "prompt", 3, no_pass) == 1.5
    counts = total(later)
    assert (counts.hits, counts.disk_hits, counts.misses, counts.demand) == (2, 1, 0, 1)


@pytest.mark.parametrize(
    "other", [("op2", "ft", "p", 3), ("op", "b", "p", 3), ("op", "ft", "q", 3)]
)
def test_other_questions_have_other_entries(store: MemoryStore, other: tuple[Any, ...]) -> None:
    """Op, view identity, prompt and top_k are all part of the key."""
    stored_backend(store).cached("op", "ft", "p", 3, lambda: 1.5)
    assert stored_backend(store).cached(*other, lambda: 2.5) == 2.5
    assert stored_backend(store).cached("op", "ft", "p", 4, lambda: 2.5) == 2.5


def test_a_batch_asks_once_and_computes_the_rest(store: MemoryStore) -> None:
    """Only what the store has not enters the batch, and the order of the prompts is kept."""
    stored_backend(store).cached_batch("op", "ft", ["b", "d"], 0, lambda at: [2.0, 4.0])
    asked: list[int] = []
    get_many = store.get_many

    class Counting(MemoryStore):
        def get_many(self, digests: Sequence[bytes]) -> Any:
            asked.append(len(digests))
            return get_many(digests)

    later, calls = stored_backend(Counting()), []

    def compute(at: list[int]) -> list[float]:
        calls.append(at)
        return [float(index) for index in at]

    prompts = ["a", "b", "c", "d", "b", "a"]
    assert later.cached_batch("op", "ft", prompts, 0, compute) == [0.0, 2.0, 2.0, 4.0, 2.0, 0.0]
    assert (asked, calls) == ([4], [[0, 2]])
    counts = total(later)
    assert (counts.disk_hits, counts.coalesced, counts.misses) == (2, 2, 2)


def test_views_without_an_identity_are_not_stored(store: MemoryStore) -> None:
    """Where the identity is None, or none is given, the store is neither asked nor written."""
    for identity in (None, lambda view_id: None):
        backend = BackendInstrumentation(store=store, view_identity=identity)
        backend.cached("op", "ft", "prompt", 0, lambda: 1.0)
    assert store.stats().entries == 0


def test_an_identity_that_raises_fails_no_lookup(store: MemoryStore) -> None:
    """The view is warned of once a run and has no store; others have theirs."""
    asked = []

    def identity(view_id: str) -> str:
        asked.append(view_id)
        if view_id == "ft":
            raise OSError("a file is gone")
        return view_id

    backend = BackendInstrumentation(store=store, view_identity=identity)
    with pytest.warns(RuntimeWarning, match="the view ft has no identity: OSError") as warned:
        for prompt in ("one", "two"):
            assert backend.cached("op", "ft", prompt, 0, lambda: 1.0) == 1.0
            assert backend.cached("op", "base", prompt, 0, lambda: 2.0) == 2.0
    assert (len(warned), asked) == (1, ["ft", "base"])
    assert store.stats().entries == 2
    assert backend.store_tier is not None
    assert backend.store_tier.unidentified == ["ft"]


def test_a_failed_pass_stores_nothing(store: MemoryStore) -> None:
    """The error reaches the caller, and a later backend computes."""
    with pytest.raises(ZeroDivisionError):
        stored_backend(store).cached("op", "ft", "prompt", 0, lambda: 1 / 0)
    assert stored_backend(store).cached("op", "ft", "prompt", 0, lambda: 1.0) == 1.0


def test_a_value_of_unknown_type_is_answered_and_not_stored(store: MemoryStore) -> None:
    """What the codec does not know stays in memory alone."""
    backend = stored_backend(store)
    value = object()
    assert backend.cached("op", "ft", "prompt", 0, lambda: value) is value
    assert store.stats().entries == 0


@pytest.mark.filterwarnings("ignore:the store did not:RuntimeWarning")
@pytest.mark.parametrize("method", ["get_many", "put_many", "delete"])
def test_a_store_that_raises_fails_no_lookup(
    store: MemoryStore, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it raises is warned of, and the values are those without a store."""
    stored_backend(store).cached("op", "ft", "stored", 0, lambda: 1.0)

    def fail(*_: object) -> Any:
        raise OSError("down")

    monkeypatch.setattr(store, method, fail)
    later = stored_backend(store, 1.0)
    assert later.cached("op", "ft", "stored", 0, lambda: 2.0) == 2.0
    assert later.cached_batch("op", "ft", ["stored", "b"], 0, lambda at: [3.0]) == [2.0, 3.0]


def test_an_interrupt_while_a_lease_is_read_releases_it() -> None:
    """No lease is left behind by a lookup that ends before its forward call."""
    released: list[bool] = []

    class Interrupted(Lease):
        @property
        def found(self) -> Any:
            raise KeyboardInterrupt

        def release(self) -> None:
            released.append(True)

    class Leasing(MemoryStore):
        def lease(self, digests: Sequence[bytes]) -> Lease:
            return Interrupted(digests)

    with pytest.raises(KeyboardInterrupt):
        stored_backend(Leasing()).cached("op", "ft", "prompt", 0, no_pass)
    assert released == [True]


@pytest.mark.filterwarnings("ignore:the store did not:RuntimeWarning")
@pytest.mark.parametrize("answer", [None, 3, "entry"])
def test_what_is_no_entry_is_a_miss(answer: object) -> None:
    """A store that answers with other types costs a forward pass and no lookup."""

    class Odd(MemoryStore):
        def get_many(self, digests: Sequence[bytes]) -> Any:
            return dict.fromkeys(digests, answer) if answer else None

    backend = stored_backend(Odd())
    assert backend.cached("op", "ft", "prompt", 0, lambda: 1.0) == 1.0
    assert total(backend).misses == 1


def test_an_empty_store_that_has_a_length_is_used() -> None:
    """A store is used whatever its truth value."""

    class Sized(MemoryStore):
        def __len__(self) -> int:
            return self.stats().entries

    store = Sized()
    stored_backend(store).cached("op", "ft", "prompt", 0, lambda: 1.0)
    assert len(store) == 1


def test_a_stopped_backend_still_answers_from_the_store(store: MemoryStore) -> None:
    """After a requested stop the store's hits are answered, unverified, and nothing is computed."""
    stored_backend(store).cached("op", "ft", "prompt", 0, lambda: 1.0)
    later = stored_backend(store, verify=1.0)
    later.request_stop()
    assert later.cached("op", "ft", "prompt", 0, no_pass) == 1.0
    with pytest.raises(KeyboardInterrupt):
        later.cached("op", "ft", "another", 0, no_pass)
    assert (total(later).lookups, total(later).matches) == (1, 0)


def test_threads_ask_the_store_once(store: MemoryStore) -> None:
    """Threads that miss one key in memory wait for the one that asks the store."""
    stored_backend(store).cached("op", "ft", "prompt", 0, lambda: 1.0)
    later, values = stored_backend(store), []
    threads = [
        threading.Thread(
            target=lambda: values.append(later.cached("op", "ft", "prompt", 0, no_pass))
        )
        for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert values == [1.0] * 16
    assert (total(later).disk_hits, total(later).lookups) == (1, 16)


class TestVerification:
    """A share of the store's hits is computed again."""

    def test_values_that_agree(self, store: MemoryStore) -> None:
        """The stored value is returned, and the pass is in no total of passes."""
        stored_backend(store).cached("op", "ft", "prompt", 0, lambda: 1.0)
        later, computed = stored_backend(store, 1.0), []

        def compute() -> float:
            computed.append(1)
            return 1.0 + 5e-5

        assert later.cached("op", "ft", "prompt", 0, compute) == 1.0
        counts = total(later)
        assert (counts.matches, counts.mismatches, counts.disk_hits) == (1, 0, 1)
        assert (counts.misses, counts.forward_passes, computed) == (0, 0, [1])
        assert later.ledger.snapshot().durations["op"].count == 0

    def test_values_that_do_not_agree(self, store: MemoryStore) -> None:
        """The computed value is returned, kept and stored in place of the other."""
        stored_backend(store).cached("op", "ft", "prompt", 0, lambda: 1.0)
        later = stored_backend(store, 1.0)
        assert later.cached("op", "ft", "prompt", 0, lambda: 2.0) == 2.0
        assert later.cached("op", "ft", "prompt", 0, no_pass) == 2.0
        assert (total(later).matches, total(later).mismatches) == (0, 1)
        assert stored_backend(store).cached("op", "ft", "prompt", 0, no_pass) == 2.0

    def test_a_wrong_value_is_removed(self, store: MemoryStore) -> None:
        """Also where the computed value cannot be stored in its place."""
        stored_backend(store).cached("op", "ft", "prompt", 0, lambda: 1.0)
        stored_backend(store, 1.0).cached("op", "ft", "prompt", 0, lambda: float("nan"))
        assert store.stats().entries == 0

    def test_strict_values_must_be_equal(self, store: MemoryStore) -> None:
        """With a tolerance of 0 the smallest difference is a mismatch."""
        stored_backend(store).cached("op", "ft", "prompt", 0, lambda: 1.0)
        later = stored_backend(store, 1.0)
        later.identify_views(lambda _: None, tolerance=0.0)
        assert later.cached("op", "ft", "prompt", 0, lambda: 1.0 + 1e-15) == 1.0 + 1e-15
        assert total(later).mismatches == 1

    def test_one_of_each_identity_a_run(self, store: MemoryStore) -> None:
        """However small the share, a run verifies at least one hit of each view identity."""
        prompts = [str(number) for number in range(50)]
        for view in ("base", "ft"):
            stored_backend(store).cached_batch("op", view, prompts, 0, lambda at: [1.0] * len(at))
        later = stored_backend(store, 1e-12)
        for run in ("one", "two"):
            later.set_run_id(run)
            later.cache.clear()
            for view in ("base", "ft"):
                later.cached_batch("op", view, prompts, 0, lambda at: [1.0] * len(at))
        assert total(later).matches == 4
        assert total(later).disk_hits == 200

    def test_a_failed_batch_postpones_it(self, store: MemoryStore) -> None:
        """A hit that a failed pass left unverified is not the one of its identity."""
        stored_backend(store).cached("op", "ft", "a", 0, lambda: 1.0)
        later = stored_backend(store, 1e-12)
        with pytest.raises(ZeroDivisionError):
            later.cached_batch("op", "ft", ["a", "new"], 0, lambda at: 1 / 0)
        later.cached("op", "ft", "a", 0, lambda: 1.0)
        assert total(later).matches == 1

    def test_the_share_is_drawn_by_entry_and_run(self, store: MemoryStore) -> None:
        """A run verifies about its share, the same again, and another run others."""
        prompts = [str(number) for number in range(400)]
        stored_backend(store).cached_batch("op", "ft", prompts, 0, lambda at: [1.0] * len(at))

        def verified(run: str) -> set[int]:
            later, seen = stored_backend(store, 0.25), []
            later.set_run_id(run)

            def compute(at: list[int]) -> list[float]:
                seen.extend(at)
                return [1.0] * len(at)

            later.cached_batch("op", "ft", prompts, 0, compute)
            return set(seen)

        one, again, other = verified("one"), verified("one"), verified("other")
        assert one == again != other
        assert 60 < len(one) < 140

    def test_imported_values_are_verified_more(self, store: MemoryStore, tmp_path: Path) -> None:
        """Of values from a file, a run verifies about four times its share."""
        prompts = [str(number) for number in range(400)]
        stored_backend(store).cached_batch("op", "ft", prompts, 0, lambda at: [1.0] * len(at))
        file, imported = tmp_path / "export", MemoryStore()
        with file.open("wb") as output:
            export_to(store, output)
        with open_export(file) as source:
            import_from(imported, source, "export")

        def verified(of: MemoryStore, share: float) -> int:
            later = stored_backend(of, share)
            later.cached_batch("op", "ft", prompts, 0, lambda at: [1.0] * len(at))
            return total(later).matches

        assert 10 < verified(store, 0.0625) < 45
        assert 60 < verified(imported, 0.0625) < 140
        assert verified(imported, 0.0) == 0

    def test_a_failed_verification_fails_its_lookup(self, store: MemoryStore) -> None:
        """Its error reaches the caller and counts as a failed pass; other threads can go on."""
        stored_backend(store).cached("op", "ft", "prompt", 0, lambda: 1.0)
        later = stored_backend(store, 1.0)
        with pytest.raises(ZeroDivisionError):
            later.cached("op", "ft", "prompt", 0, lambda: 1 / 0)
        counts = total(later)
        assert (counts.hits, counts.misses, counts.forward_errors) == (0, 1, 1)
        assert later.flights.waiters(("op", "ft", "prompt", 0)) == 0
        assert later.cached("op", "ft", "prompt", 0, lambda: 1.0) == 1.0

    def test_share_out_of_range(self, store: MemoryStore) -> None:
        """A share is between 0 and 1."""
        with pytest.raises(ValueError, match="verify must be between 0 and 1; got 2"):
            stored_backend(store, 2)


def test_records_and_spans_of_store_hits(tmp_path: Path, store: MemoryStore) -> None:
    """They name tier and verification, and lead to the forward call that computed the value."""
    telemetry = InMemoryTelemetry()
    settings = {"store": store, "view_identity": lambda view_id: view_id}
    first = telemetry.instrumentation(name="first", **settings)
    first.cached_batch("op", "ft", ["a", "b", "c"], 0, lambda at: [1.0] * 3)
    path = tmp_path / "t.jsonl"
    later = telemetry.instrumentation(name="later", trace_path=path, verify=1.0, **settings)
    later.cached("op", "ft", "a", 0, lambda: 1.0)
    later.cached_batch("op", "ft", ["b", "c", "d"], 0, lambda at: [9.0] * len(at))
    later.close()
    events = list(TraceReader(path))
    assert [(one.hit, one.tier, one.verified, one.batch) for one in events] == [
        (True, "disk", True, None),
        (True, "disk", False, None),
        (True, "disk", False, None),
        (False, None, None, 1),
    ]
    spans = telemetry.spans()
    hits = [span for span in spans if span.name == "lookup hit"]
    attributes = [
        (one.attributes["forwardscope.cache.tier"], one.attributes["forwardscope.cache.verified"])
        for one in hits
    ]
    assert attributes == [("disk", True), ("disk", False), ("disk", False)]
    checks = [span for span in spans if "forwardscope.verification" in span.attributes]
    assert [span.attributes["forwardscope.batch.size"] for span in checks] == [1, 2]
    assert len([span for span in spans if span.name.startswith("forward")]) == 4
    (call,) = [one for one in spans if one.attributes.get("forwardscope.batch.size") == 3]
    assert [one.links for one in hits] == [(call.id,), (checks[1].id,), (checks[1].id,)]
