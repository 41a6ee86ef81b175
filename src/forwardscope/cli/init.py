"""Writing a suite file."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

from forwardscope.errors import OutputError
from forwardscope.files import write_file

__all__ = ["suite_template", "write_suite"]


def suite_template() -> str:
    """Return the commented suite template."""
    return (files("forwardscope.suite") / "template.yaml").read_text(encoding="utf-8")


def write_suite(text: str, path: Path, *, force: bool) -> None:
    """Write a suite file.

    Raises:
        OutputError: The file exists and `force` is false, or it cannot be written.
    """
    if os.path.exists(path) and not force:  # noqa: PTH110 - false for an impossible name
        raise OutputError(f"{path} exists; choose another name or add --force")
    write_file("suite", path, text)
