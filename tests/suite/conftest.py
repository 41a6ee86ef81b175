"""Suites for tests, created without a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from forwardscope.probes import AdapterAblation, DeltaKL, NullAdapter, Probe, PromptCollapse
from forwardscope.suite import SuiteSpec
from forwardscope.suite.spec import ModelSpec

MakeSpec = Callable[..., SuiteSpec]
Install = Callable[[str], None]

_MODULE = """
from typing import Literal
from forwardscope.probes import Outcome, Probe, ProbeContext, Prompts, Threshold, Verdict

class Longest(Probe):
    kind: Literal["longest"] = "longest"
    prompts: Prompts
    most: Threshold = 3.0

    def run(self, context: ProbeContext) -> Outcome:
        length = max(map(len, context.render(self.prompts)))
        return Outcome(Verdict.PASS if length <= self.most else Verdict.FAIL, "", raw=length)

class Other(Longest):
    pass

class Without(Probe):
    pass

class Failing(Longest):
    def model_post_init(self, context: object) -> None:
        raise RuntimeError("broken")

def __getattr__(name: str) -> object:
    raise SystemExit(0) if name == "Leaving" else AttributeError(name)

no_class = 3
"""


@pytest.fixture
def make_spec() -> MakeSpec:
    """Return a function that creates a suite from probes and settings."""

    def make(*probes: Probe, **settings: object) -> SuiteSpec:
        model = ModelSpec(path="some-model", adapter="some-adapter")
        return SuiteSpec(version=1, name="tested", model=model, probes=probes, **settings)

    return make


@pytest.fixture
def full_suite(make_spec: MakeSpec) -> SuiteSpec:
    """Return a suite with one probe of each kind; three of them have the same prompts."""
    prompts = ("a secret question", "another secret question")
    return make_spec(
        NullAdapter(name="baseline", runs=2, sentinel_prompts=["a secret sentinel"]),
        DeltaKL(name="change", prompts=prompts),
        AdapterAblation(name="response", prompts=prompts),
        PromptCollapse(name="long-context", prompts=prompts, context_lengths=(0, 4, 8)),
    )


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a package whose module has probes, with these entry points."""

    def install(lines: str) -> None:
        (tmp_path / "some_probes.py").write_text(_MODULE)
        metadata = tmp_path / "some_probes-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: some-probes\nVersion: 1\n")
        (metadata / "entry_points.txt").write_text(f"[forwardscope.probes]\n{lines}\n")
        monkeypatch.syspath_prepend(tmp_path)

    return install
