"""Test doubles for programs that use forwardscope, and for its own tests.

`ScriptedBackend` is a complete backend without a model. It has the same views, cache
and counts, and takes logits from your function or from a fixed pseudo-random one. It
needs neither torch nor a file.

`MemoryStore` is a store that lasts as long as the object.

`InMemoryTelemetry` collects spans and metrics as plain data. Its clock advances at each
reading, and its ids are the same in every run. It needs the extra `otel`.
"""

from forwardscope.testing.scripted import ScriptedBackend, ScriptedView, pseudo_random_logits
from forwardscope.testing.store import MemoryStore
from forwardscope.testing.telemetry import InMemoryTelemetry, SeenSpan, StepClock

__all__ = [
    "InMemoryTelemetry",
    "MemoryStore",
    "ScriptedBackend",
    "ScriptedView",
    "SeenSpan",
    "StepClock",
    "pseudo_random_logits",
]
