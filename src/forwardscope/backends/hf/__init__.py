"""Backends for transformers models: with a PEFT LoRA adapter, or a base and its full fine-tune.

They are the only backends that import torch, and only once the files of a model are found.
Requires the extra `hf`.
"""

import importlib.util
from typing import TYPE_CHECKING

from forwardscope.errors import MissingExtraError

for _package in ("torch", "transformers", "peft", "safetensors", "gguf"):
    if importlib.util.find_spec(_package) is None:
        raise MissingExtraError(_package, "hf")

from forwardscope.backends.hf.sources import ModelSource, load_backend  # noqa: E402 - after it

if TYPE_CHECKING:
    from forwardscope.backends.hf.backend import HFBackend
    from forwardscope.backends.hf.pair import HFPairBackend
    from forwardscope.backends.hf.shared_base import SharedBase

__all__ = ["HFBackend", "HFPairBackend", "ModelSource", "SharedBase", "load_backend"]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Import a backend's class, and with it torch, when it is used."""
        modules = {"HFBackend": "backend", "HFPairBackend": "pair", "SharedBase": "shared_base"}
        if name not in modules:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = importlib.import_module(f"{__name__}.{modules[name]}")
        return getattr(module, name)
