"""Mistakes in the paths of a model and its adapter that are seen without a model library."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

__all__ = ["MODEL_CONFIG", "is_model", "is_path", "local_path", "path_mistake"]

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
    if adapter_folder is not None and adapter_folder.is_file():
        parent = adapter_folder.parent
        fix = f"give {parent}" if (parent / _ADAPTER).is_file() else f"give one with {_ADAPTER}"
        return "adapter", f"adapter {adapter} is a file, and a folder is expected; {fix}"
    if _is_adapter(model_folder) and is_model(adapter_folder):
        return "model", (
            f"model and adapter are swapped: {path} is an adapter, and {adapter} a model; "
            "exchange the two paths"
        )
    return None


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
