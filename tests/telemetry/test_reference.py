"""The pages docs/telemetry.md and docs/library.md match the code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from forwardscope.telemetry import names
from forwardscope.telemetry.reference import reference

_ROOT = Path(__file__).parents[2]


def test_page_is_up_to_date() -> None:
    """`make docs` would change nothing."""
    assert (_ROOT / "docs" / "telemetry.md").read_text("utf-8") == reference()


def test_page_has_every_name_and_query() -> None:
    """It has all metrics, spans and attributes, and the PromQL of each metric."""
    page = reference()
    for metric in names.METRICS:
        assert f"| `{metric.name}` | {metric.kind} |" in page
        assert f"# {metric.name}\n{metric.example}\n" in page
    for span in names.SPANS:
        assert f"### {span.name}\n" in page
    for attribute in names.ATTRIBUTES:
        assert f"| `{attribute.name}` | {attribute.type} |" in page


def test_library_example(monkeypatch: pytest.MonkeyPatch) -> None:
    """It makes metrics, and lookup and forward spans below the span of the program."""
    memory = InMemorySpanExporter()

    class WatchedProvider(TracerProvider):
        def __init__(self) -> None:
            super().__init__(shutdown_on_exit=False)
            self.add_span_processor(SimpleSpanProcessor(memory))

    monkeypatch.setattr("opentelemetry.sdk.trace.TracerProvider", WatchedProvider)
    blocks = re.findall(
        r"```python\n(.*?)```", (_ROOT / "docs/library.md").read_text("utf-8"), re.DOTALL
    )
    (example,) = [block for block in blocks if "TracerProvider" in block]
    seen: dict[str, Any] = {}
    exec(compile(example, "library.md", "exec"), seen)  # noqa: S102 - our own page

    spans = {span.name: span for span in memory.get_finished_spans()}
    assert set(spans) == {"forward base", "lookup miss", "my-request"}
    lookup = spans["lookup miss"]
    assert lookup.parent is not None
    assert lookup.parent.span_id == spans["my-request"].context.span_id
    labels = {"backend": "scorer", "probe": "", "view": "base", "op": "next_token_dist"}
    value = seen["registry"].get_sample_value(names.FORWARD_PASSES.name, labels)
    assert value == 1.0
