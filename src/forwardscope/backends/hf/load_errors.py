"""One-sentence errors for whatever the libraries raise while they load files."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from forwardscope.errors import AdapterError, ModelError
from forwardscope.text import listed

__all__ = ["Kind", "errors_as", "some", "valid_path"]

Kind = type[ModelError] | type[AdapterError]


@contextmanager
def errors_as(kind: Kind, what: str) -> Iterator[None]:
    """Turn the libraries' exceptions into a one-sentence error of type `kind`.

    The libraries raise many exception types for a malformed file. Exceptions
    outside `Exception`, such as KeyboardInterrupt, pass through.
    """
    try:
        yield
    except (ModelError, AdapterError):
        raise
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = " ".join(lines[:2])[:400]  # some messages quote the whole input
        raise kind(f"{what}: {reason or type(error).__name__}") from error


def valid_path(path: str, kind: Kind, what: str) -> Path:
    """Return a path with its `~` expanded; raise `kind` if the file system rejects it."""
    with errors_as(kind, f"{what} {path[:80]} is not a valid path"):
        local = Path(path).expanduser()
        local.exists()
    return local


def some(names: Collection[str], most: int = 3) -> str:
    """Return the first names in order, and how many more there are."""
    return listed(sorted(names), most)
