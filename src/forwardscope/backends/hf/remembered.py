"""Digests of weights that are remembered by the files that the weights came from.

A file is known by its device, inode, size and times, the time of its last change among
them. Programs can set a modification time back, but not that one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_path

from forwardscope.backends.digests import digest_of
from forwardscope.files import replace_content

__all__ = ["SignedFiles", "remembered", "sign"]

#: Raise it when other weights, or in another form, go into a digest.
_FORMAT = 2
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class SignedFiles:
    """Files, and a signature that differs after any of them was changed or replaced.

    Attributes:
        paths: The files.
        signature: Digest of their devices, inodes, sizes and times.
    """

    paths: tuple[Path, ...]
    signature: str

    def if_unchanged(self) -> SignedFiles | None:
        """Return these files, or None if one of them has changed since."""
        return self if sign(self.paths) == self else None


def sign(paths: Iterable[Path]) -> SignedFiles | None:
    """Return files with their signature, or None where one is missing."""
    paths = tuple(paths)
    try:
        return SignedFiles(paths, digest_of([_state(path) for path in paths]))
    except OSError:
        return None


def remembered(key: object, compute: Callable[[], str], rehash: bool) -> str:
    """Return a digest that an earlier process saved under a key, or compute and save it.

    What was saved and is no digest, or cannot be read or written, is ignored.

    Args:
        key: All that decides the digest: signatures of files, and how they were loaded.
        compute: Returns the digest.
        rehash: Whether to compute it also where one was saved.
    """
    file = user_cache_path("forwardscope") / "identities" / digest_of([_FORMAT, key])
    try:
        saved = "" if rehash else file.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        saved = ""
    if _DIGEST.fullmatch(saved):
        return saved
    digest = compute()
    with suppress(OSError):  # a later process computes the digest again
        replace_content(file, digest.encode("ascii"))
    return digest


def _state(path: Path) -> tuple[int, ...]:
    """Return what changes with a file's content."""
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
