"""Find the files of an adapter: in a folder or on the hub; tell it from a whole model."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from forwardscope.backends.hf.hub import Report, download, no_report
from forwardscope.backends.hf.load_errors import valid_path
from forwardscope.backends.hf.model_files import TOKENIZER_FILES
from forwardscope.backends.model_paths import (
    MODEL_CONFIG,
    file_mistake,
    is_model,
    is_path,
    local_path,
)
from forwardscope.errors import AdapterError

__all__ = ["adapter_folder", "is_whole_model"]

_CONFIG: Final = "adapter_config.json"
_WEIGHTS: Final = "adapter_model.safetensors"


def adapter_folder(adapter: str, report: Report = no_report) -> Path:
    """Return the folder of an adapter; a hub id is downloaded, without pickle files.

    Raises:
        AdapterError: The adapter cannot be found or lacks a file.
    """
    if (mistake := file_mistake(adapter)) is not None:
        raise AdapterError(mistake)
    folder = valid_path(adapter, AdapterError, "adapter")
    if not folder.is_dir():
        if is_path(adapter) or "/" not in adapter:
            raise AdapterError(f"adapter folder {adapter} does not exist")
        wanted = [_CONFIG, _WEIGHTS, MODEL_CONFIG, *TOKENIZER_FILES]
        folder = download(adapter, AdapterError, "adapter", report, wanted=wanted)
    try:
        missing = [name for name in (_CONFIG, _WEIGHTS) if not (folder / name).is_file()]
    except OSError as error:
        raise AdapterError(f"adapter folder {adapter} cannot be read: {error.strerror}") from error
    for name in missing:
        raise AdapterError(f"adapter {adapter} has no {name}; {_remedy(folder, name)}")
    return folder


def is_whole_model(name: str, report: Report = no_report) -> bool:
    """Return whether a folder, a file or a hub id is a whole model and not an adapter.

    Raises:
        AdapterError: A hub id cannot be found.
    """
    folder = local_path(name)
    if folder is None and "/" in name and not is_path(name):
        folder = download(name, AdapterError, "adapter", report, wanted=[_CONFIG, MODEL_CONFIG])
    return name.endswith(".gguf") or is_model(folder)


def _remedy(folder: Path, name: str) -> str:
    if name == _WEIGHTS and (folder / "adapter_model.bin").is_file():
        return (
            "its weights in adapter_model.bin are a pickle, which is not read; load the adapter "
            "with PEFT and save it again with save_pretrained()"
        )
    if name == _CONFIG and (folder / MODEL_CONFIG).is_file():
        return "it is a whole model, not an adapter; give it as `tuned`"
    return "save it with save_pretrained()"
