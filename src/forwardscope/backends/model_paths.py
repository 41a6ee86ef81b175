"""Mistakes in the paths of a model and its adapter that are seen without a model library."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

__all__ = ["MODEL_CONFIG", "file_mistake", "is_model", "is_path", "local_path", "path_mistake"]

_ADAPTER: Final = "adapter_config.json"
#: Every model has it, and no adapter.
MODEL_CONFIG: Final = "config.json"


def path_mistake(path: str, adapter: str | None) -> tuple[Literal["model", "adapter"], str] | None:
    """Return which path is none of what it should be, and a sentence with the fix.

    Args:
        path: The model: a folder, a file or a hub id.
        adapter: The adapter: a folder or a hub id; None where there is none.
    """
    if adapter is None:
        return None
    model_folder, adapter_folder = local_path(path), local_path(adapter)
    if (mistake := file_mistake(adapter)) is not None:
        return "adapter", mistake
    if _is_adapter(model_folder) and is_model(adapter_folder):
        return "model", (
            f"model and adapter are swapped: {path} is an adapter, and {adapter} a model; "
            "exchange the two paths"
        )
    return None


def file_mistake(adapter: str) -> str | None:
    """Return a sentence with the fix where an adapter's path is a file, and not its folder."""
    file = local_path(adapter)
    if file is None or not file.is_file():
        return None
    fix = f"give {file.parent}" if _is_adapter(file.parent) else f"give one with {_ADAPTER}"
    return f"adapter {adapter} is a file, and a folder is expected; {fix}"


def _is_adapter(folder: Path | None) -> bool:
    return _has(folder, _ADAPTER) and not _has(folder, MODEL_CONFIG)


def is_model(folder: Path | None) -> bool:
    """Return whether a folder has a whole model, and no adapter."""
    return _has(folder, MODEL_CONFIG) and not _has(folder, _ADAPTER)


def _has(folder: Path | None, name: str) -> bool:
    try:
        return folder is not None and (folder / name).is_file()
    except OSError:  # the folder cannot be read, which loading it will tell
        return False


def is_path(name: str) -> bool:
    """Return whether a name is written as a path, and is no hub id."""
    return name.startswith((".", "/", "~")) or name.count("/") > 1


def local_path(path: str) -> Path | None:
    """Return a path that exists on this machine; None for any other, such as a hub id."""
    try:
        local = Path(path).expanduser()
        return local if local.exists() else None
    except (OSError, RuntimeError, ValueError):  # too long, no home of that user, NUL
        return None
