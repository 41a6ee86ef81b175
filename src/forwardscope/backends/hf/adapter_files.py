"""Find the files of an adapter: in a folder or on the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from forwardscope.backends.hf.hub import Report, download, no_report
from forwardscope.backends.hf.load_errors import valid_path
from forwardscope.backends.hf.model_files import TOKENIZER_FILES
from forwardscope.backends.model_paths import is_path
from forwardscope.errors import AdapterError

__all__ = ["adapter_folder"]

_CONFIG: Final = "adapter_config.json"
_WEIGHTS: Final = "adapter_model.safetensors"


def adapter_folder(adapter: str, report: Report = no_report) -> Path:
    """Return the folder of an adapter; a hub id is downloaded, without pickle files.

    Raises:
        AdapterError: The adapter cannot be found or lacks a file.
    """
    folder = valid_path(adapter, AdapterError, "adapter")
    if not folder.is_dir():
        if folder.exists() or is_path(adapter) or "/" not in adapter:
            raise AdapterError(f"adapter folder {adapter} does not exist")
        wanted = [_CONFIG, _WEIGHTS, *TOKENIZER_FILES]
        folder = download(adapter, AdapterError, "adapter", report, wanted=wanted)
    for name in (_CONFIG, _WEIGHTS):
        if not (folder / name).is_file():
            raise AdapterError(f"adapter {adapter} has no {name}; {_remedy(folder, name)}")
    return folder


def _remedy(folder: Path, name: str) -> str:
    if name == _WEIGHTS and (folder / "adapter_model.bin").is_file():
        return (
            "its weights in adapter_model.bin are a pickle, which is not read; load the adapter "
            "with PEFT and save it again with save_pretrained()"
        )
    if name == _CONFIG and (folder / "config.json").is_file():
        return "it is a whole model, not an adapter; give it as `tuned`"
    return "save it with save_pretrained()"
