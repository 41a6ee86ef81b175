"""Which of two models is on the device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from forwardscope.backends.hf.load_errors import errors_as
from forwardscope.errors import ModelError

__all__ = ["Placement", "move"]


class Placement:
    """Keeps two models on a device, or one there and the other in the CPU's memory.

    Not thread-safe: callers hold the lock of both models.

    Args:
        models: The models, on the CPU.
        device: The device to compute on.
        one_at_a_time: Whether to keep one model on the device. By default that is
            decided by the device's memory.

    Raises:
        ModelError: A model cannot be moved to the device.

    Attributes:
        one_at_a_time: Whether one model is on the device at a time.
        moves: How often another model was moved there since.
    """

    def __init__(
        self, models: tuple[Any, Any], device: torch.device, one_at_a_time: bool = False
    ) -> None:
        self._models = models
        self._device = device
        self.one_at_a_time = one_at_a_time
        self.moves = 0
        first, second = models
        move(first, device)
        self._present = first
        if not one_at_a_time:
            try:
                move(second, device)
            except ModelError as error:
                if not isinstance(error.__cause__, torch.OutOfMemoryError):
                    raise
                self.one_at_a_time = True
                move(second, torch.device("cpu"))

    @contextmanager
    def of(self, model: Any) -> Iterator[None]:
        """Have a model on the device."""
        if self.one_at_a_time and self._present is not model:
            other = next(one for one in self._models if one is not model)
            self._present = None  # an interrupt leaves neither model in use
            move(other, torch.device("cpu"))
            move(model, self._device)
            self._present = model
            self.moves += 1
        yield


def move(model: Any, device: torch.device) -> None:
    """Move a model to a device.

    Raises:
        ModelError: It cannot be moved there.
    """
    with errors_as(ModelError, f"the model cannot be moved to device {device}"):
        model.to(device)
