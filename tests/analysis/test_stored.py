"""What a store has for the misses of a trace."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from forwardscope import TraceEvent
from forwardscope.analysis.stored import InStore, State, StoreSearch, hit_line, store_lines
from forwardscope.store.base import NewEntry, StoredRow
from forwardscope.store.keys import question_digest_of_hash
from forwardscope.testing import MemoryStore

from .conftest import MakeEvent

PARTS = {"model weights": "0" * 64, "adapter weights": "1" * 64, "dtype": "float32"}


class Stored(MemoryStore):
    """A store whose entries were last used at a fixed time."""

    def add(
        self, identity: str, run_id: str | None, parts: Mapping[str, str] | None = None, **more: Any
    ) -> None:
        """Store a value for the prompt `a`, and describe its view."""
        question = question_digest_of_hash("next_token_dist", more.get("prompt", "a"), 8)
        digest = f"{identity} {more}".encode().ljust(32, b".")
        self.put_many([NewEntry(digest, question, identity, 1.5, run_id)])
        if parts is not None:
            family = more.get("family", "ft")
            self.describe_identity(
                identity, parts, model="llama", adapter="lora", view_family=family
            )

    def scan(self, **selection: Any) -> Any:
        """Yield the rows with their time set."""
        for row in super().scan(**selection):
            yield row._replace(last_used=self.used(row))

    def used(self, _: StoredRow) -> float:
        return 1.8e9


@pytest.fixture
def store() -> Stored:
    return Stored()


@pytest.fixture
def miss(event: MakeEvent) -> TraceEvent:
    """A miss of the run `here` on the view `ft`."""
    return event(view_id="ft", run_id="here", view_identity="mine")


def find(store: Stored, miss: TraceEvent) -> InStore:
    return StoreSearch(store).find(miss)


def differing(found: InStore) -> list[list[str] | None]:
    """The names of the parts in which each other view differs."""
    return [
        None if one.differences is None else [part.part for part in one.differences]
        for one in found.others
    ]


def test_a_value_that_no_run_stored_before(store: Stored, miss: TraceEvent) -> None:
    """The run's own value is there, and no other."""
    store.add("mine", "here", PARTS)
    store.add("mine", "other", PARTS, prompt="b")
    found = find(store, miss)
    assert (found.state, found.run_id, found.others) == (State.SAVED, "here", [])
    assert list(store_lines(found)) == [
        "store: not found; this run stored the value",
        "  no other run stored this op, prompt and top_k for a view of this family",
    ]


def test_a_value_that_is_gone(store: Stored, miss: TraceEvent) -> None:
    """Neither the run's nor another run's value is there under the identity."""
    found = find(store, miss)
    assert found.state is State.ABSENT
    assert "it was evicted, damaged, or not stored" in next(store_lines(found))


def test_a_value_of_another_run(store: Stored, miss: TraceEvent) -> None:
    """A value under the identity is named with the run that computed it."""
    store.add("mine", "other", PARTS)
    found = find(store, miss)
    assert (found.state, found.run_id) == (State.FOUND, "other")
    assert next(store_lines(found)) == "store: not found then; run other has stored the value since"


def test_a_trace_without_an_identity(store: Stored, event: MakeEvent) -> None:
    """Of a run without a store nothing is known but what other runs stored."""
    store.add("theirs", "other", PARTS)
    found = find(store, event(view_id="ft"))
    assert (found.state, differing(found)) == (State.UNKNOWN, [None])
    first, second = store_lines(found)
    assert "the trace has no identity of this view" in first
    assert second.endswith("which parts differ is not known")


def test_another_adapter(store: Stored, miss: TraceEvent) -> None:
    """The part that differs is named, with the run, its model and adapter, and the time."""
    store.add("theirs", "other", {**PARTS, "adapter weights": "2" * 64})
    store.add("mine", "here", PARTS)
    found = find(store, miss)
    assert differing(found) == [["adapter weights"]]
    assert list(store_lines(found))[1] == (
        "  run other (lora on llama, last used 2027-01-15 08:00 UTC) stored it with other "
        "adapter weights"
    )


