"""Records and trace files for tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from forwardscope import TraceEvent
from forwardscope.trace.writer import line_of

MakeEvent = Callable[..., TraceEvent]


@pytest.fixture
def event() -> MakeEvent:
    """Return a function that creates records, by default a forward pass of 100 ms."""

    def make(prompt: str = "a", *, hit: bool = False, **more: Any) -> TraceEvent:
        fixed = {
            "ts": 1.0,
            "probe": "p",
            "view_id": "base",
            "prompt_hash": prompt,
            "top_k": 8,
            "op": "next_token_dist",
            "wall_ms": 0.01 if hit else 100.0,
            "hit": hit,
        }
        return TraceEvent(**fixed | more)

    return make


@pytest.fixture
def trace_file(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes records into a file."""

    def write(*events: TraceEvent, name: str = "trace.jsonl") -> Path:
        path = tmp_path / name
        path.write_bytes(b"".join(line_of(one) for one in events))
        return path

    return write
