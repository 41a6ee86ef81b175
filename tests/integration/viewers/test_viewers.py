"""A run of the demo in Phoenix and in MLflow: what their APIs return, and what they draw."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from ..servers.processes import get, until
from .conftest import Run

pytestmark = pytest.mark.timeout(1200)

_BROWSER = ("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars")
_WINDOW = ("--window-size=1400,900", "--virtual-time-budget=30000")
#: A page without a trace is smaller.
_DRAWN_BYTES = 40_000
_PROBES = ["finite_check", "baseline", "change", "response", "long-context"]


@dataclass(frozen=True)
class Span:
    """A span as a viewer's API returns it.

    Attributes:
        name: Its name.
        is_model_call: Whether the viewer takes it for a call of a language model.
        tokens: Its prompt tokens, where the viewer has a number.
        model: Its model, likewise.
        id: Its id, where it has an address of its own.
    """

    name: str
    is_model_call: bool
    tokens: int | None
    model: str | None
    id: str = ""


def _phoenix_spans(run: Run) -> list[Span]:
    def pages() -> Iterator[dict[str, Any]]:
        cursor: str | None = ""
        while cursor is not None:
            url = f"{run.url}/v1/projects/default/spans?trace_id={run.trace_id}&limit=100"
            page = json.loads(get(f"{url}&cursor={quote(cursor)}" if cursor else url))
            yield from page["data"]
            cursor = page["next_cursor"]

    return [
        Span(
            one["name"],
            one["span_kind"] == "LLM",
            one["attributes"].get("llm.token_count.prompt"),
            one["attributes"].get("llm.model_name"),
            one["context"]["span_id"],
        )
        for one in pages()
    ]


def _mlflow_spans(run: Run) -> list[Span]:
    path = f"ajax-api/3.0/mlflow/traces/get?trace_id=tr-{run.trace_id}"
    found = json.loads(get(f"{run.url}/{path}"))["trace"]["spans"]
    spans = []
    for one in found:
        values = {a["key"]: next(iter(a["value"].values())) for a in one["attributes"]}
        kind = str(values.get("mlflow.spanType", ""))
        tokens = values.get("gen_ai.usage.input_tokens")
        model = values.get("gen_ai.request.model")
        spans.append(Span(one["name"], "LLM" in kind, tokens and int(tokens), model))
    return spans


def _check(spans: list[Span], run: Run) -> None:
    """Check that each probe, each forward call as a model call, and its tokens arrived."""
    lookups = [one for one in spans if one.name.startswith("lookup ") and one.name[7:] != "batch"]
    assert len(lookups) == len(run.records) == run.result["reconciliation"]["lookups"]
    names = [one.name for one in spans if one.name.startswith("probe ")]
    assert sorted(names) == sorted(f"probe {name}" for name in _PROBES)
    calls = [one for one in spans if one.name.startswith("forward ")]
    assert [one for one in spans if one.is_model_call] == calls
    used = run.result["prompt_tokens"]
    assert sum(one.tokens or 0 for one in calls) == used["computed"] + used["reused"]
    assert {one.model for one in calls if one.name == "forward ft"} == {
        f"{run.result['adapter']} on {run.result['model']}"
    }


def _draw(url: str, picture: Path, profile: Path) -> None:
    """Draw a page into a file."""
    picture.unlink(missing_ok=True)
    options = [*_BROWSER, *_WINDOW, f"--user-data-dir={profile}", f"--screenshot={picture}"]
    subprocess.run([*options, url], check=True, capture_output=True, timeout=300)
    assert picture.stat().st_size > _DRAWN_BYTES


def test_phoenix(phoenix: Run, pictures: Path, tmp_path: Path) -> None:
    """Its probes are there, its forward calls are of kind LLM, and their tokens add up."""
    expected = phoenix.result["reconciliation"]["lookups"]
    spans = until(
        lambda: found if len(found := _phoenix_spans(phoenix)) > expected else None,
        "all spans are stored",
    )
    _check(spans, phoenix)
    longest = max((one for one in spans if one.is_model_call), key=lambda one: one.tokens or 0)
    _draw(f"{phoenix.url}/redirects/spans/{longest.id}", pictures / "phoenix.png", tmp_path)


def test_mlflow(mlflow: Run, pictures: Path, tmp_path: Path) -> None:
    """Its probes are there, its forward calls are model calls, and their tokens add up."""
    spans = until(lambda: _mlflow_spans(mlflow), "the trace is stored")
    _check(spans, mlflow)
    page = f"#/experiments/0/traces?selectedEvaluationId=tr-{mlflow.trace_id}"
    _draw(f"{mlflow.url}/{page}", pictures / "mlflow.png", tmp_path)
