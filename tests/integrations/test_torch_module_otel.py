"""The instrumentation of transformers' models by OpenTelemetry's conventions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import torch
from prometheus_client import CollectorRegistry
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel
from transformers.generation import GenerationMixin

from forwardscope.testing import InMemoryTelemetry

pytest.importorskip(
    "opentelemetry.instrumentation.instrumentor", reason="opentelemetry-instrumentation is missing"
)

from forwardscope.integrations.torch_module_otel import TorchInstrumentor

_MODEL = """
import torch
from transformers import LlamaConfig, LlamaForCausalLM

model = LlamaForCausalLM(LlamaConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=1,
    num_attention_heads=2, num_key_value_heads=2, vocab_size=32)).eval()
ids = torch.arange(3, 9)[None]
"""
_SCRIPT = f"""{_MODEL}
with torch.no_grad():
    model(ids)
model.generate(ids, max_new_tokens=3, do_sample=False)
"""
_COMMAND = Path(sys.executable).parent / "opentelemetry-instrument"
_IDS = torch.arange(3, 9)[None]


@pytest.fixture
def model() -> LlamaForCausalLM:
    names: dict[str, Any] = {"LlamaConfig": LlamaConfig, "LlamaForCausalLM": LlamaForCausalLM}
    exec(_MODEL, names)  # noqa: S102 - what the script does too
    return names["model"]  # type: ignore[no-any-return]


@pytest.fixture
def instrumentor() -> Iterator[TorchInstrumentor]:
    instrumentor = TorchInstrumentor()
    yield instrumentor
    if instrumentor.is_instrumented_by_opentelemetry:
        instrumentor.uninstrument()


def _methods() -> list[Any]:
    return [PreTrainedModel.__call__, GenerationMixin.generate, "__call__" in vars(PreTrainedModel)]


def test_top_level_calls_have_spans_and_are_counted(
    instrumentor: TorchInstrumentor, model: LlamaForCausalLM
) -> None:
    """A generation is one call, and so is a forward; results and gradients are the model's."""
    telemetry = InMemoryTelemetry()
    expected = model(_IDS).logits
    instrumentor.instrument(tracer_provider=telemetry.tracer_provider)
    output = model(input_ids=_IDS, labels=_IDS)
    output.loss.backward()
    assert torch.equal(output.logits, expected)
    model.generate(_IDS, max_new_tokens=3, do_sample=False)
    instrumentation = instrumentor.instrumentation
    assert instrumentation is not None
    assert (instrumentation.stats.cache_hits, instrumentation.stats.forward_passes) == (0, 2)
    shown = [
        (
            one.name,
            one.attributes["forwardscope.op"],
            one.attributes.get("gen_ai.usage.input_tokens"),
        )
        for one in telemetry.spans()
    ]
    assert shown == [
        ("lookup miss", "forward", None),
        ("forward LlamaForCausalLM", "forward", 6),
        ("lookup miss", "generate", None),
        ("forward LlamaForCausalLM", "generate", 6),
    ]


def test_an_error_is_the_models_and_marks_the_span(
    instrumentor: TorchInstrumentor, model: LlamaForCausalLM
) -> None:
    """Its class is in the span, its message is not."""
    telemetry = InMemoryTelemetry()
    instrumentor.instrument(tracer_provider=telemetry.tracer_provider)
    with pytest.raises(IndexError):
        model(torch.tensor([[999]]))
    assert [one.status for one in telemetry.spans()] == ["error", "error"]
    assert {one.attributes["error.type"] for one in telemetry.spans()} == {"IndexError"}


def test_uninstrument_restores_the_classes(
    instrumentor: TorchInstrumentor, model: LlamaForCausalLM
) -> None:
    """The methods are those of before, and nothing more is counted."""
    before = _methods()
    instrumentor.instrument()
    instrumentation = instrumentor.instrumentation
    assert _methods() != before
    instrumentor.uninstrument()
    assert _methods() == before
    model(_IDS)
    assert instrumentation is not None
    assert instrumentation.stats.total_lookups == 0
    assert instrumentor.instrumentation is None


def test_classes_that_are_imported_after_uninstrument_stay_as_they_are() -> None:
    """The program may import transformers at any time."""
    code = (
        "from forwardscope.integrations.torch_module_otel import TorchInstrumentor\n"
        "TorchInstrumentor().instrument()\n"
        "TorchInstrumentor().uninstrument()\n"
        "from transformers import PreTrainedModel\n"
        "assert '__call__' not in vars(PreTrainedModel)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_counts_are_on_a_registry_only_if_one_is_given(
    instrumentor: TorchInstrumentor, model: LlamaForCausalLM
) -> None:
    """They are removed from it by `uninstrument`."""
    registry = CollectorRegistry()
    instrumentor.instrument(registry=registry, name="mine")
    model(_IDS)
    labels = {"backend": "mine", "probe": "", "view": "LlamaForCausalLM", "op": "forward"}
    name = "forwardscope_forward_passes_total"
    assert registry.get_sample_value(name, labels) == 1.0
    instrumentor.uninstrument()
    assert registry.get_sample_value(name, labels) is None


def test_compiled_models_are_not_changed(
    instrumentor: TorchInstrumentor, model: LlamaForCausalLM
) -> None:
    """What torch.compile traces is the model's own code."""
    expected = model(_IDS, use_cache=False).logits
    instrumentor.instrument()
    compiled = torch.compile(model, backend="eager")
    with torch.no_grad():
        assert torch.equal(compiled(_IDS, use_cache=False).logits, expected)


@pytest.fixture
def declared() -> None:
    """Skip a test where the installed package is older than its entry point."""
    found = entry_points(group="opentelemetry_instrumentor", name="forwardscope")
    if not found or not _COMMAND.exists():
        pytest.skip("opentelemetry-distro or the entry point is not installed")


@pytest.mark.usefixtures("declared")
def test_opentelemetry_instrument_finds_it(tmp_path: Path) -> None:
    """A script that knows nothing of this package has spans, without contents of its tensors."""
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT)
    spans = _spans(script)
    assert [(one["name"], one["attributes"]["forwardscope.op"]) for one in spans] == [
        ("forward LlamaForCausalLM", "forward"),
        ("lookup miss", "forward"),
        ("forward LlamaForCausalLM", "generate"),
        ("lookup miss", "generate"),
    ]


@pytest.mark.usefixtures("declared")
def test_opentelemetry_instrument_imports_nothing_heavy(tmp_path: Path) -> None:
    """A script without models starts without torch and transformers."""
    script = tmp_path / "script.py"
    script.write_text("import sys; assert not {'torch', 'transformers', 'numpy'} & {*sys.modules}")
    assert _spans(script) == []


def _spans(script: Path) -> list[dict[str, Any]]:
    ran = subprocess.run(
        [
            *(_COMMAND, "--traces_exporter", "console", "--metrics_exporter", "none"),
            *("--logs_exporter", "none", sys.executable, script),
        ],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONWARNINGS": "default"},
    )
    assert "Traceback" not in ran.stderr
    assert "forwardscope" not in ran.stderr
    decoder, text, spans = json.JSONDecoder(), ran.stdout.strip(), []
    while text:
        span, end = decoder.raw_decode(text)
        spans.append(span)
        text = text[end:].strip()
    return spans
