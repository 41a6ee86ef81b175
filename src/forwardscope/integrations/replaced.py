"""Attributes of another tool, replaced while it runs in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["replaced"]


@contextmanager
def replaced(place: Any, name: str, value: Any) -> Iterator[None]:
    """Replace an attribute of an object or a module for a while."""
    missing = name not in vars(place)
    before = None if missing else getattr(place, name)
    setattr(place, name, value)
    try:
        yield
    finally:
        if missing:
            delattr(place, name)
        else:
            setattr(place, name, before)
