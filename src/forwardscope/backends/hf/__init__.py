"""Backends for transformers models: with a PEFT LoRA adapter, or a base and its full fine-tune.

They are the only backends that import torch.
Requires the extra `hf`.
"""

import importlib.util

from forwardscope.errors import MissingExtraError

for _package in ("torch", "transformers", "peft", "safetensors", "gguf"):
    if importlib.util.find_spec(_package) is None:
        raise MissingExtraError(_package, "hf")

from forwardscope.backends.hf.backend import HFBackend  # noqa: E402 - after the check above
from forwardscope.backends.hf.loading import ModelSource, load_backend  # noqa: E402
from forwardscope.backends.hf.pair import HFPairBackend  # noqa: E402

__all__ = ["HFBackend", "HFPairBackend", "ModelSource", "load_backend"]
