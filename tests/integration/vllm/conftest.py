"""A real vLLM on the CPU, with the demo's model and adapter.

`make e2e-vllm` sets FORWARDSCOPE_VLLM to the command `vllm` of its environment.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from forwardscope.backends.hf.demo_model import demo_adapter, demo_model

_START_S = 600.0
#: vLLM's CPU build fails at prompt_logprobs where lm_head may have an adapter.
_MODULES = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")


@dataclass(frozen=True)
class Vllm:
    """A vLLM that runs.

    Attributes:
        url: URL of its API.
        model: Folder of its model `base`.
        adapter: Folder of its adapter `ft`.
        process: The process, which has a group of its own.
    """

    url: str
    model: Path
    adapter: Path
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """End it at once, with all its processes."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="session")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vllm]:
    command = os.environ.get("FORWARDSCOPE_VLLM")
    if command is None:
        pytest.skip("make e2e-vllm runs these tests")
    model = demo_model(lambda *_: None)
    adapter = demo_adapter(model, lambda *_: None)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = [
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--served-model-name", "base", "--lora-modules", f"ft={adapter}"),
        *("--dtype", "float32", "--max-model-len", "2048", "--max-logprobs", "512"),
        *("--enforce-eager", "--enable-lora", "--max-lora-rank", "8"),
        *("--lora-target-modules", *_MODULES),
    ]
    variables = {
        "VLLM_CPU_KVCACHE_SPACE": "2",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
    }
    log = tmp_path_factory.mktemp("vllm") / "log.txt"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [command, "serve", str(model), *options],
            env={**os.environ, **variables},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    started = Vllm(f"http://127.0.0.1:{port}/v1", model, adapter, process)
    try:
        _wait(started, log)
        yield started
    finally:
        started.kill()


def _wait(started: Vllm, log: Path) -> None:
    end = time.monotonic() + _START_S
    while time.monotonic() < end and started.process.poll() is None:
        with suppress(httpx.HTTPError):
            httpx.get(f"{started.url}/models", timeout=5).raise_for_status()
            return
        time.sleep(1)
    raise AssertionError(f"vLLM did not start: {log.read_text(errors='replace')[-3000:]}")
