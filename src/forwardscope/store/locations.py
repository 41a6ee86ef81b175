"""Where stores are: the user's cache folder, a path, or a server."""

from __future__ import annotations

import errno
import os
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Final

from forwardscope.errors import MissingExtraError, StoreError
from forwardscope.files import try_folder_of
from forwardscope.store.base import Store
from forwardscope.store.redis_address import SCHEMES, RedisAddress
from forwardscope.store.sqlite import DEFAULT_MAX_BYTES, SqliteStore
from forwardscope.store.sqlite_schema import Mode
from forwardscope.text import shown

if TYPE_CHECKING:
    from forwardscope.store.redis import RedisStore

__all__ = [
    "DEFAULT",
    "file_system",
    "is_network",
    "is_server",
    "open_existing",
    "open_server",
    "open_store",
    "store_name",
    "store_path",
]

#: Names the file in the user's cache folder.
DEFAULT: Final = "default"

_FILE_NAME: Final = "store.db"
_MOUNTS: Final = Path("/proc/self/mountinfo")
#: Column of a mount point in it.
_MOUNT_POINT: Final = 4
#: File systems on which processes of several machines would share a file: SQLite's locks and
#: its shared memory do not work across machines.
_NETWORK: Final = frozenset(
    {
        *("9p", "acfs", "afs", "beegfs", "ceph", "cifs", "davfs", "gfs", "gfs2", "glusterfs"),
        *("gpfs", "lustre", "ncpfs", "nfs", "nfs3", "nfs4", "ocfs2", "orangefs", "panfs", "pvfs2"),
        *("smb2", "smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs", "wekafs"),
    }
)
#: FUSE file systems that are on a disk of this machine.
_LOCAL_FUSE: Final = frozenset(
    {"bindfs", "encfs", "exfat", "fuse-overlayfs", "gocryptfs", "mergerfs", "ntfs", "ntfs-3g"}
)


def open_store(
    location: str | os.PathLike[str],
    *,
    mode: Mode = "write",
    max_bytes: int = DEFAULT_MAX_BYTES,
) -> Store | None:
    """Open a store, before a model is loaded.

    Args:
        location: `default`, a path, or the URL of a server.
        mode: `read` changes nothing.
        max_bytes: Bound of its size; a server has its own.

    Returns:
        The store; None, with a warning, where it cannot be used but the run can do without:
        in a read-only folder, or in mode `read` where there is none. That of a server that
        cannot be used is given up from the start.

    Raises:
        StoreError: It is none, or on a network file system, or the URL has a mistake.
        MissingExtraError: It is on a server, and redis-py is not installed.
    """
    if is_server(location):
        return open_server(os.fspath(location), mode, required=False)
    path = _local_path(location)
    reason = _why_not(path, mode)
    if reason is not None:
        warnings.warn(
            f"the store {shown(str(path))} is not used: {reason}", RuntimeWarning, stacklevel=2
        )
        return None
    return SqliteStore(path, mode=mode, max_bytes=max_bytes)


def open_existing(
    location: str | os.PathLike[str],
    *,
    mode: Mode,
    max_bytes: int = DEFAULT_MAX_BYTES,
    create: bool = False,
) -> Store:
    """Open a store to look into it or to change it.

    Args:
        location: As for `open_store`.
        mode: `read` changes nothing.
        max_bytes: Bound of its size.
        create: Whether to make it if there is none.

    Raises:
        StoreError: As for `open_store`; or there is none, or it cannot be used or written.
        MissingExtraError: As for `open_store`.
    """
    if is_server(location):
        return open_server(os.fspath(location), mode, required=True)
    path = _local_path(location)
    reason = (None if create else _why_not(path, "read")) or _why_not(path, mode)
    if reason is not None:
        raise StoreError(f"the store {shown(str(path))} cannot be used: {reason}")
    return SqliteStore(path, mode=mode, max_bytes=max_bytes)


def is_server(location: str | os.PathLike[str]) -> bool:
    """Return whether a location is the URL of a server."""
    return _scheme_of(os.fspath(location)) in SCHEMES


def store_name(location: str | os.PathLike[str]) -> str:
    """Return what is shown of a location; it has no password.

    Raises:
        StoreError: It is no place for a store.
    """
    if is_server(location):
        return RedisAddress.parse(os.fspath(location)).name
    return shown(str(store_path(location)))


