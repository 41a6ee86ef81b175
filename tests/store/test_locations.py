"""Where stores are, and where they are refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from forwardscope.errors import StoreError
from forwardscope.store.locations import (
    file_system,
    is_network,
    open_existing,
    open_store,
    store_path,
)

_MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:30 / /home rw,relatime - nfs4 server:/home rw
31 30 8:2 / /home/local\\040disk rw - xfs /dev/sdb1 rw
32 22 0:40 / /mnt/share rw - cifs //server/share rw
33 22 0:41 / /mnt/ssh rw - fuse.sshfs me@server: rw
34 22 0:42 / /mnt/over rw - ext4 /dev/sdc1 rw
35 34 0:43 / /mnt/over rw - 9p host rw
damaged line
"""


@pytest.mark.parametrize(
    ("path", "kind", "network"),
    [
        ("/var/store.db", "ext4", False),
        ("/home/me/store.db", "nfs4", True),
        ("/homes/store.db", "ext4", False),
        ("/home/local disk/store.db", "xfs", False),
        ("/mnt/share/a/b/store.db", "cifs", True),
        ("/mnt/ssh/store.db", "fuse.sshfs", True),
        ("/mnt/over/store.db", "9p", True),
    ],
)
def test_the_file_system_of_a_path(path: str, kind: str, network: bool) -> None:
    """The innermost and latest mount point decides; those of servers are network file systems."""
    assert file_system(Path(path), _MOUNTS) == kind
    assert is_network(kind) == network


def test_a_file_system_that_is_not_known() -> None:
    """Without any mount point there is no type, and a local FUSE is not refused."""
    assert file_system(Path("/var"), "") is None
    assert not is_network("fuse.mergerfs")


def test_the_file_system_of_this_machine(tmp_path: Path) -> None:
    """A link is followed, and a path that does not exist has the type of its folder."""
    (tmp_path / "link").symlink_to("/proc")
    if (here := file_system(tmp_path / "not" / "there")) is not None:
        assert here == file_system(tmp_path)
        assert file_system(tmp_path / "link" / "x") == "proc"


def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the file system and what to do."""
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"30 1 0:30 / {tmp_path} rw - nfs4 server:/home rw\n")
    monkeypatch.setattr("forwardscope.store.locations._MOUNTS", mounts)
    with pytest.raises(StoreError, match=r"network file system \(nfs4\).*local path.*redis"):
        open_store(tmp_path / "store.db")
    assert not (tmp_path / "store.db").exists()


@pytest.mark.parametrize("scheme", ["redis", "valkey", "REDIS"])
def test_a_server_that_is_down(scheme: str) -> None:
    """A run goes on with a store that is given up, else it is an error without password."""
    url = f"{scheme}://user:secret@127.0.0.1:1/0"
    with pytest.warns(RuntimeWarning, match="no connection") as warned:
        opened = open_store(url)
    assert opened is not None
    assert opened.stats().unavailable
    opened.close()
    with pytest.raises(StoreError, match="no connection") as error:
        open_existing(url, mode="read")
    told = [str(one.message) for one in warned]
    assert not any("secret" in text for text in [*told, str(error.value), opened.name])


@pytest.mark.parametrize("text", ["", "a\0b", "http://host/x", "x" * 300, "s3://a/b"])
def test_what_is_no_place(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other URLs and impossible paths are one clear error."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError):
        open_store(text)


def test_the_default_is_in_the_cache_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`default` is a file that only the user can read, in the user's cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = store_path("default")
    assert path.name == "store.db"
    assert path.parent.name == "forwardscope"
    assert store_path("~/x.db") == Path.home() / "x.db"


@pytest.fixture
def read_only() -> Iterator[Path]:
    """Return a folder that nobody can write, root included."""
    folder = Path("/sys/kernel")
    if not folder.is_dir():
        pytest.skip("this system has no folder that nobody can write")
    yield folder


def test_a_read_only_folder_is_skipped(read_only: Path) -> None:
    """The run goes on without a store, and a warning says so."""
    with pytest.warns(RuntimeWarning, match=r"is not used: its folder or file is read-only"):
        assert open_store(read_only / "store.db") is None


def test_what_is_opened_to_look_at_it_must_be_there(tmp_path: Path, read_only: Path) -> None:
    """There is an error where a run does without, and no file is made unless that is wanted."""
    path = tmp_path / "store.db"
    for mode in ("read", "write"):
        with pytest.raises(StoreError, match=r"store\.db cannot be used: there is no such file"):
            open_existing(path, mode=mode)
    with pytest.raises(StoreError, match="its folder or file is read-only"):
        open_existing(read_only / "store.db", mode="write", create=True)
    assert list(tmp_path.iterdir()) == []
    open_existing(path, mode="write", create=True).close()
    open_existing(path, mode="read").close()


def test_a_folder_that_takes_no_files() -> None:
    """The message names the folder, which is there, and does not say that it is not."""
    if not Path("/proc/self").exists():
        pytest.skip("this system has no /proc")
    with pytest.raises(StoreError, match=r"x\.db cannot be opened: no file can be made in /proc"):
        open_store("/proc/x.db")


def test_nothing_to_read_is_skipped(tmp_path: Path) -> None:
    """In mode read a store that does not exist is skipped, and not made."""
    with pytest.warns(RuntimeWarning, match="is not used: there is no such file"):
        assert open_store(tmp_path / "store.db", mode="read") is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url", ["redis:a-secret@host", "valkey:/:a-secret@host", "Redis:host:6379"]
)
def test_url_without_slashes_is_no_file(url: str) -> None:
    """The password in a mistyped URL becomes no name of a file, and the error has none."""
    with pytest.raises(StoreError, match=r"begins with (redis|valkey)://") as caught:
        store_path(url)
    assert "secret" not in str(caught.value)
