"""Which device torch would use here."""

from __future__ import annotations

import torch

__all__ = ["best_device", "describe_device"]


def best_device() -> torch.device:
    """Return cuda where there is one, else mps, else the cpu."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def describe_device() -> str:
    """Return the device and what it is, for a person."""
    device = best_device()
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    if device.type == "mps":
        return "mps"
    return f"cpu ({torch.get_num_threads()} threads)"
