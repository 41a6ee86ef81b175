"""Views of dlm-sway's backends whose lookups are made through our instrumentation.

dlm-sway's own instrumentation keeps a hash of each prompt, joins prompt and completion so
that different pairs can be equal, and rounds the scale of a scaled view to two digits. Here
the key is exact: the op, all its arguments, and the arguments with which the view was opened.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, Final, TypeVar

from dlm_sway.backends.two_model import TwoModelDifferential
from dlm_sway.core import scoring

from forwardscope.backends import values
from forwardscope.backends.views import BASE, DEFAULT_INIT_SCALE, FINETUNED
from forwardscope.core.keys import fold_strings
from forwardscope.core.single_flight import Flight
from forwardscope.errors import UserError
from forwardscope.instrumentation import BackendInstrumentation
from forwardscope.integrations.replaced import replaced

__all__ = ["PassedThrough", "WatchedView", "null_id", "scaled_id", "sides_of", "watched"]

T = TypeVar("T")

#: Returns the exact id of a view for the arguments with which it is opened.
ViewId = Callable[..., str]
#: A backend of dlm-sway that holds a model, and the ids of its views by opening method.
Side = tuple[Any, Mapping[str, ViewId]]

values.register_alike("dlm_sway.TokenDist", scoring.TokenDist, values.TokenDist)
values.register_alike("dlm_sway.RollingLogprob", scoring.RollingLogprob, values.RollingLogprob)


class WatchedView:
    """A view of dlm-sway that is cached, counted and traced.

    Attributes and methods other than those that call the model are those of the view.

    Args:
        view: The view.
        view_id: Its exact id.
        instrumentation: Where its lookups are made.
    """

    def __init__(self, view: Any, view_id: str, instrumentation: BackendInstrumentation) -> None:
        self._view: Final = view
        self._view_id: Final = view_id
        self._inst: Final = instrumentation

    def __getattr__(self, name: str) -> Any:
        if name == "_view":  # of an object that is not initialised
            raise AttributeError(name)
        return getattr(self._view, name)

    def next_token_dist(self, prompt: str, *, top_k: int = 256) -> scoring.TokenDist:
        """Return the distribution of the token after a prompt."""

        def compute() -> scoring.TokenDist:
            return self._view.next_token_dist(prompt, top_k=top_k)

        return self._inst.cached("next_token_dist", self._view_id, prompt, top_k, compute)

    def rolling_logprob(self, text: str) -> scoring.RollingLogprob:
        """Return the log-probability of each token of a text."""

        def compute() -> scoring.RollingLogprob:
            return self._view.rolling_logprob(text)

        return self._inst.cached("rolling_logprob", self._view_id, text, 0, compute)

    def logprob_of(self, prompt: str, completion: str) -> float:
        """Return the summed log-probability of a completion."""

        def compute() -> float:
            return float(self._view.logprob_of(prompt, completion))

        pair = fold_strings(prompt, completion)
        return self._inst.cached("logprob_of", self._view_id, pair, 0, compute)

    def generate(self, prompt: str, **settings: Any) -> str:
        """Return a text; one that is drawn at random is never answered from the cache."""

        def compute() -> str:
            return str(self._view.generate(prompt, **settings))

        look_up = self._inst.uncached if settings.get("temperature") else self._inst.cached
        arguments = json.dumps([prompt, settings], sort_keys=True, ensure_ascii=False)
        return look_up("generate", self._view_id, arguments, 0, compute)


class PassedThrough:
    """Takes the place of dlm-sway's instrumentation in a backend, and keeps nothing.

    The lookups of a `WatchedView` have been counted when they come here. Others, such as those
    of a backend that checks itself, are counted, and never answered from the cache.
    """

    def __init__(self, instrumentation: BackendInstrumentation) -> None:
        self._inst: Final = instrumentation
        self.stats: Final = instrumentation.stats
        self.cache: Final = instrumentation.cache
        self.trace: Final = instrumentation.trace

    def set_current_probe(self, name: str | None) -> None:
        """Label later lookups."""
        self._inst.set_current_probe(name)

    def cached(self, op: str, view_id: str, prompt: str, top_k: int, compute: Callable[[], T]) -> T:
        """Return what `compute` returns."""
        if Flight.current() is not None:
            return compute()
        return self._inst.uncached(op, view_id, prompt, top_k, compute)

    def close(self) -> None:
        """Do nothing: the run closes its instrumentation."""


@contextmanager
def watched(backend: Any, instrumentation: BackendInstrumentation) -> Iterator[None]:
    """Have all views that a backend opens make their lookups through an instrumentation.

    Raises:
        UserError: The backend's methods cannot be replaced.
    """
    with ExitStack() as undo:
        for side, view_ids in sides_of(backend):
            if not hasattr(side, "__dict__"):
                raise UserError(
                    f"the backend {type(side).__name__} cannot be instrumented, because its class "
                    "has __slots__; add __dict__ to them"
                )
            for name, view_id in view_ids.items():
                if hasattr(side, name):
                    opened = _opener(getattr(side, name), view_id, instrumentation)
                    undo.enter_context(replaced(side, name, opened))
            if hasattr(side, "_inst"):
                own = PassedThrough(instrumentation)
                undo.enter_context(replaced(side, "_inst", own))
        yield


def sides_of(backend: Any) -> list[Side]:
    """Return the backends that hold the models: one, or two where each has one of its own.

    Then the views that only a check of dlm-sway opens have ids of their own.
    """
    if isinstance(backend, TwoModelDifferential):
        return [
            (backend._base, _ids(BASE, "base_ft", BASE)),
            (backend._ft, _ids("ft_base", FINETUNED, FINETUNED)),
        ]
    return [(backend, _ids(BASE, FINETUNED))]


def scaled_id(lam: float) -> str:
    """Return the id of a scaled view; different scales have different ids."""
    return f"scaled_{float(lam)!r}"


def null_id(seed: int, *, init_scale: float = DEFAULT_INIT_SCALE, rank_scale: float = 1.0) -> str:
    """Return the id of a null view; it has a scale only where that is not the default."""
    init = "" if init_scale == DEFAULT_INIT_SCALE else f"_init{float(init_scale)!r}"
    rank = "" if rank_scale == 1.0 else f"_rank{float(rank_scale)!r}"
    return f"null_{seed}{init}{rank}"


def _ids(base: str, tuned: str, side: str = "") -> Mapping[str, ViewId]:
    """Return the ids of a side's views by opening method; `side` marks those of one of two."""
    mark = f"_of_{side}" if side else ""
    return {
        "as_base": lambda: base,
        "as_finetuned": lambda: tuned,
        "as_scaled_adapter": lambda lam: f"{scaled_id(lam)}{mark}",
        "as_null_adapter": lambda seed, **scales: f"{null_id(seed, **scales)}{mark}",
    }


def _opener(
    open_view: Callable[..., AbstractContextManager[Any]],
    view_id: ViewId,
    instrumentation: BackendInstrumentation,
) -> Callable[..., AbstractContextManager[WatchedView]]:
    @contextmanager
    def opened(*given: Any, **settings: Any) -> Iterator[WatchedView]:
        with open_view(*given, **settings) as view:
            yield WatchedView(view, view_id(*given, **settings), instrumentation)

    return opened
