"""Compare the model that a config describes with the weights in its files.

transformers builds what a config describes before it finds that the files lack it, which
can take all memory, or for ever.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

import torch
import transformers
from safetensors import safe_open

from forwardscope.backends.hf.gguf_header import read_shapes
from forwardscope.backends.hf.model_files import ModelFiles
from forwardscope.errors import ModelError

__all__ = ["check_size"]

#: Endings of the names of settings that are numbers of modules.
_COUNTS: Final = ("layer", "layers", "experts")
#: Weights in a model for each number in its files: 4-bit weights are packed by eight.
_PACKED: Final = 8
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
    most = max(len(shapes), max((size for shape in shapes for size in shape), default=0))
    for key, value in _settings(config.to_dict()):
        if key.endswith(_COUNTS) and isinstance(value, int) and value > most:
            raise ModelError(
                f"the config of model {files.name} has {key} {value}, and its files have "
                f"{len(shapes)} tensors; is the config of another model?"
            )
    stored = sum(map(math.prod, shapes))
    described = _weights(config)
    if described > _PACKED * stored + _FREE:
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
        return sum(weight.numel() for weight in model.parameters())
    return 0


def _settings(value: object) -> Iterator[tuple[str, object]]:
    for key, part in value.items() if isinstance(value, Mapping) else ():
        yield str(key), part
        yield from _settings(part)
