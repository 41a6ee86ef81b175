"""Test doubles for programs that use forwardscope, and for its own tests.

`ScriptedBackend` is a whole backend without a model: same views, same cache,
same counts, with logits from a function of yours or from a fixed pseudo-random
one. It needs neither torch nor a file.

`InMemoryTelemetry` gathers spans and metrics as plain data, with a clock that
moves by itself and ids that are the same in every run. Its spans need the
extra `otel`.
"""

from forwardscope.testing.scripted import ScriptedBackend, ScriptedView, pseudo_random_logits
from forwardscope.testing.telemetry import InMemoryTelemetry, SeenSpan, StepClock

__all__ = [
    "InMemoryTelemetry",
    "ScriptedBackend",
    "ScriptedView",
    "SeenSpan",
    "StepClock",
    "pseudo_random_logits",
]