def test_values_that_people_can_read(store: Stored, miss: TraceEvent) -> None:
    """Short texts are shown and come first; digests and settings that begin alike are not."""
    here = {**PARTS, "torch build": "2.9, CUDA", "kernels": "a, b", "threads": "8"}
    there = {"model weights": "2" * 64, "dtype": "bfloat16", "torch build": "2.8, CUDA"}
    store.add("theirs", "other", {**PARTS, **there, "kernels": "a, c"})
    store.add("mine", "here", here)
    (line,) = (one for one in store_lines(find(store, miss)) if "other (" in one)
    assert line.partition("stored it ")[2] == (
        "with other dtype (bfloat16; here float32), torch build (2.8; here 2.9), "
        "threads (none; here 8), model weights, kernels"
    )


def test_views_with_the_fewest_differences_come_first(store: Stored, miss: TraceEvent) -> None:
    """A view that differs in more, and in all that a nearer one differs in, is left out."""
    other = {"adapter weights": "2" * 64}
    store.add("mine", "here", PARTS | {"view parameter": "0.5"})
    for number, (identity, changes) in enumerate(
        {
            "both": {**other, "dtype": "bfloat16", "view parameter": "0.5"},
            "scale": {"view parameter": "0.7"},
            "adapter": {**other, "view parameter": "0.5"},
            "adapter and scale": {**other, "view parameter": "0.7"},
            "base": {"model weights": "3" * 64, "dtype": "float16", "view parameter": "0.5"},
        }.items()
    ):
        store.add(identity, f"run {number}", PARTS | changes)
    found = find(store, miss)
    assert [one.run_id for one in found.others] == ["run 2", "run 1", "run 4"]
    assert differing(found) == [["adapter weights"], ["view parameter"], ["model weights", "dtype"]]


def test_of_equal_differences_the_last_used_is_shown(store: Stored, miss: TraceEvent) -> None:
    """Runs that differ in the same parts are one line."""
    store.used = lambda row: float(row.identity == "newer")  # type: ignore[method-assign]
    store.add("mine", "here", PARTS)
    for identity in ("older", "newer"):
        store.add(identity, identity, PARTS | {"adapter weights": identity})
    assert [one.run_id for one in find(store, miss).others] == ["newer"]


def test_only_other_runs_and_views_of_the_family_count(store: Stored, miss: TraceEvent) -> None:
    """Values of the same run, of other families and of other questions are no reason."""
    store.add("mine", "here", PARTS)
    store.add("another scale", "here", PARTS | {"view parameter": "0.5"})
    store.add("base", "other", PARTS, family="base")
    store.add("theirs", "other", PARTS, prompt="b")
    assert find(store, miss).others == []


def test_views_that_are_not_described(store: Stored, miss: TraceEvent) -> None:
    """They are counted, because they may be of any family."""
    store.add("mine", "here", PARTS)
    for identity in ("x", "y"):
        store.add(identity, None)
    found = find(store, miss)
    assert (found.others, found.undescribed) == ([], 2)
    assert list(store_lines(found))[1:] == ["  2 values of views that are not described"]


def test_lines_have_a_bound(store: Stored, miss: TraceEvent) -> None:
    """Of many views that differ in other parts the rest are counted, and times may be odd."""
    store.used = lambda _: 1e300  # type: ignore[method-assign]
    store.add("mine", "here", {})
    for number in range(9):
        store.add(f"{number}", f"run\x1b {number}", {f"part {number}": "x"})
    lines = list(store_lines(find(store, miss)))
    assert len(lines) == 5
    assert lines[-1] == "  and 6 further views that differ in other parts"
    assert r"run\x1b" in lines[1]
    assert "last used at an unknown time" in lines[1]


@pytest.mark.parametrize(
    ("verified", "ending"),
    [
        (None, "; not verified in this run"),
        (True, "; verified: computed again, it agreed"),
        (False, "; it did not agree with the value computed again, which was used"),
    ],
)
def test_a_hit_names_its_run(event: MakeEvent, verified: bool | None, ending: str) -> None:
    """A hit of a store says where its value came from, and whether it was verified."""
    hit = event(hit=True, tier="disk", pass_run_id="first", verified=verified)  # noqa: S106
    assert hit_line(hit) == f"from the store (disk), computed by run first{ending}"
