"""The change that the open view has made to a model's weights, and its undoing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from forwardscope.backends.hf.weight_changes import state_of
from forwardscope.errors import ViewError

__all__ = ["AppliedChange", "Change"]

#: Makes a change of a model's weights, as a context manager.
Change = Callable[[Any], AbstractContextManager[object]]


class AppliedChange:
    """Changes a model's weights for one view at a time.

    An interrupt can come at any moment of a change or of its undoing. What it left is
    undone before the next change, and the weights are then compared with those that
    were loaded: if they differ, no view computes anything any more. Not thread-safe:
    callers hold `Forward.lock`.

    Args:
        model: The model, with no change applied.

    Attributes:
        owner: Whose change is applied; None without one, and where an interrupt came.
    """

    def __init__(self, model: Any) -> None:
        self._loaded = state_of(model)
        self._undo = ExitStack()
        self.owner: object | None = None

    def apply(self, owner: object, model: Any, change: Change) -> None:
        """Undo the change that is applied, if there is one, and apply that of an owner.

        Raises:
            ViewError: An interrupt left the weights changed.
        """
        self.undo()
        self.check(model)
        self._undo.enter_context(change(model))
        self.owner = owner

    def undo(self) -> None:
        """Undo the change that is applied, if there is one."""
        self.owner = None
        self._undo.close()

    def check(self, model: Any) -> None:
        """Check that the weights are as they were loaded.

        Raises:
            ViewError: They are not.
        """
        if state_of(model) != self._loaded:
            raise ViewError(
                "the weights are not as they were loaded, because an interrupt came while a view "
                "changed them or because the model was changed elsewhere; load it again"
            )
