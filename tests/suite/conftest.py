"""Suites for tests, created without a file."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from forwardscope.probes import AdapterAblation, DeltaKL, NullAdapter, Probe, PromptCollapse
from forwardscope.suite import SuiteSpec
from forwardscope.suite.spec import ModelSpec

MakeSpec = Callable[..., SuiteSpec]


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
