"""Base weights that an adapter's file has its own values of.

PEFT saves the embeddings beside the adapter where LoRA adapts them or where the
vocabulary was resized, and loads them into the base model. The tuned model has
the adapter's values and the base its own, so both are kept: the adapter's in the
parameters, as PEFT leaves them, and the base's in buffers of the PEFT model,
which move to a device with it.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from peft import PeftModel

from forwardscope.errors import AdapterError

__all__ = ["carry", "own_values"]

_PREFIX = "own_value_of:"


def carry(model: PeftModel, name: str, value: torch.Tensor) -> None:
    """Set a base parameter to the adapter's value and keep its own value.

    A value equal to the parameter's own changes nothing.

    Args:
        model: The model with its adapter.
        name: Name of the parameter in `model`.
        value: The adapter's value; it is cast to the parameter's dtype.

    Raises:
        AdapterError: The value has another shape.
    """
    parameter = model.get_parameter(name)
    if value.shape != parameter.shape:
        raise AdapterError(
            f"the adapter's {name} has shape {tuple(value.shape)} and the model's "
            f"{tuple(parameter.shape)}; was it trained on another model?"
        )
    value = value.to(parameter.device, parameter.dtype)
    if torch.equal(value, parameter):
        return
    buffer = _PREFIX + name.replace(".", "/")  # a buffer's name has no dot
    if all(parameter is not other for other, _ in own_values(model)):  # not tied to an earlier one
        model.register_buffer(buffer, parameter.data)
    parameter.data = value


def own_values(model: torch.nn.Module) -> Iterator[tuple[torch.nn.Parameter, torch.Tensor]]:
    """Yield each parameter that `carry` changed, with the base's own value."""
    for name, value in model.named_buffers(recurse=False):
        if name.startswith(_PREFIX):
            yield model.get_parameter(name.removeprefix(_PREFIX).replace("/", ".")), value
