"""Files are written whole or not at all, with the umask's mode, and never onto an input."""

from __future__ import annotations

import os
import stat
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from forwardscope.errors import OutputError
from forwardscope.files import (
    check_no_input,
    check_writable,
    replace_content,
    replacing,
    write_file,
)

_NOBODY = 65534
_IMPOSSIBLE = ["a\0b", "x" * 300, "file/below"]


@pytest.fixture
def umask() -> Iterator[None]:
    """Files are private unless someone says otherwise."""
    before = os.umask(0o077)
    yield
    os.umask(before)


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.mark.usefixtures("umask")
def test_a_new_file_has_the_mode_of_the_umask(tmp_path: Path) -> None:
    """Neither the file nor the folders that it needs are open to others."""
    path = tmp_path / "new" / "file.json"
    write_file("result", path, "text")
    assert (path.read_text(), _mode(path), _mode(path.parent)) == ("text", 0o600, 0o700)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664])
def test_an_existing_file_keeps_its_mode(tmp_path: Path, mode: int) -> None:
    """A private file stays private, and a shared one shared."""
    path = tmp_path / "file.json"
    path.write_text("old")
    path.chmod(mode)
    write_file("result", path, "new")
    assert (path.read_text(), _mode(path)) == ("new", mode)


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    """The file that it leads to is replaced, also where there is none yet."""
    for name in ("there", "not-there"):
        target, link = tmp_path / "folder" / name, tmp_path / f"link-{name}"
        target.parent.mkdir(exist_ok=True)
        link.symlink_to(target)
        if name == "there":
            target.write_text("old")
        write_file("result", link, "new")
        assert link.is_symlink()
        assert target.read_text() == "new"


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    """What is no regular file is not replaced by one."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    write_file("result", pipe, "text")
    reader.join(timeout=10)
    assert read == [b"text"]
    assert stat.S_ISFIFO(pipe.lstat().st_mode)


def test_a_failed_write_leaves_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing half-written stays, under this name or another."""
    path = tmp_path / "file.json"
    path.write_text("old")

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", fail)
    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        replace_content(path, b"new")
    assert [one.name for one in tmp_path.iterdir()] == ["file.json"]
    assert path.read_text() == "old"


def test_a_block_that_raises_leaves_the_old_content(tmp_path: Path) -> None:
    """Whatever it raises comes out unchanged, and nothing else stays in the folder."""
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(ValueError, match="stop"), replacing(path) as file:
        file.write(b"new")
        raise ValueError("stop")
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("file", "old")]
    with replacing(tmp_path / "private", 0o600) as file:
        file.write(b"new")
    assert _mode(tmp_path / "private") == 0o600


def test_a_folder_that_takes_no_files() -> None:
    """The message names the folder, which is there, and does not say that it is not."""
    if not Path("/proc/self").exists():
        pytest.skip("this system has no /proc")
    with pytest.raises(OutputError, match=r"x\.json: no file can be made in /proc;"):
        check_writable("result", Path("/proc/x.json"))


@pytest.mark.parametrize("name", _IMPOSSIBLE)
def test_a_path_that_no_file_can_have(tmp_path: Path, name: str) -> None:
    """It is one sentence, when checked and when written."""
    (tmp_path / "file").touch()
    path = tmp_path / name
    check_no_input("result", path, [tmp_path / "file"])
    for attempt in (
        lambda: check_writable("result", path),
        lambda: write_file("result", path, "text"),
    ):
        with pytest.raises(OutputError, match="the result cannot be written to"):
            attempt()
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_an_input_is_not_written_to(tmp_path: Path) -> None:
    """Not under its own name, nor through a link of either kind."""
    read = tmp_path / "read.json"
    read.write_text("old")
    (tmp_path / "symbolic").symlink_to(read)
    (tmp_path / "hard").hardlink_to(read)
    for name in ("read.json", "symbolic", "hard"):
        with pytest.raises(OutputError, match=r"over the input .*read\.json"):
            write_file("report", tmp_path / name, "new", [tmp_path / "other", read])
    write_file("report", tmp_path / "other", "new", [read])
    assert read.read_text() == "old"


def test_checking_changes_nothing(tmp_path: Path) -> None:
    """A check creates no file, and changes none."""
    old = tmp_path / "old"
    old.write_text("old")
    before = old.stat().st_mtime_ns
    for path in (old, tmp_path / "new" / "file"):
        check_writable("result", path)
    assert [one.name for one in tmp_path.iterdir()] == ["old"]
    assert old.stat().st_mtime_ns == before
    with pytest.raises(OutputError, match="it is a folder"):
        check_writable("result", tmp_path)


@pytest.fixture
def locked_folder() -> Iterator[Path]:
    """A folder that this process cannot write to, also if it began as root."""
    with tempfile.TemporaryDirectory() as name:
        folder, user = Path(name), os.geteuid()
        (folder / "file").write_text("old")
        (folder / "file").chmod(0o666)
        folder.chmod(0o555)
        if user == 0:
            os.seteuid(_NOBODY)
        yield folder
        os.seteuid(user)
        folder.chmod(0o700)


def test_a_file_in_a_folder_that_cannot_be_written(locked_folder: Path) -> None:
    """It is written in place, and no other file is created beside it."""
    write_file("result", locked_folder / "file", "new")
    assert (locked_folder / "file").read_text() == "new"
    with pytest.raises(OutputError, match="Permission denied"):
        write_file("result", locked_folder / "other", "new")
