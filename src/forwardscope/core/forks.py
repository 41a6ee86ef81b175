"""What a forked child makes anew: locks that a lost thread may hold, and its work."""

from __future__ import annotations

import os
import weakref
from functools import cache
from typing import Protocol

__all__ = ["Forkable", "reset_in_children"]


class Forkable(Protocol):
    """Holds a lock or a thread that a forked child cannot use."""

    def after_fork(self) -> None:
        """Make them anew, in the child's only thread."""
        ...


def reset_in_children(one: Forkable) -> None:
    """Call `after_fork` of an object in each forked child, for as long as the object lives."""
    _register()
    _alive.add(one)


_alive: weakref.WeakSet[Forkable] = weakref.WeakSet()


@cache
def _register() -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_reset)


def _reset() -> None:
    for one in list(_alive):
        one.after_fork()
