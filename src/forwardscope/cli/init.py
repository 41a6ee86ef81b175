"""Writing a suite file."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from forwardscope.errors import OutputError

__all__ = ["suite_template", "write_suite"]


def suite_template() -> str:
    """Return the commented suite template."""
    return (files("forwardscope.suite") / "template.yaml").read_text(encoding="utf-8")


def write_suite(text: str, path: Path, *, force: bool) -> None:
    """Write a suite file.

    Raises:
        OutputError: The file exists and `force` is false, or it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        if isinstance(error, FileExistsError) and path.exists():  # else a parent is a file
            raise OutputError(f"{path} exists; choose another name or add --force") from error
        raise OutputError(f"{path} cannot be written: {error}") from error
