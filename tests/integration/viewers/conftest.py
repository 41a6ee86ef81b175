"""Trace viewers from PyPI, each in an environment of its own, which `make e2e-ui` creates."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ..servers.processes import free_port, get, until

_ROOT = Path(__file__).parents[3]
_START_S = 180.0
_END_S = 20.0


@dataclass(frozen=True)
class Run:
    """A run of the demo whose spans a viewer received.

    Attributes:
        url: The viewer.
        trace_id: The run's trace.
        result: The run's result.
        records: The lines of its trace file.
    """

    url: str
    trace_id: str
    result: dict[str, Any]
    records: list[dict[str, Any]]


@pytest.fixture(scope="module")
def phoenix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Run the demo with Phoenix as the receiver."""
    folder, port = tmp_path_factory.mktemp("phoenix"), free_port()
    settings = {
        "PHOENIX_WORKING_DIR": str(folder),
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": str(port),
        "PHOENIX_GRPC_PORT": str(free_port()),
        "PHOENIX_TELEMETRY_ENABLED": "false",
    }
    command = [_program("PHOENIX", "phoenix"), "serve"]
    with _serving(command, settings, folder, f"http://127.0.0.1:{port}/healthz"):
        yield _demo(folder, f"http://127.0.0.1:{port}")


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Run the demo with MLflow as the receiver."""
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    command = [_program("MLFLOW", "mlflow"), "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    settings = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    with _serving(command, settings, folder, f"http://127.0.0.1:{port}/health"):
        headers = {"OTEL_EXPORTER_OTLP_HEADERS": "x-mlflow-experiment-id=0"}
        yield _demo(folder, f"http://127.0.0.1:{port}", headers)


@pytest.fixture(scope="session")
def pictures() -> Path:
    """Return the folder of the screenshots, which are overwritten."""
    folder = _ROOT / "build" / "viewers"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _program(variable: str, name: str) -> str:
    default = _ROOT / f".venv-{name}"
    found = Path(os.environ.get(variable, default), "bin", name)
    assert found.exists(), f"{found} is missing: make e2e-ui, or {variable}=ENVIRONMENT"
    return str(found)


@contextmanager
def _serving(
    command: list[str], settings: Mapping[str, str], folder: Path, ready: str
) -> Iterator[None]:
    """Run a server with all its processes in a group of its own, and end the group."""
    with Path(folder, "server.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **settings},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            until(lambda: get(ready) is not None, f"{command[0]} is ready", _START_S, 0.5)
            yield
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _demo(folder: Path, url: str, settings: Mapping[str, str] = {}) -> Run:
    """Run the demo with the model that `make demo` has stored."""
    command = [sys.executable, "-m", "forwardscope", "demo", "--otlp", url, "--quiet"]
    files = ["--trace", "t.jsonl", "--json", "r.json"]
    subprocess.run(
        [*command, *files],
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1", **settings},
        check=True,
    )
    result = json.loads((folder / "r.json").read_text())
    (delivery,) = result["delivery"]
    assert delivery["ok"], delivery
    records = [json.loads(line) for line in (folder / "t.jsonl").read_text().splitlines()]
    return Run(url, result["trace_id"], result, records)