def store_path(location: str | os.PathLike[str]) -> Path:
    """Return the path of a store.

    Raises:
        StoreError: The location has no path.
    """
    text = os.fspath(location)
    if not text or "\0" in text:
        raise StoreError(f"{text!r} is no place for a store; give a path, or {DEFAULT}")
    scheme = _scheme_of(text)
    if scheme in SCHEMES:
        raise StoreError(f"a {scheme}:// store has no path; give a path, or {DEFAULT}")
    start = text.partition(":")[0].lower()
    if scheme is None and start in SCHEMES and ":" in text:  # a file so named could hold a password
        raise StoreError(f"a URL of a store begins with {start}://; correct it, or give a path")
    if scheme is not None:
        known = "redis://, rediss://, valkey:// or valkeys://"
        raise StoreError(
            f"{shown(scheme)}:// is no kind of store; give a path, {DEFAULT}, or {known}"
        )
    if text == DEFAULT:
        from platformdirs import user_cache_path  # noqa: PLC0415 - only where it is needed

        return user_cache_path("forwardscope") / _FILE_NAME
    return Path(text).expanduser()


def file_system(path: Path, mounts: str | None = None) -> str | None:
    """Return the type of the file system that a path is on, such as `ext4`.

    Args:
        path: It need not exist.
        mounts: Content of Linux's /proc/self/mountinfo; read if None.

    Returns:
        The type; `unc` for a network path of Windows; None where it is not known.
    """
    if path.drive.startswith("\\\\"):
        return "unc"
    if mounts is None:
        try:
            mounts = _MOUNTS.read_text("utf-8", "surrogateescape")
        except OSError:  # not Linux
            return None
    target = os.path.realpath(path)
    found, length = None, -1
    for line in mounts.splitlines():
        fields, _, about = line.partition(" - ")
        columns = fields.split(" ")
        if len(columns) > _MOUNT_POINT and about:
            point = _unescaped(columns[_MOUNT_POINT])
            inside = target == point or target.startswith(point.rstrip("/") + "/")
            if inside and len(point) >= length:  # of two at one point, the later is seen
                found, length = about.split(" ", 1)[0], len(point)
    return found


def is_network(kind: str) -> bool:
    """Return whether a file system is shared between machines; FUSE's mostly are."""
    if kind.startswith("fuse."):
        return kind.removeprefix("fuse.") not in _LOCAL_FUSE
    return kind in _NETWORK or kind == "unc"


def _local_path(location: str | os.PathLike[str]) -> Path:
    path = store_path(location)
    kind = file_system(path)
    if kind is not None and is_network(kind):
        raise StoreError(
            f"the store {shown(str(path))} is on a network file system ({kind}), where SQLite "
            "cannot be used safely; choose a local path, or to share it between machines the "
            "redis:// URL of a server"
        )
    return path


def _scheme_of(text: str) -> str | None:
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", text)
    return None if found is None else found[1].lower()


def open_server(url: str, mode: Mode, *, required: bool) -> RedisStore:
    """Open the store of a URL.

    Args:
        url: The URL.
        mode: As for `open_store`.
        required: Whether a server that cannot be used is an error; else it is given up.

    Raises:
        StoreError: The URL has a mistake, or the server cannot be used and is required.
        MissingExtraError: redis-py is not installed.
    """
    address = RedisAddress.parse(url)
    try:
        from forwardscope.store.redis import RedisStore  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise MissingExtraError("redis", "redis") from error
    return RedisStore(address, mode=mode, required=required)


def _why_not(path: Path, mode: Mode) -> str | None:
    """Return why a run has to do without the store; None if it need not."""
    exists = False
    try:
        exists = path.exists()
        if mode == "read":
            return None if exists else "there is no such file"
        if exists and not path.is_file():
            return None  # refused when it is opened
        target = Path(os.path.realpath(path))
        try_folder_of(target)
        if exists:
            with target.open("ab"):
                pass
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return "its folder or file is read-only" + ("; mode read can read it" * exists)
        reason = error.strerror or str(error)
        raise StoreError(f"the store {shown(str(path))} cannot be opened: {reason}") from error
    return None


def _unescaped(point: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), point)
