"""The evidence of probes: what charts and readers of results need of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from forwardscope import BackendInstrumentation, TraceReader
from forwardscope.probes import (
    AdapterAblation,
    CompletionPreference,
    DeltaKL,
    NullAdapter,
    PerplexityShift,
    Probe,
    ProbeContext,
    PromptCollapse,
)
from forwardscope.probes.completion_preference import Pair
from forwardscope.testing import ScriptedBackend

PROMPTS = ("calm sea", "storm\x1b[31m", "calm sea")
PAIRS = (
    Pair(prompt="calm", wanted=" sea", unwanted=" air"),
    Pair(prompt="storm", wanted=" sea", unwanted=" air"),
)
PROBES: tuple[Probe, ...] = (
    DeltaKL(name="p", prompts=PROMPTS),
    AdapterAblation(name="p", prompts=PROMPTS),
    PromptCollapse(name="p", prompts=PROMPTS, context_lengths=(0, 4)),
    PerplexityShift(name="p", texts=PROMPTS),
    CompletionPreference(name="p", pairs=PAIRS),
)
each_probe = pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.kind)


@each_probe
def test_prompts_have_their_hashes_of_the_trace(probe: Probe, tmp_path: Path) -> None:
    """One for each prompt, in order; the evidence has no text of a prompt."""
    backend = ScriptedBackend(instrumentation=BackendInstrumentation(trace_path=tmp_path / "t"))
    evidence = probe.run(ProbeContext(backend)).evidence
    backend.close()
    traced = {event.prompt_hash for event in TraceReader(tmp_path / "t")}
    assert set(evidence["prompts"]) <= traced
    if probe.kind != "completion_preference":
        assert evidence["prompts"][0] == evidence["prompts"][2] != evidence["prompts"][1]
    assert "prompt_texts" not in evidence
    assert not any(word in json.dumps(evidence) for word in ("calm", "storm", "sea"))


@each_probe
def test_prompts_have_their_texts_if_asked_for(probe: Probe) -> None:
    """Printable, one for each hash, and cut if they are long."""
    evidence = probe.run(ProbeContext(ScriptedBackend(), show_prompts=True)).evidence
    texts = evidence["prompt_texts"]
    assert len(texts) == len(evidence["prompts"])
    assert texts[0].startswith("calm sea")
    assert "\x1b" not in "".join(texts)
    long = DeltaKL(name="p", prompts=["x" * 9000])
    (text,) = long.run(ProbeContext(ScriptedBackend(), show_prompts=True)).evidence["prompt_texts"]
    assert len(text) < 2500


@each_probe
def test_evidence_is_plain_json_with_thresholds(probe: Probe) -> None:
    """As `Outcome.evidence` promises; each threshold of a probe's settings has its value."""
    evidence = probe.run(ProbeContext(ScriptedBackend())).evidence
    assert json.loads(json.dumps(evidence)) == evidence
    named = {name: value for name, value in evidence["thresholds"].items() if name != "max_ratio"}
    assert all(getattr(probe, name) == value for name, value in named.items())


@pytest.mark.parametrize("probe", [PROBES[0], PROBES[3], PROBES[4]], ids=lambda probe: probe.kind)
def test_values_of_random_adapters(probe: Probe) -> None:
    """One for each, and their statistics; None without any."""
    backend = ScriptedBackend()
    assert probe.run(ProbeContext(backend)).evidence["random_adapters"] is None
    null = NullAdapter(name="null", runs=3).run(ProbeContext(backend, later=(probe,)))
    random = probe.run(ProbeContext(backend, baseline=null.baseline)).evidence["random_adapters"]
    (calibration,) = null.evidence["calibrations"]
    assert random == {name: calibration[name] for name in random}
    assert len(random["samples"]) == random["n"] == 3
    assert random["mean"] == pytest.approx(sum(random["samples"]) / 3)
