"""Files of the demo in the user's cache folder, with a tiny model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from forwardscope.backends.hf.demo_model import demo_adapter
from forwardscope.errors import OutputError

from .conftest import Zoo

KILLED = """
import os, signal, sys
from pathlib import Path
from forwardscope.backends.hf.demo_model import demo_adapter
demo_adapter(Path(sys.argv[1]), lambda *_: os.kill(os.getpid(), signal.SIGKILL))
"""


def silent(done: int, total: int) -> None:
    """Ignore progress."""


def content(adapter: Path) -> tuple[list[str], list[str]]:
    """Return the hidden and the other names in the demo's folder, without its lock."""
    names = sorted(path.name for path in adapter.parent.iterdir() if path.name != "lock")
    return [name for name in names if name[0] == "."], [name for name in names if name[0] != "."]


def test_what_a_killed_process_left_is_removed(zoo: Zoo, user_cache: Path) -> None:
    """The folder of a process that was killed while it created files is removed."""
    model = zoo.path("llama")
    killed = subprocess.run([sys.executable, "-c", KILLED, str(model)], check=False)
    assert killed.returncode == -9
    (left,) = user_cache.rglob(".harbour-*")
    adapter = demo_adapter(model, silent)
    assert not left.exists()
    assert content(adapter) == ([], [adapter.name])
    left.mkdir()
    assert demo_adapter(model, silent) == adapter  # the files are not created again
    assert content(adapter) == ([], [adapter.name])


def test_work_in_progress_is_not_removed(zoo: Zoo, user_cache: Path) -> None:
    """While a process creates files, another one leaves its folder alone."""
    model = zoo.path("llama")
    seen: list[int] = []

    def start_another(done: int, total: int) -> None:
        if not seen:
            seen.append(0)
            demo_adapter(model, silent)
            seen.append(len(list(user_cache.rglob(".harbour-*"))))

    adapter = demo_adapter(model, start_another)
    assert seen == [0, 1]
    assert content(adapter) == ([], [adapter.name])


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
@pytest.mark.parametrize("size", [0, 100])
def test_truncated_files_are_created_again(
    zoo: Zoo, user_cache: Path, name: str, size: int
) -> None:
    """A file that is cut, as by a full disk, does not fail all later starts."""
    model = zoo.path("llama")
    file = demo_adapter(model, silent) / name
    before = file.stat().st_size
    with file.open("r+b") as opened:
        opened.truncate(size)
    demo_adapter(model, silent)
    assert file.stat().st_size == before


def test_a_cache_that_cannot_be_written(
    zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the folder, and the variable that chooses another."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(OutputError, match=r"file/forwardscope/demo cannot be written: Not a dir"):
        demo_adapter(zoo.path("llama"), silent)
