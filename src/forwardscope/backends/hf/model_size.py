"""Compare the model that a config describes with the weights in its files.

transformers builds what a config describes before it finds that the files lack it, which
can take all memory, or for ever.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from typing import Any, Final

import torch
import transformers
from safetensors import safe_open

from forwardscope.backends.hf.gguf_header import read_shapes
from forwardscope.backends.hf.model_files import ModelFiles, all_settings
from forwardscope.errors import ModelError

__all__ = ["check_size"]

#: Settings that are numbers of modules. A layer has a tensor at least, experts may share one.
_LAYERS: Final = frozenset(
    ("num_hidden_layers", "num_layers", "n_layer", "n_layers", "encoder_layers", "decoder_layers")
)
_EXPERTS: Final = frozenset(
    ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
)
#: Weights in a model for each number in its files: buffers are in none, and a quantised model
#: has up to sixteen in one, and its scales beside them.
_PLAIN: Final = 2
_PACKED: Final = 32
#: Weights that a model may have without any in its files, such as tied ones.
_FREE: Final = 1 << 24


def check_size(files: ModelFiles) -> None:
    """Check that a config does not describe a much larger model than the files have.

    Raises:
        ModelError: It does.
        Exception: What the libraries raise for a config or a file that they cannot read.
    """
    shapes = list(_shapes(files))
    if not shapes:  # loading it reports that there are no weights
        return
    config = transformers.AutoConfig.from_pretrained(
        str(files.folder), trust_remote_code=False, **files.options
    )
    largest = max((size for shape in shapes for size in shape), default=0)
    for key, value in all_settings(config.to_dict()):
        most = len(shapes) if key in _LAYERS else max(len(shapes), largest)
        if key in _LAYERS | _EXPERTS and isinstance(value, int) and value > most:
            raise ModelError(
                f"the config of model {files.name} has {key} {value}, and its files have "
                f"{len(shapes)} tensors; is the config of another model?"
            )
    stored = sum(map(math.prod, shapes))
    described = _weights(config)
    factor = _PACKED if getattr(config, "quantization_config", None) else _PLAIN
    if described > factor * stored + _FREE:
        raise ModelError(
            f"the config of model {files.name} describes {described} weights, and its files have "
            f"{stored}; is the config of another model?"
        )


def _shapes(files: ModelFiles) -> Iterator[tuple[int, ...]]:
    for path in files.weights:
        if path.suffix == ".gguf":
            yield from read_shapes(path)
        elif path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as opened:
                for key in opened.keys():  # noqa: SIM118 - not a mapping
                    yield tuple(opened.get_slice(key).get_shape())


def _weights(config: Any) -> int:
    """Return the number of weights of a model, without allocating them; 0 if that fails."""
    with suppress(Exception), torch.device("meta"):  # loading it reports the failure
        model = transformers.AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        return sum(one.numel() for one in chain(model.parameters(), model.buffers()))
    return 0
