"""A double of vLLM, a small adapter in files, and backends that ask the double.

With FORWARDSCOPE_RECORD=URL the double asks the vLLM there, and records what it answers; see
`make e2e-vllm`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from safetensors.numpy import save_file

from forwardscope import BackendInstrumentation
from forwardscope.backends.openai import ServedBackend, ServedSource, load_backend
from forwardscope.backends.openai.client import ServerClient
from forwardscope.backends.openai.retries import Retries
from forwardscope.backends.server_url import KEY_VARIABLE, ServerUrl

from .vllm_double import VllmDouble

#: Fast retries, so that tests of them take no time.
QUICK = Retries(attempts=4, first_s=0.01, longest_s=0.05, draw=lambda: 1.0)
_WIDTH = 576
_RANK = 4

OpenBackend = Callable[..., ServedBackend]


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask without the key and the proxy of whoever runs the tests."""
    for name in (KEY_VARIABLE, "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


def write_adapter(folder: Path, **config: Any) -> Path:
    """Write a LoRA adapter of one layer of SmolLM2-135M; its weights are not random."""
    folder.mkdir(parents=True)
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "SmolLM2-135M-Instruct",
        "r": _RANK,
        "lora_alpha": 8,
        "target_modules": ["q_proj"],
    }
    (folder / "adapter_config.json").write_text(json.dumps({**settings, **config}))
    layer = "base_model.model.model.layers.12.self_attn.q_proj"
    wave = np.sin(np.arange(_RANK * _WIDTH, dtype=np.float64) * 0.7).astype(np.float32) * 0.2
    factors = {
        f"{layer}.lora_A.weight": wave.reshape(_RANK, _WIDTH),
        f"{layer}.lora_B.weight": wave.reshape(_WIDTH, _RANK),
    }
    save_file(factors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return write_adapter(tmp_path / "adapters" / "tiny")


@pytest.fixture
def server(adapter: Path) -> Iterator[VllmDouble]:
    """Yield a double that runs, or one that records what a real vLLM answers."""
    upstream = os.environ.get("FORWARDSCOPE_RECORD")
    double = VllmDouble(adapter, upstream)
    tiny = {"lora_name": "tiny", "lora_path": str(adapter)}
    if upstream:
        httpx.post(f"{upstream}/v1/load_lora_adapter", json=tiny, timeout=300).raise_for_status()
    try:
        with double.running():
            yield double
    finally:
        if upstream:
            for name in ("tiny", *double.loaded):
                httpx.post(f"{upstream}/v1/unload_lora_adapter", json={"lora_name": name})
            double.record()


@pytest.fixture
def open_backend(server: VllmDouble) -> Iterator[OpenBackend]:
    """Open a backend of the double; settings are those of `ServedSource`."""
    with ExitStack() as closing:

        def opened(
            instrumentation: BackendInstrumentation | None = None,
            *,
            timeout_s: float = 300.0,
            retries: Retries = QUICK,
            check: bool = True,
            **settings: Any,
        ) -> ServedBackend:
            named = {"server": server.url, "name": "base", "adapter": "tiny"}
            source = ServedSource(**{**named, **settings})
            inst = instrumentation or BackendInstrumentation()
            client = ServerClient(
                ServerUrl.parse(server.url),
                timeout_s=timeout_s,
                retries=retries,
                stopping=lambda: inst.stopping,
            )
            backend = load_backend(source, instrumentation=inst, check=check, client=client)
            closing.callback(backend.close)
            return backend

        yield opened
