"""Compare the base that an adapter was trained on with the base that was loaded."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Final

from peft import LoraConfig

from forwardscope.backends.hf.adapter_config import read_config
from forwardscope.backends.hf.model_files import ModelFiles
from forwardscope.backends.model_paths import is_path, local_path
from forwardscope.errors import AdapterError

__all__ = ["compare_base", "named_base"]

#: A model's folder in the cache of the hub.
_SNAPSHOT: Final = re.compile(r"models--(?P<name>[^/\\]+)[/\\]snapshots[/\\](?P<commit>[0-9a-f]+)$")


def named_base(folder: Path) -> str | None:
    """Return the base that the config in an adapter's folder names; None where it names none.

    Raises:
        AdapterError: The config cannot be read, or no view can be made of such an adapter.
    """
    config, _ = read_config(folder)
    return config.base_model_name_or_path or None


def compare_base(config: LoraConfig, base: ModelFiles) -> list[str]:
    """Return a warning if an adapter names another base or revision than was loaded.

    A hub id and a folder are compared by the last part of their names, two hub
    ids as they are. A name that is no path on this machine is compared as text.

    Args:
        config: The adapter's config.
        base: Files of the base.

    Raises:
        AdapterError: The adapter was trained on top of another adapter of the loaded base.
    """
    name = config.base_model_name_or_path
    if not name:
        return []
    snapshot = _SNAPSHOT.search(str(base.folder.absolute()))
    loaded = snapshot["name"].replace("--", "/") if snapshot else base.name
    first = _base_of_adapter(name)
    if first is not None and _is_same(first, loaded):
        raise AdapterError(
            f"the adapter was trained on top of the adapter {name}, which {base.name} does not "
            "have; merge that adapter into its base with merge_and_unload(), save the merged "
            "model and give its folder as the model"
        )
    if not _is_same(name, loaded):
        return [f"the adapter was trained on {name}, but {loaded} was loaded as its base"]
    revision = config.revision
    if not revision or revision == "main" or not snapshot:
        return []
    if snapshot["commit"].startswith(revision):
        return []
    return [
        f"the adapter was trained on revision {revision} of {name}, but commit "
        f"{snapshot['commit']} was loaded"
    ]


def _base_of_adapter(name: str) -> str | None:
    """Return the base that an adapter folder names; None for a folder of another kind."""
    folder = local_path(name)
    if folder is None or (folder / "config.json").is_file():
        return None
    try:
        return str(
            json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_same(name: str, loaded: str) -> bool:
    folder, other = local_path(name), local_path(loaded)
    if name == loaded or (folder is not None and other is not None and folder.samefile(other)):
        return True
    if loaded.endswith(".gguf"):  # its name also has the quantisation
        return _last(name) in Path(loaded).stem.lower()
    if _is_hub_id(name) and _is_hub_id(loaded):
        return name.lower() == loaded.lower()
    return _last(name) == _last(loaded)


def _is_hub_id(name: str) -> bool:
    elsewhere = is_path(name) or name.startswith("\\")
    return not elsewhere and "/" in name and local_path(name) is None


def _last(name: str) -> str:
    return re.split(r"[/\\]", name.rstrip("/\\"))[-1].lower()
