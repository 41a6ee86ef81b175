"""Compare the base that an adapter was trained on with the base that was loaded."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from forwardscope.errors import AdapterError

__all__ = ["compare_base"]

_SNAPSHOT = re.compile(r"models--(?P<name>[^/\\]+)[/\\]snapshots[/\\](?P<commit>[0-9a-f]+)")


def compare_base(config: Any, path: str, commit: str | None) -> list[str]:
    """Return a warning if an adapter names another base or revision than was loaded.

    A hub id and a folder are compared by the last part of their names, two hub
    ids as they are.

    Args:
        config: The adapter's config.
        path: The base's folder, `.gguf` file or hub id.
        commit: Commit of the base on the hub, if known.

    Raises:
        AdapterError: The adapter was trained on top of another adapter of the loaded base.
    """
    name = config.base_model_name_or_path
    if not name:
        return []
    snapshot = _SNAPSHOT.search(str(Path(path).expanduser().absolute()))
    loaded = snapshot["name"].replace("--", "/") if snapshot else path
    first = _base_of_adapter(name)
    if first is not None and _is_same(first, loaded):
        raise AdapterError(
            f"the adapter was trained on top of the adapter {name}, which {path} does not have; "
            "merge that adapter into its base with merge_and_unload(), save the merged model and "
            "give its folder as the model"
        )
    if not _is_same(name, loaded):
        return [f"the adapter was trained on {name}, but {loaded} was loaded as its base"]
    commit = snapshot["commit"] if snapshot else commit
    revision = config.revision
    is_known = commit is not None or not Path(path).expanduser().exists()
    if not revision or revision == "main" or not is_known or (commit or "").startswith(revision):
        return []
    return [
        f"the adapter was trained on revision {revision} of {name}, but "
        f"{f'commit {commit}' if commit else 'the default revision'} was loaded"
    ]


def _base_of_adapter(name: str) -> str | None:
    """Return the base that an adapter folder names; None for a folder of another kind."""
    folder = Path(name).expanduser()
    if (folder / "config.json").is_file():
        return None
    try:
        return str(
            json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_same(name: str, loaded: str) -> bool:
    if name == loaded or Path(name).expanduser().resolve() == Path(loaded).expanduser().resolve():
        return True
    if loaded.endswith(".gguf"):  # its name also has the quantisation
        return _last(name) in Path(loaded).stem.lower()
    if _is_hub_id(name) and _is_hub_id(loaded):
        return name.lower() == loaded.lower()
    return _last(name) == _last(loaded)


def _is_hub_id(name: str) -> bool:
    is_path = name.startswith((".", "/", "~", "\\")) or Path(name).exists()
    return not is_path and name.count("/") == 1


def _last(name: str) -> str:
    return re.split(r"[/\\]", name.rstrip("/\\"))[-1].lower()
