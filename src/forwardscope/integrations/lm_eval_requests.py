"""Requests of lm-evaluation-harness: the keys of their answers, which come one by one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lm_eval.api.model import CacheHook

from forwardscope.instrumentation import BackendInstrumentation
from forwardscope.integrations.lm_eval_answers import fault_of, storable

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

__all__ = ["KeepingHook", "key_of"]


class KeepingHook(CacheHook):
    """Receives answers as a model computes them, and keeps each at once.

    Attributes:
        next: Receives them as well.
    """

    def __init__(self, instrumentation: BackendInstrumentation) -> None:
        super().__init__(None)
        self.next: CacheHook | None = None
        self._inst = instrumentation
        self._op = ""
        self._positions: dict[str, int] = {}

    def expect(self, op: str, keys: Sequence[str]) -> None:
        """Begin a call of the model for requests with these keys."""
        self._op = op
        self._positions = {key: position for position, key in enumerate(keys)}

    def add_partial(self, attr: str, req: Iterable[Any], res: Any) -> None:
        """Keep one answer; not one that is not valid, with which the call is going to fail."""
        if (
            attr == self._op
            and fault_of(attr, res) is None
            and (key := _json(req)) in self._positions
        ):
            self._inst.keep(self._positions.pop(key), storable(attr, res))
        if self.next is not None:
            self.next.add_partial(attr, req, res)


def key_of(op: str, request: Instance, *, is_hflm: bool) -> str | None:
    """Return the exact content of a request; None where each answer is to be computed anew.

    That is where it is drawn at random, or repeated, or has content that
    is no text, such as an image.
    """
    if (request.repeats or 1) > 1:
        return None
    if op == "generate_until" and _may_be_sampled(request.args[1], is_hflm=is_hflm):
        return None
    return _json(request.args)


def _may_be_sampled(settings: Mapping[str, Any], *, is_hflm: bool) -> bool:
    """Return whether a text may be drawn at random; models behind APIs do not see `do_sample`."""
    if settings.get("do_sample") is False and is_hflm:
        return False
    return bool(settings.get("do_sample") or settings.get("temperature"))


def _json(content: Iterable[Any]) -> str | None:
    """Return content as JSON, in which texts are as they are: escapes would join surrogates."""
    try:
        return json.dumps(list(content), sort_keys=True, ensure_ascii=False)
    except (TypeError, ValueError):
        return None
