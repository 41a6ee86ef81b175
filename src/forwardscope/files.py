"""Write files: whole or not at all, through links, and never onto an input."""

from __future__ import annotations

import errno
import os
import secrets
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import combinations
from pathlib import Path
from typing import IO

from forwardscope.errors import OutputError

__all__ = [
    "check_no_input",
    "check_outputs",
    "check_writable",
    "replace_content",
    "replacing",
    "try_folder_of",
    "unwritable",
    "write_file",
]

_MAX_NAME = 100


def write_file(what: str, path: Path, content: str | bytes, inputs: Iterable[Path] = ()) -> None:
    """Write a file as `replace_content` does.

    Args:
        what: What the file is, for messages.
        path: The file.
        content: Its content; text is written as UTF-8.
        inputs: Files that were read; none of them is written to.

    Raises:
        OutputError: The file cannot be written, or is one of the inputs.
    """
    check_no_input(what, path, inputs)
    data = content if isinstance(content, bytes) else content.encode("utf-8", "backslashreplace")
    try:
        replace_content(path, data)
    except OSError as error:
        raise unwritable(what, path, error) from error


def replace_content(path: Path, content: bytes) -> None:
    """Replace the content of a file as `replacing` does.

    Raises:
        OSError: The file cannot be written.
    """
    with replacing(path) as file:
        file.write(content)


@contextmanager
def replacing(path: Path, mode: int = 0o666) -> Iterator[IO[bytes]]:
    """Yield a file to write, which replaces another one when the block ends.

    If the block raises, or the process is killed, that file has its old content. A new
    file, and folders that it needs, have the mode that the umask gives. An existing file
    keeps its mode, and a link stays a link. What is no regular file, such as a pipe or a
    device, is written to directly; so is a file in a folder that cannot be written.

    Args:
        path: The file to replace.
        mode: Mode of a new file, before the umask.

    Raises:
        OSError: The file cannot be written.
    """
    with _impossible_paths_as_os_errors():
        is_special = path.exists() and not path.is_file()
        target = Path(os.path.realpath(path))
    if is_special:
        with path.open("wb") as file:
            yield file
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    work = target.with_name(f".{target.name[:_MAX_NAME]}.{secrets.token_hex(4)}")
    try:  # from here on, so that an interrupt leaves no file
        try:
            descriptor = os.open(work, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        except PermissionError:
            if not target.exists():
                raise
            with target.open("wb") as file:
                yield file
            return
        with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor, not a path
            yield file
        with suppress(FileNotFoundError):
            work.chmod(target.stat().st_mode & 0o777)
        work.replace(target)
    finally:
        with suppress(OSError):
            work.unlink()


def check_outputs(outputs: Mapping[str, Path | None], inputs: Sequence[Path] = ()) -> None:
    """Check that all output files can be written.

    Args:
        outputs: Files by content; None for a file not written.
        inputs: Files that are read.

    Raises:
        OutputError: A file cannot be written, two are the same, or one is an input.
    """
    files = [(what, path) for what, path in outputs.items() if path is not None]
    for what, path in files:
        check_no_input(what, path, inputs)
        check_writable(what, path)
    for (what, path), (other, second) in combinations(files, 2):
        if os.path.realpath(path) == os.path.realpath(second):  # also for a loop of links
            raise OutputError(f"{path} cannot hold both {what} and {other}; name two files")


def check_writable(what: str, path: Path) -> None:
    """Check that a file can be written, without changing anything.

    Raises:
        OutputError: It cannot.
    """
    try:
        with _impossible_paths_as_os_errors():
            _try_to_write(path)
    except OSError as error:
        raise unwritable(what, path, error) from error


def check_no_input(what: str, path: Path, inputs: Iterable[Path]) -> None:
    """Check that a file to be written is none that was read, under whatever name.

    Raises:
        OutputError: It is.
    """
    for read in inputs:
        # false for paths that no file can have, of which writing them will tell
        if os.path.exists(path) and os.path.exists(read) and os.path.samefile(path, read):  # noqa: PTH110, PTH121
            raise OutputError(
                f"the {what} would be written to {path} over the input {read}; choose another file"
            )


def try_folder_of(path: Path) -> None:
    """Make and remove a file in a path's folder, or where that is missing, in the one above.

    Raises:
        OSError: A file cannot be made there.
    """
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except FileNotFoundError as error:  # in /proc, for example, which is there
        raise OSError(errno.ENOENT, f"no file can be made in {folder}") from error


def unwritable(what: str, path: Path | None, error: OSError) -> OutputError:
    """Return the error for a file that cannot be written."""
    reason = error.strerror or str(error)
    return OutputError(f"the {what} cannot be written to {path}: {reason}; choose another file")


def _try_to_write(path: Path) -> None:
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a folder")
    if path.exists():
        if path.is_file():  # opening a device or a pipe can have effects
            with path.open("ab"):
                pass
        return
    with suppress(FileNotFoundError):
        path.lstat()  # an error for a name with NUL or too long
    try_folder_of(path)


@contextmanager
def _impossible_paths_as_os_errors() -> Iterator[None]:
    """Turn the ValueError for a path with NUL into an OSError."""
    try:
        yield
    except ValueError as error:
        raise OSError(errno.EINVAL, str(error)) from error
