"""Which adapters a sweep has, in which order, and what they are called."""

from __future__ import annotations

from pathlib import Path

import pytest

from forwardscope.errors import UserError
from forwardscope.sweep import find_adapters


def _adapter(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}")
    return folder


def test_pattern_is_in_natural_order(tmp_path: Path) -> None:
    """Numbers are sorted by their value, so 900 comes before 1000."""
    for step in (1000, 900, 90):
        _adapter(tmp_path / "runs" / f"checkpoint-{step}")
    found = find_adapters([], [f"{tmp_path}/runs/checkpoint-*"])
    assert found.labels == ("checkpoint-90", "checkpoint-900", "checkpoint-1000")
    assert [Path(place).name for place in found.places] == list(found.labels)


def test_given_adapters_keep_their_order(tmp_path: Path) -> None:
    """Those that are named come as they are given, and before those of a pattern."""
    for name in ("b", "a", "more/c"):
        _adapter(tmp_path / name)
    given = [str(tmp_path / "b"), str(tmp_path / "a")]
    found = find_adapters(given, [f"{tmp_path}/more/*"])
    assert found.labels == ("b", "a", "c")


def test_labels_have_what_tells_adapters_apart(tmp_path: Path) -> None:
    """Folders of one name are told apart by the folders above them."""
    places = [_adapter(tmp_path / run / "checkpoint-100") for run in ("first", "second")]
    found = find_adapters([str(place) for place in places], [])
    assert found.labels == ("first/checkpoint-100", "second/checkpoint-100")


def test_labels_are_unique_and_safe_as_folders() -> None:
    """No label leaves its folder, hides, or differs from another in case alone."""
    found = find_adapters(["me/x y", "me/x_y", "me/X_y", "../up", ".hidden/..", "me/\x1b[1m"], [])
    folded = [label.casefold() for label in found.labels]
    assert len(set(folded)) == len(folded)
    for label in found.labels:
        assert label.isascii()
        assert label.isprintable()
        assert not any(part.startswith(".") or not part for part in label.split("/"))


def test_folders_without_an_adapter_are_named(tmp_path: Path) -> None:
    """A folder that matches and has no adapter is left out, and a note says so."""
    _adapter(tmp_path / "runs" / "one")
    (tmp_path / "runs" / "logs").mkdir()
    (tmp_path / "runs" / "file").write_text("")
    found = find_adapters([], [f"{tmp_path}/runs/*"])
    assert found.labels == ("one",)
    [note] = found.notes
    assert "1 folder" in note
    assert "logs" in note


def test_link_to_an_adapter_is_the_same_adapter(tmp_path: Path) -> None:
    """One adapter under two names is refused."""
    place = _adapter(tmp_path / "one")
    (tmp_path / "latest").symlink_to(place)
    with pytest.raises(UserError, match="given twice"):
        find_adapters([str(place), str(tmp_path / "latest")], [])


@pytest.mark.parametrize(
    ("given", "patterns", "said"),
    [
        ([], [], "--adapter PATH or --adapters PATTERN"),
        ([], ["nowhere/*"], "matches no folder"),
        ([""], [], "give a folder"),
        (["org/a", "org/a"], [], "given twice"),
        ([f"org/a{n}" for n in range(1001)], [], "at most 1000"),
    ],
)
def test_mistakes(given: list[str], patterns: list[str], said: str) -> None:
    """Each mistake is a sentence with what to do."""
    with pytest.raises(UserError, match=said):
        find_adapters(given, patterns)
