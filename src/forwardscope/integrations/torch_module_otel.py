"""OpenTelemetry instrumentation of transformers' models, for `opentelemetry-instrument`.

    opentelemetry-instrument --traces_exporter console python script.py

Each call of a `PreTrainedModel` and of `generate` that is not made by another one has a lookup
span with a forward span below it, and is counted. Nothing is cached, and nothing of arguments
or results is in the spans but how many tokens there are.
"""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable, Collection
from itertools import count
from typing import Any, Final

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor
from wrapt import register_post_import_hook

from forwardscope.core.single_flight import Flight
from forwardscope.instrumentation import BackendInstrumentation

__all__ = ["TorchInstrumentor"]

#: Module, class, method and name of what is instrumented.
_METHODS: Final = (
    ("transformers.modeling_utils", "PreTrainedModel", "__call__", "forward"),
    ("transformers.generation.utils", "GenerationMixin", "generate", "generate"),
)


class TorchInstrumentor(BaseInstrumentor):
    """Spans and counts of the calls of transformers' models.

    It imports neither torch nor transformers; their classes are changed once a program
    imports them.

        TorchInstrumentor().instrument(tracer_provider=provider, registry=REGISTRY)

    `instrument` takes `tracer_provider` (by default the global one), `name` (the backend's,
    by default `transformers`) and `registry` (of prometheus_client, where the counts are to be
    scraped; by default they are on none).

    Attributes:
        instrumentation: Has the counts; None before `instrument` and after `uninstrument`.
    """

    instrumentation: BackendInstrumentation | None = None

    def instrumentation_dependencies(self) -> Collection[str]:
        """Return the packages that are instrumented."""
        return ("transformers >= 5.8",)

    def _instrument(self, **kwargs: Any) -> None:
        instrumentation = BackendInstrumentation(
            name=kwargs.get("name", "transformers"),
            cache_enabled=False,
            tracer_provider=kwargs.get("tracer_provider"),
        )
        self._registry = kwargs.get("registry")
        if self._registry is not None:
            from forwardscope.telemetry import register  # noqa: PLC0415 - only where asked for

            register(instrumentation, self._registry)
        self.instrumentation = instrumentation
        self._undo: list[Callable[[], None]] = []
        for module, owner, method, op in _METHODS:
            hook = functools.partial(self._imported, instrumentation, owner, method, op)
            register_post_import_hook(hook, module)

    def _imported(
        self, instrumentation: BackendInstrumentation, owner: str, method: str, op: str, module: Any
    ) -> None:
        """Change a class of a module that has been imported."""
        if self.instrumentation is not instrumentation:  # uninstrumented meanwhile
            return
        found = getattr(module, owner, None)
        if hasattr(found, method):
            self._undo.append(_replace(found, method, op, instrumentation))
        else:
            warnings.warn(f"no {owner}.{method} in this transformers", RuntimeWarning, stacklevel=2)

    def _uninstrument(self, **kwargs: Any) -> None:  # noqa: ARG002 - it is its API
        instrumentation, self.instrumentation = self.instrumentation, None
        for undo in self._undo:
            undo()
        if instrumentation is not None:
            if self._registry is not None:
                from forwardscope.telemetry import unregister  # noqa: PLC0415 - as above

                unregister(instrumentation, self._registry)
            instrumentation.close()


def _replace(
    owner: Any, name: str, op: str, instrumentation: BackendInstrumentation
) -> Callable[[], None]:
    """Instrument a method of a class; return what undoes it."""
    own, original, numbers = name in vars(owner), getattr(owner, name), count(1)

    @functools.wraps(original)
    def method(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        torch: Any = sys.modules["torch"]
        if torch.compiler.is_compiling() or Flight.current() is not None:  # inside another call
            return original(self, *args, **kwargs)

        def compute() -> Any:
            instrumentation.report_tokens([_tokens(args, kwargs)])
            return original(self, *args, **kwargs)

        view = type(self).__name__.replace("_", "-")
        # a number, so that no call is shown as a repetition of another
        return instrumentation.uncached(op, view, f"call {next(numbers)}", 0, compute)

    def undo() -> None:
        if own:
            setattr(owner, name, original)
        else:
            delattr(owner, name)

    setattr(owner, name, method)
    return undo


def _tokens(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
    """Return the number of input tokens, padding included; None where it is not known."""
    ids: Any = kwargs.get("input_ids", args[0] if args else None)
    return ids.numel() if hasattr(ids, "numel") and not ids.is_floating_point() else None
