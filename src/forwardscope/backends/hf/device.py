"""Select and describe the torch device of this machine."""

from __future__ import annotations

import torch

__all__ = ["best_device", "describe_device"]


def best_device() -> torch.device:
    """Return cuda if available, else mps, else cpu."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def describe_device() -> str:
    """Return the device with its GPU name or thread count, as text for users."""
    device = best_device()
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    if device.type == "mps":
        return "mps"
    return f"cpu ({torch.get_num_threads()} threads)"
