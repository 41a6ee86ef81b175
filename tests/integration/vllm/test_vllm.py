"""The same model and adapter on vLLM and in this process: equal values, and a server that dies.

The figures that are printed are those of docs/serve.md.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forwardscope import ForwardCache
from forwardscope.backends.base import ScoringView
from forwardscope.backends.hf import HFBackend, ModelSource
from forwardscope.backends.hf import load_backend as load_hf
from forwardscope.backends.openai import ServedBackend, ServedSource, load_backend
from forwardscope.probes.general import GENERAL_PROMPTS
from forwardscope.store.agreement import difference

from .conftest import Vllm

PROMPTS = [prompt for prompt in GENERAL_PROMPTS if isinstance(prompt, str)]
_TOLERANCE = 1e-3
_CONTRACT = Path(__file__).parents[2] / "backends" / "openai"
View = AbstractContextManager[ScoringView]


@pytest.fixture(scope="module")
def here(vllm: Vllm) -> Iterator[Any]:
    backend = load_hf(
        ModelSource(str(vllm.model), str(vllm.adapter), device="cpu", dtype="float32")
    )
    yield backend
    backend.close()


@pytest.fixture(scope="module")
def served(vllm: Vllm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedBackend]:
    source = ServedSource(
        vllm.url,
        "base",
        "ft",
        adapter_dir=str(vllm.adapter),
        adapter_scratch=str(tmp_path_factory.mktemp("scratch")),
        tokenizer=str(vllm.model),
    )
    backend = load_backend(source)
    yield backend
    backend.close()


@pytest.mark.parametrize(
    ("name", "opened"),
    [
        ("base", lambda backend: backend.as_base()),
        ("ft", lambda backend: backend.as_finetuned()),
        ("scaled 0.5", lambda backend: backend.as_scaled_adapter(0.5)),
        ("scaled 1.25", lambda backend: backend.as_scaled_adapter(1.25)),
        ("null", lambda backend: backend.as_null_adapter(1000)),
        ("null, 10 times", lambda backend: backend.as_null_adapter(1001, init_scale=0.2)),
    ],
)
def test_views_have_equal_values(
    here: HFBackend, served: ServedBackend, name: str, opened: Callable[[Any], View]
) -> None:
    """All three ops agree in each view."""
    pairs = [(prompt, " the") for prompt in PROMPTS[:8]]
    values = []
    for backend in (here, served):
        with opened(backend) as view:
            values.append(
                (
                    view.next_token_dist_batch(PROMPTS, top_k=256),
                    view.rolling_logprob_batch(PROMPTS[:8]),
                    view.logprob_of_batch(pairs),
                )
            )
    dists, rolled, totals = (
        max(map(difference, *values_of_op)) for values_of_op in zip(*values, strict=True)
    )
    _say(f"{name}: distributions {dists:.1e}, rolling {rolled:.1e}, completions {totals:.1e}")
    assert max(dists, rolled, totals) < _TOLERANCE


def test_filler_and_chats_are_the_same(here: HFBackend, served: ServedBackend) -> None:
    """Probes of long contexts and of chats ask both the same."""
    assert served.filler(3) == here.filler(3)
    chat = [{"role": "user", "content": "Hi"}]
    assert served.render_chat(chat) == here.render_chat(chat)


def test_random_adapters_are_no_base(served: ServedBackend) -> None:
    """The null views above would agree as well if a server ignored their adapters."""
    with served.as_base() as view:
        base = view.next_token_dist(PROMPTS[0])
    with served.as_null_adapter(1001, init_scale=0.2) as view:
        assert not np.array_equal(view.next_token_dist(PROMPTS[0]).logprobs, base.logprobs)


@pytest.mark.parametrize("view_id", ["base", "ft"])
def test_time_of_a_batch(served: ServedBackend, view_id: str) -> None:
    """The time of all prompts in one request is printed beside that of one request each."""
    cache = served.instrumentation.cache
    opened = served.as_base() if view_id == "base" else served.as_finetuned()
    with opened as view:
        view.next_token_dist_batch(PROMPTS)
        alone, together = (_seconds(cache, partial(ask, view)) for ask in (_one_by_one, _at_once))
    ratio = together / alone
    _say(
        f"{view_id}: {len(PROMPTS)} prompts {together:.2f} s, one by one {alone:.2f} s, {ratio:.2f}"
    )


def test_answers_are_still_those_that_were_recorded(vllm: Vllm) -> None:
    """The contract tests pass against this vLLM; `git diff` shows what it answers otherwise."""
    upstream = {"FORWARDSCOPE_RECORD": vllm.url.removesuffix("/v1")}
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", str(_CONTRACT)],
        env={**os.environ, **upstream},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-3000:]


def test_server_that_is_killed(vllm: Vllm, tmp_path: Path) -> None:
    """Each later probe is an ERROR, and what was answered is in report, trace and store.

    It is the last test, because it ends the server.
    """
    probes = [
        {"name": str(n), "kind": "delta_kl", "prompts": [f"{n} {prompt}" for prompt in PROMPTS]}
        for n in range(30)
    ]
    model = {"server": vllm.url, "name": "base", "adapter": "ft", "revision": "1"}
    suite = {"version": 1, "model": model, "cache": {"store": "store.db"}, "probes": probes}
    (tmp_path / "suite.yaml").write_text(json.dumps(suite))
    trace = tmp_path / "trace.jsonl"
    command = [sys.executable, "-m", "forwardscope", "run", "suite.yaml", "--trace", trace.name]
    run = subprocess.Popen([*command, "--json", "result.json"], cwd=tmp_path)
    while run.poll() is None and (not trace.exists() or trace.read_bytes().count(b"\n") < 100):
        time.sleep(0.1)
    vllm.kill()
    assert run.wait() == 1
    result = json.loads((tmp_path / "result.json").read_text())
    verdicts = [probe["verdict"] for probe in result["probes"]]
    assert (len(verdicts), verdicts[0] != "error", verdicts[-1]) == (30, True, "error")
    answered = sum('"error"' not in line for line in trace.read_text().splitlines())
    assert 100 <= answered == result["backend_stats"]["forward_passes"]
    assert result["store"]["entries"] == answered
    _say(f"killed: {answered} answers in trace and store, {verdicts.count('error')} errors")


def _say(line: str) -> None:
    """Print a figure, which pytest shows with -s."""
    sys.stdout.write(f"\n{line}\n")


def _one_by_one(view: ScoringView) -> None:
    for prompt in PROMPTS:
        view.next_token_dist(prompt)


def _at_once(view: ScoringView) -> None:
    view.next_token_dist_batch(PROMPTS)


def _seconds(cache: ForwardCache, ask: Callable[[], None]) -> float:
    """Return how long a question takes of which the cache knows nothing."""
    cache.clear()
    start = time.perf_counter()
    ask()
    return time.perf_counter() - start
