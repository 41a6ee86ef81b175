"""Public names and signatures, and an import without side effects."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from importlib.metadata import version

import forwardscope
from forwardscope import BackendInstrumentation, BackendStats, ForwardCache, TraceEvent, TraceWriter

_HEAVY = (
    "numpy",
    "opentelemetry.sdk",
    "prometheus_client",
    "pydantic",
    "rich",
    "torch",
    "transformers",
    "typer",
)
_IMPORT = """
import json, logging, sys, threading
logging_before = (logging.root.level, list(logging.root.handlers))
import forwardscope
print(json.dumps({
    "modules": sorted(sys.modules),
    "threads": threading.active_count(),
    "logging": (logging.root.level, list(logging.root.handlers)) == logging_before,
}))
"""


def test_public_names_are_sorted_and_exist() -> None:
    """`__all__` has each name once, constants before classes; each can be imported."""
    names = forwardscope.__all__
    assert names == sorted(set(names), key=lambda name: (not name.isupper(), name))
    assert [name for name in names if not hasattr(forwardscope, name)] == []


def test_names_of_the_contract_are_public() -> None:
    """The names that other programs call are public."""
    assert set(forwardscope.__all__) >= {
        "MISS",
        "BackendInstrumentation",
        "BackendStats",
        "ForwardCache",
        "TraceEvent",
        "TraceWriter",
    }


def test_the_version_is_that_of_the_package() -> None:
    """`__version__` is the installed version; other names that do not exist are errors."""
    assert forwardscope.__version__ == version("forwardscope")
    assert not hasattr(forwardscope, "__author__")


def test_import_has_no_side_effects() -> None:
    """It loads no heavy package, starts no thread, configures no logging and prints nothing."""
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", _IMPORT],
        capture_output=True,
        text=True,
        check=True,
    )
    seen = json.loads(ran.stdout)
    assert "forwardscope" in seen["modules"]
    assert [name for name in _HEAVY if name in seen["modules"]] == []
    assert (seen["threads"], seen["logging"], ran.stderr) == (1, True, "")


def test_trace_event_takes_eight_values_by_position() -> None:
    """They are in the order of the line; optional keys are absent."""
    event = TraceEvent(1.5, "probe", "base", "aaf4c61ddcc5", 8, "op", 2.5, True)
    assert event.to_dict() == {
        "ts": 1.5,
        "probe": "probe",
        "view_id": "base",
        "prompt_hash": "aaf4c61ddcc5",
        "top_k": 8,
        "op": "op",
        "wall_ms": 2.5,
        "hit": True,
    }


def test_backend_stats_take_seven_values_by_position() -> None:
    """They are in the order of the contract."""
    stats = BackendStats(1, 2, 3, 4.0, 5, 6, 7)
    assert (stats.cache_hits, stats.cache_misses, stats.forward_passes) == (1, 2, 3)
    assert stats.scoring_wall_s == 4.0
    assert (stats.batches_sent, stats.batched_prompts, stats.max_batch_size) == (5, 6, 7)


def _parameters(function: object) -> dict[str, object]:
    """Return names and defaults; a star marks a keyword-only parameter."""
    parameters = inspect.signature(function).parameters.values()  # type: ignore[arg-type]
    return {
        ("*" if each.kind is each.KEYWORD_ONLY else "") + each.name: each.default
        for each in parameters
    }


def test_signatures_of_the_contract() -> None:
    """Each constructor and method takes the arguments of the contract, in their order."""
    assert _parameters(ForwardCache) == {"maxsize": 256, "*max_bytes": None, "*sizeof": None}
    assert list(_parameters(TraceWriter)) == ["path"]
    assert (
        _parameters(BackendInstrumentation).items()
        >= {
            "*cache_maxsize": 256,
            "*trace_path": None,
            "*cache_max_bytes": None,
            "*name": "default",
            "*tracer_provider": None,
            "*span_budget": 2000,
        }.items()
    )
    cached = ["self", "op", "view_id", "prompt", "top_k", "compute"]
    assert list(_parameters(BackendInstrumentation.cached)) == cached
    batch = ["self", "op", "view_id", "prompts", "top_k", "compute_misses", "*probes"]
    assert list(_parameters(BackendInstrumentation.cached_batch)) == batch
    assert list(_parameters(BackendInstrumentation.set_current_probe)) == ["self", "name"]
    assert list(_parameters(BackendInstrumentation.close)) == ["self"]
    assert list(_parameters(ForwardCache.get)) == ["self", "key"]
    assert list(_parameters(ForwardCache.put)) == ["self", "key", "value"]
    assert list(_parameters(TraceWriter.write)) == ["self", "event"]
