"""`forwardscope run` on a model of a server, and on one that is lost in the middle."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from forwardscope import TraceReader
from forwardscope.backends.openai.retries import Retries
from forwardscope.cli.app import app

from .vllm_double import Fault, VllmDouble

SUITE = """version: 1
model: {{server: "{url}", name: base, adapter: tiny, revision: "1"{more}}}
defaults: {{top_k: 5}}
cache: {{store: {store}}}
probes:
  - {{name: change, kind: delta_kl, prompts: [The capital of France is, To bake bread you need]}}
  - {{name: response, kind: adapter_ablation, prompts: [Hello], lambdas: [0.0, 0.5, 1.0]}}
  - {{name: damage, kind: perplexity_shift, texts: [The capital of France is]}}
"""
#: What vLLM says when its engine has died.
_DEAD = (
    b'{"error":{"message":"EngineCore encountered an issue. See stack trace (above) for the root '
    b'cause.","type":"InternalServerError","param":null,"code":500}}'
)
Run = Callable[..., tuple[Result, Any]]


@pytest.fixture
def run(server: VllmDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the suite; return what was printed, and its result."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")

    def ran(*options: str, more: str = "", **lines: str) -> tuple[Result, Any]:
        text = SUITE.format(url=server.url, more=more, store=tmp_path / "store.db")
        for old, new in lines.items():
            text = text.replace(old, new)
        (tmp_path / "suite.yaml").write_text(text)
        arguments = ["run", "suite.yaml", "--json", "result.json", "--trace", "trace.jsonl"]
        done = CliRunner().invoke(app, [*arguments, *options], catch_exceptions=False)
        result = tmp_path / "result.json"
        return done, json.loads(result.read_text()) if result.exists() else None

    return ran


def _verdicts(result: Any) -> dict[str, str]:
    return {probe["name"]: probe["verdict"] for probe in result["probes"]}


def test_a_suite_of_a_server(run: Run, server: VllmDouble, adapter: Path) -> None:
    """All probes are measured, and the report says where."""
    done, result = run(more=f', adapter_dir: "{adapter}"')
    assert set(_verdicts(result).values()) <= {"pass", "fail"}
    where = f"served on {server.url.removesuffix('/v1')}, fast"
    assert f"base base, fine-tuned tiny ({result['tuned_identity'][:8]}); {where}" in done.stdout
    assert result["expected_forward_passes"] == result["backend_stats"]["forward_passes"]
    assert not server.loaded
    assert result["versions"]["vllm"] == "0.32.0"


def test_a_second_run_pays_nothing(run: Run) -> None:
    """With a revision the store answers what was computed before."""
    _, first = run()
    _, second = run()
    assert first["backend_stats"]["forward_passes"] == 8
    assert second["backend_stats"]["forward_passes"] == 0
    assert [one["raw"] for one in first["probes"]] == [one["raw"] for one in second["probes"]]


def test_plan_without_a_revision(run: Run) -> None:
    """It names the key without which nothing is stored."""
    run()
    run(**{', revision: "1"': ""})
    planned = CliRunner().invoke(app, ["plan", "suite.yaml"])
    assert planned.stdout.endswith("never stored without model.revision: base, ft\n")


def test_probes_without_their_views_are_skipped(run: Run) -> None:
    """The reason has the key that is missing."""
    done, result = run()
    assert _verdicts(result)["response"] == "skip"
    assert "model.adapter_dir" in done.stdout


def test_top_k_of_the_server_is_told(run: Run, server: VllmDouble) -> None:
    """A suite that asks for more gets what the server gives, and a warning."""
    said = b'{"error":{"message":"Requested sample logprobs of 9, greater than max allowed: 5"}}'
    server.faults.append(Fault(400, said, operation="completions", after=1))
    done, _ = run(**{"defaults: {top_k: 5}": ""})
    assert "top_k 256 is more than the 5 log-probabilities that the server gives" in done.stdout


def test_server_that_is_lost(
    run: Run, server: VllmDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each later probe is an ERROR; what was answered is in report, trace and store."""
    monkeypatch.setattr(Retries, "wait_s", lambda *_: 0.0)
    dead = Fault(500, _DEAD, operation="completions")
    # after two requests for limits, five for the tolerance, and those of three views
    server.faults += [replace(dead, after=10), *[dead] * 50]
    done, result = run()
    assert done.exit_code == 1
    assert _verdicts(result) == {"change": "error", "response": "skip", "damage": "error"}
    assert "did not accept /completions: HTTP 500" in done.stdout
    answered = [one for one in TraceReader(tmp_path / "trace.jsonl") if one.error is None]
    assert len(answered) == 4
    server.faults.clear()
    _, again = run()
    assert again["backend_stats"]["forward_passes"] == 8 - len(answered)


def test_server_that_is_not_there(run: Run, server: VllmDouble) -> None:
    """One sentence, exit status 2, and no new file."""
    server.url = "http://127.0.0.1:1/v1"
    done, result = run()
    assert (done.exit_code, result) == (2, None)
    assert done.stderr.count("\n") == 1
    assert "is model.server its URL?" in done.stderr
