"""Writing a tree of files into a folder that may already have files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from forwardscope.errors import OutputError
from forwardscope.files import replace_content
from forwardscope.text import listed

__all__ = ["BACKUP_SUFFIX", "write_tree"]

#: Suffix of the copy of an overwritten file; Grafana and Prometheus do not load such files.
BACKUP_SUFFIX: Final = "~"


def write_tree(
    folder: Path, files: Mapping[str, bytes], *, force: bool
) -> tuple[list[str], list[str]]:
    """Write files into a folder; delete no file there, and leave equal files unchanged.

    The old content of an overwritten file is saved next to it, as its name plus
    `BACKUP_SUFFIX`.

    Args:
        folder: The folder; created if it does not exist.
        files: Contents by path relative to the folder.
        force: Whether to overwrite files that differ.

    Returns:
        The names of the new files and the names of the overwritten files.

    Raises:
        OutputError: A different file exists and `force` is false, a path is not a
            file, or a link leads out of the folder (no file is written in these
            cases); or a file cannot be written.
    """
    try:
        changed = {name: text for name, text in files.items() if _differs(folder, name, text)}
        existing = [name for name in changed if (folder / name).exists()]
        if existing and not force:
            raise OutputError(
                f"{listed(existing)} in {folder} would be overwritten; "
                "name another folder, or add --force"
            )
        for name in existing:
            (folder / name).replace(folder / f"{name}{BACKUP_SUFFIX}")
        for name, text in changed.items():
            replace_content(folder / name, text)
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links
        reason = error.strerror if isinstance(error, OSError) else str(error)
        path = getattr(error, "filename", None) or folder
        raise OutputError(f"{path} cannot be written: {reason}") from error
    return [name for name in changed if name not in existing], existing


def _differs(folder: Path, name: str, content: bytes) -> bool:
    """Return whether a file is missing or has other content.

    Raises:
        OutputError: The path is not a file, or cannot become one.
    """
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise OutputError(f"{path} leads out of {folder}; remove the link or name another folder")
    parent = next(candidate for candidate in path.absolute().parents if candidate.exists())
    if not parent.is_dir():
        raise OutputError(f"{parent} is not a folder; name another one to write to")
    if path.exists() and not path.is_file():
        raise OutputError(f"{path} is not a file and cannot be overwritten; name another folder")
    return not path.exists() or path.read_bytes() != content
