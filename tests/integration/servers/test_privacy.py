"""What leaves the machine says nothing of what was asked: every byte of it is searched."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from forwardscope.core.keys import prompt_hash

from .processes import get, run_pushgateway
from .receivers import Receiver
from .runs import MODEL, Cli, Run, suite

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
WORDS = ("zanzibar", "quicksilver", "Überraschung", "xylophone", "marzipan", "kaleidoscope")
RAISING = 'raise: the "xylophone" said\nmarzipan'
HELD = "kaleidoscope, and then hold"
PROMPTS = [f"my {WORDS[0]} is {WORDS[1]}", f"eine {WORDS[2]}\n\t\\", RAISING, HELD]


def secretive() -> dict[str, object]:
    """All kinds of probes, each asking what nobody else is to know."""
    delta = {"kind": "delta_kl", "min_mean": 0.000001, "min_z": 0.000001}
    probes = [
        {"name": "noise", "kind": "null_adapter", "runs": 1, "sentinel_prompts": PROMPTS[:2]},
        {"name": "change", "prompts": PROMPTS[:2], **delta},
        {"name": "wrong", "prompts": [PROMPTS[0], RAISING], **delta},
        {"name": "response", "kind": "adapter_ablation", "prompts": PROMPTS[:2]},
        {
            "name": "collapse",
            "kind": "prompt_collapse",
            "prompts": [PROMPTS[0]],
            "context_lengths": [0, 4],
        },
        {"name": "held", "prompts": [HELD, RAISING], **delta},
    ]
    return suite(probes=probes)


@dataclass(frozen=True)
class Left:
    """What left a run, as bytes, by where it went.

    Attributes:
        run: The run.
        bytes_to: What went where.
    """

    run: Run
    bytes_to: dict[str, bytes]


@pytest.fixture(scope="module", params=["http", "grpc"])
def left(
    request: pytest.FixtureRequest, cli: Cli, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Left]:
    receiver: Receiver = request.getfixturevalue(f"otlp_{request.param}")
    file: Path = tmp_path_factory.mktemp("textfiles") / "run.prom"
    with run_pushgateway(tmp_path_factory.mktemp("gateway")) as gateway:
        options = ("--metrics-port", 0, "--metrics-linger", 60, "--metrics-file", file)
        ways = ("--otlp", receiver.url, "--pushgateway", gateway.url)
        live = cli.start(secretive(), "--show-errors", *options, *ways, hold=True).until_held()
        scraped = [get(live.metrics_url, accept) for accept in ("text/plain", OPENMETRICS)]
        scraped += [file.read_text()]
        live.release()
        scraped += [live.scrape_to_the_end(OPENMETRICS)]
        run = live.finish()
        pushed = get(f"{gateway.url}/metrics") + get(f"{gateway.url}/api/v1/metrics")
    spans = receiver.wait_for(run.result["trace_id"], run.spans_exported)
    yield Left(
        run,
        {
            "otlp": b"".join(one.SerializeToString() for one in spans)
            + repr(receiver.resources).encode(),
            "endpoint": "".join(scraped).encode(),
            "pushgateway": pushed.encode(),
            "file": file.read_bytes(),
            "trace": (run.folder / "trace.jsonl").read_bytes(),
        },
    )


@pytest.mark.parametrize("way", ["otlp", "endpoint", "pushgateway", "file", "trace"])
def test_no_prompt_leaves(left: Left, way: str) -> None:
    """No word of any prompt is in it, however it is written, nor of an error that quotes one."""
    found = left.bytes_to[way]
    for word in (*WORDS, "no answer to", "filler"):
        for spelt in (word, json.dumps(word)[1:-1], repr(word.encode())[2:-1]):
            assert spelt.lower().encode() not in found.lower()


@pytest.mark.parametrize(
    ("way", "told"),
    [
        ("otlp", "RuntimeError"),
        ("otlp", MODEL),
        ("endpoint", "RuntimeError"),
        ("endpoint", 'forwardscope_probe_verdict{model="'),
        ("endpoint", 'probe="held",suite="nightly",verdict="error"} 1'),
        ("endpoint", '# {trace_id="'),
        ("pushgateway", "forwardscope_run_errors"),
        ("file", "forwardscope_run_errors"),
        ("trace", "RuntimeError"),
    ],
)
def test_the_search_looks_at_the_real_thing(left: Left, way: str, told: str) -> None:
    """What may be told is found where the prompts are not."""
    assert told.encode() in left.bytes_to[way]


@pytest.mark.parametrize("way", ["otlp", "trace"])
def test_prompts_are_hashes(left: Left, way: str) -> None:
    """Each prompt that was asked stands there as its hash, those that failed too."""
    for prompt in PROMPTS:
        assert prompt_hash(prompt).encode() in left.bytes_to[way]


def test_the_error_did_quote_a_prompt(left: Left) -> None:
    """With --show-errors the result has the message of the error."""
    (wrong,) = (one for one in left.run.result["probes"] if one["name"] == "wrong")
    assert "xylophone" in wrong["message"]
    assert left.run.status == 1
