"""Writing a tree of files into a folder that may have something in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from forwardscope.errors import OutputError

__all__ = ["KEPT", "write_tree"]

#: Ends the name of what a file was before; no server reads files that end so.
KEPT: Final = "~"

#: How many files are named where many are in the way.
_NAMED: Final = 3


def write_tree(
    folder: Path, files: Mapping[str, bytes], *, force: bool
) -> tuple[list[str], list[str]]:
    """Write files into a folder, deleting nothing there and leaving equal files alone.

    What a file was before it is overwritten is kept beside it, under its name and a `~`.

    Args:
        folder: Where; it is made if it is not there.
        files: Contents by path below it.
        force: Whether to overwrite files that differ.

    Returns:
        The names of those that were not there and of those that were overwritten.

    Raises:
        OutputError: A file that differs is there and `force` is not given, something is in the
            way, or a link leads out of the folder, and nothing is written; or writing fails.
    """
    try:
        changed = {name: text for name, text in files.items() if _differs(folder, name, text)}
        in_the_way = [name for name in changed if (folder / name).exists()]
        if in_the_way and not force:
            raise OutputError(
                f"{_counted(in_the_way)} in {folder} would be overwritten; "
                "name another folder, or add --force"
            )
        for name in in_the_way:
            (folder / name).replace(folder / f"{name}{KEPT}")
        for name, text in changed.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(text)
    except (OSError, RuntimeError) as error:  # the latter for links in a circle
        reason = error.strerror if isinstance(error, OSError) else str(error)
        path = getattr(error, "filename", None) or folder
        raise OutputError(f"{path} cannot be written: {reason}") from error
    return [name for name in changed if name not in in_the_way], in_the_way


def _differs(folder: Path, name: str, content: bytes) -> bool:
    """Return whether a file is not there as it should be.

    Raises:
        OutputError: It cannot be there, or is there as something else than a file.
    """
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise OutputError(f"{path} leads out of {folder}; remove the link or name another folder")
    above = next(one for one in path.absolute().parents if one.exists())
    if not above.is_dir():
        raise OutputError(f"{above} is no folder; name another one to write to")
    if path.exists() and not path.is_file():
        raise OutputError(f"{path} is no file and cannot be overwritten; name another folder")
    return not path.exists() or path.read_bytes() != content


def _counted(names: Iterable[str]) -> str:
    first, rest = list(names)[:_NAMED], list(names)[_NAMED:]
    return ", ".join(first) + (f" and {len(rest)} more" if rest else "")
