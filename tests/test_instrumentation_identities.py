"""What a store and a trace know of the identities of views."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from forwardscope import BackendInstrumentation, TraceEvent, TraceReader
from forwardscope.store.base import IdentityInfo, Store
from forwardscope.store.sqlite import SqliteStore
from forwardscope.testing import MemoryStore

DESCRIPTION = "ignore:the store did not take a view's description:RuntimeWarning"


def identified(store: Store, parts: Any = None, **settings: Any) -> BackendInstrumentation:
    backend = BackendInstrumentation(store=store, **settings)
    backend.identify_views(lambda view_id: f"identity of {view_id}", parts=parts)
    return backend


def look_up(backend: BackendInstrumentation, *views: str) -> None:
    for view in views:
        assert backend.cached("op", view, "prompt", 3, lambda: 1.5) == 1.5


def test_views_are_described_by_their_parts() -> None:
    """A description has parts, model and family, and the adapter where the view has it."""
    store = MemoryStore()
    backend = identified(store, lambda view_id: {"dtype": view_id})
    backend.name_model("some-model", "some-adapter")
    look_up(backend, "base", "ft", "scaled_0.5", "null_1")
    assert store.identities() == {
        f"identity of {view}": IdentityInfo({"dtype": view}, "some-model", adapter, family)
        for view, adapter, family in (
            ("base", None, "base"),
            ("ft", "some-adapter", "ft"),
            ("scaled_0.5", "some-adapter", "scaled"),
            ("null_1", None, "null"),
        )
    }


def test_a_view_is_described_once_a_run() -> None:
    """Later lookups of the run ask for no parts; another run asks once more."""
    asked: list[str] = []

    def parts(view_id: str) -> Mapping[str, str]:
        asked.append(view_id)
        return {}

    backend = identified(MemoryStore(), parts, cache_maxsize=1)
    for run in ("one", "two"):
        backend.set_run_id(run)
        look_up(backend, "base", "ft", "base", "ft")
    assert asked == ["base", "ft"] * 2


def test_a_long_part_is_its_beginning_and_a_digest() -> None:
    """What is stored of a long text is short, and differs wherever the text does."""
    briefs = set()
    for end in ("a", "b"):
        store, build = MemoryStore(), f"2.9{'x' * 5000}{end}"
        look_up(identified(store, lambda _, build=build: {"torch build": build}), "ft")
        briefs.add(store.identities()["identity of ft"].parts["torch build"])
    assert len(briefs) == 2
    assert all(brief.startswith("2.9xxx") and len(brief) < 120 for brief in briefs)


def test_an_identity_of_the_program_is_not_described_by_the_backend() -> None:
    """A `view_identity` that was given stays, and another one's parts say nothing of it."""
    store = MemoryStore()
    look_up(identified(store, lambda _: {"dtype": "x"}, view_identity=lambda _: "mine"), "ft")
    assert [row.identity for row in store.scan()] == ["mine"]
    assert store.identities() == {}


@pytest.mark.filterwarnings(DESCRIPTION)
@pytest.mark.parametrize(
    "parts",
    [
        lambda _: 1 / 0,
        lambda _: None,
        *(lambda _, part=part: {"dtype": part} for part in (3, b"float32", {}, None)),
        lambda _: {3: "float32"},
    ],
)
def test_parts_that_cannot_be_described_fail_no_lookup(parts: Any, tmp_path: Path) -> None:
    """The value is computed and stored without a description."""
    with closing(SqliteStore(tmp_path / "store.db")) as store:
        look_up(identified(store, parts), "ft")
        assert store.flush(5)
        assert (store.identities(), store.stats().entries) == ({}, 1)


@pytest.mark.filterwarnings("ignore:the view ft has no identity.*TypeError:RuntimeWarning")
@pytest.mark.parametrize("identity", [3, b"ft", ["ft"]])
def test_an_identity_that_is_no_text_fails_no_lookup(identity: Any) -> None:
    """The view has none, so its values are not stored."""
    store = MemoryStore()
    backend = BackendInstrumentation(store=store, view_identity=lambda _: identity)
    look_up(backend, "ft")
    assert store.stats().entries == 0


def test_a_run_id_of_any_text_fails_no_lookup() -> None:
    """Even one that cannot be encoded in UTF-8, as an argument that is not UTF-8 gives."""
    store = MemoryStore()
    for _ in range(2):
        backend = identified(store, verify=0.5)
        backend.set_run_id("\udc80")
        look_up(backend, "ft")
    assert store.stats().entries == 1


@pytest.mark.filterwarnings(DESCRIPTION)
def test_a_store_that_refuses_a_description_fails_no_lookup() -> None:
    """It is warned of, and the value is stored."""

    class Refusing(MemoryStore):
        def describe_identity(self, *_: Any, **__: Any) -> None:
            raise OSError("down")

    store = Refusing()
    look_up(identified(store, lambda _: {}), "ft")
    assert store.stats().entries == 1


def _events(store: MemoryStore, path: Path, run: str, **settings: Any) -> list[TraceEvent]:
    backend = identified(store, trace_path=path, **settings)
    backend.set_run_id(run)
    look_up(backend, "ft", "ft")
    backend.close()
    return list(TraceReader(path))


def test_a_miss_names_the_identity_and_a_hit_the_run(tmp_path: Path) -> None:
    """A miss has its view's identity, a hit of the store the run that paid, others neither."""
    store = MemoryStore()
    cold = _events(store, tmp_path / "cold", "one")
    assert [(one.view_identity, one.pass_run_id) for one in cold] == [
        ("identity of ft", None),
        (None, None),
    ]
    warm = _events(store, tmp_path / "warm", "two", verify=1.0)
    assert [(one.tier, one.view_identity, one.pass_run_id) for one in warm] == [
        ("disk", None, "one"),
        (None, None, None),
    ]


def test_a_miss_without_a_store_has_no_identity(tmp_path: Path) -> None:
    """The record has the keys that it has without a store."""
    with_store, without = tmp_path / "with", tmp_path / "without"
    for path, store in ((with_store, MemoryStore()), (without, None)):
        backend = BackendInstrumentation(store=store, view_identity=lambda _: None, trace_path=path)
        look_up(backend, "ft")
        backend.close()
        assert "view_identity" not in path.read_text()
