"""What a forked child makes anew: locks that a lost thread may hold, and its work."""

from __future__ import annotations

import os
import weakref
from functools import cache
from typing import Protocol, runtime_checkable

__all__ = ["Forkable", "Pausable", "reset_in_children"]


class Forkable(Protocol):
    """Holds a lock or a thread that a forked child cannot use."""

    def after_fork(self) -> None:
        """Make them anew, in the child's only thread."""
        ...


@runtime_checkable
class Pausable(Forkable, Protocol):
    """Uses a library with locks of its own, which no thread may hold at a fork."""

    def pause(self) -> None:
        """Wait, for a bounded time, until no thread is in the library, and keep it so."""
        ...

    def resume(self) -> None:
        """Let threads into the library again, in the parent."""
        ...


def reset_in_children(one: Forkable) -> None:
    """Call `after_fork` of an object in each forked child, for as long as the object lives.

    A `Pausable` is paused meanwhile.
    """
    _register()
    _alive.add(one)


_alive: weakref.WeakSet[Forkable] = weakref.WeakSet()


@cache
def _register() -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_pause, after_in_parent=_resume, after_in_child=_reset)


def _pause() -> None:
    for one in list(_alive):
        if isinstance(one, Pausable):
            one.pause()


def _resume() -> None:
    for one in list(_alive):
        if isinstance(one, Pausable):
            one.resume()


def _reset() -> None:
    for one in list(_alive):
        one.after_fork()
