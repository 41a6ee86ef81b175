"""Fixtures that call the command line in this process, with a scripted model."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from forwardscope import BackendInstrumentation
from forwardscope.cli.app import app
from forwardscope.suite import SuiteSpec
from forwardscope.testing import ScriptedBackend, ScriptedView, pseudo_random_logits

from .viewer import Viewer, viewer

SUITE = """version: 1
model:
  path: some-model
  adapter: some-adapter
probes:
  - name: first
    kind: delta_kl
    prompts: [a, b]
    min_mean: 0.000001
  - name: second
    kind: delta_kl
    prompts: [b, c]
    min_mean: 0.000001
"""


_TIMEOUT_S = 60.0


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Call a command; exceptions other than SystemExit propagate."""
    for name, value in {"COLUMNS": "200", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)

    def call(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(one) for one in arguments], catch_exceptions=False)

    return call


@pytest.fixture
def error_of(invoke: Callable[..., Result]) -> Callable[..., str]:
    """Call a command that fails with exit status 2; return its one-line error message."""

    def call(*arguments: object) -> str:
        ran = invoke(*arguments)
        assert (ran.exit_code, ran.stdout) == (2, "")
        (line,) = ran.stderr.splitlines()
        assert line.startswith("error: ")
        return line.removeprefix("error: ")

    return call


@pytest.fixture
def suite_file(tmp_path: Path) -> Path:
    """A suite of two passing probes that share a prompt."""
    path = tmp_path / "suite.yaml"
    path.write_text(SUITE)
    return path


@pytest.fixture
def terminate() -> Callable[[BackendInstrumentation], None]:
    """Send SIGTERM to this process and return once a stop is requested."""

    def terminate(instrumentation: BackendInstrumentation) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        deadline = time.monotonic() + _TIMEOUT_S
        while not instrumentation.stopping:
            assert time.monotonic() < deadline, "no stop was requested"
            time.sleep(0.001)

    return terminate


@pytest.fixture
def loaded(
    monkeypatch: pytest.MonkeyPatch, terminate: Callable[[BackendInstrumentation], None]
) -> list[ScriptedBackend]:
    """Load scripted models from now on; the list collects them."""
    backends: list[ScriptedBackend] = []

    def script(view: ScriptedView, prompt: str) -> object:
        if prompt == "raise":
            raise RuntimeError("the model is gone")
        if prompt == "interrupt":
            raise KeyboardInterrupt
        if prompt == "terminate":
            terminate(backends[-1].instrumentation)
        return pseudo_random_logits(view, prompt)

    def load(
        spec: SuiteSpec, instrumentation: BackendInstrumentation, *_: object, check: bool = True
    ) -> ScriptedBackend:
        backends.append(
            ScriptedBackend(
                script, instrumentation=instrumentation, view_identity=lambda view_id: view_id
            )
        )
        return backends[-1]

    monkeypatch.setattr("forwardscope.cli.running._load", load)
    monkeypatch.setattr("forwardscope.cli.planned_store._load", load)
    return backends


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Viewer]:
    """Receive spans; no variable of the machine changes where they go."""
    for name in ("COMPRESSION", "HEADERS", "ENDPOINT", "TRACES_ENDPOINT"):
        monkeypatch.delenv(f"OTEL_EXPORTER_OTLP_{name}", raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "TRACEPARENT"):
        monkeypatch.delenv(name, raising=False)
    with viewer() as receiving:
        yield receiving
