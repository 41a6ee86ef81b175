"""A run as JUnit XML and as Markdown."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from forwardscope.analysis.run_files import result_junit, result_markdown
from forwardscope.probes import DeltaKL, PerplexityShift
from forwardscope.suite import SuiteResult, SuiteSpec, run_suite
from forwardscope.suite.spec import ModelSpec
from forwardscope.testing import ScriptedBackend, ScriptedView, pseudo_random_logits


def script(view: ScriptedView, prompt: str) -> object:
    """Raise for one prompt."""
    if prompt == "raise":
        raise RuntimeError("gone")
    return pseudo_random_logits(view, prompt)


@pytest.fixture
def result() -> SuiteResult:
    """A run with a pass, a fail and an error."""
    probes = (
        DeltaKL(name="changed | <b>", prompts=["a", "b"], weight=3.0),
        PerplexityShift(name="damage", texts=["ab", "ba"], max_rise=1e-9),
        DeltaKL(name="broken", prompts=["raise"]),
    )
    spec = SuiteSpec(
        version=1, name="nightly", model=ModelSpec(path="m", adapter="a"), probes=probes
    )
    return run_suite(spec, ScriptedBackend(script))


def test_junit(result: SuiteResult) -> None:
    """Each probe is a case by its verdict, and so is one that an interrupt left out."""
    interrupted = result.model_copy(update={"not_run": ["later"]})
    (suite,) = ET.fromstring(result_junit(interrupted))  # noqa: S314 - our own
    outcomes = {case.attrib["name"]: [one.tag for one in case] for case in suite}
    assert outcomes == {
        "changed | <b>": [],
        "damage": ["failure"],
        "broken": ["error"],
        "later": ["error"],
    }


def test_markdown(result: SuiteResult) -> None:
    """It says what was measured on what; cells are escaped."""
    text = result_markdown(result)
    assert text.startswith(
        f"## nightly: did not pass, score {result.score:.3f}\n\nbase m, fine-tuned a"
    )
    changed = result.probes[0]
    (row,) = (line for line in text.splitlines() if "changed" in line)
    assert r"changed \| \<b\>" in row
    assert f"| {changed.raw:.4g} |" in row
    assert f"{changed.ci_95[0]:.4g} to {changed.ci_95[1]:.4g} \\(n=2\\)" in row


def test_score_of_the_suite(result: SuiteResult) -> None:
    """It is the mean by weights; an error counts as 0."""
    changed, damage, broken = result.probes
    assert (changed.weight, damage.weight, broken.score) == (3.0, 1.0, None)
    assert result.score == pytest.approx((3 * changed.score + damage.score) / 5)
    without = result.model_copy(update={"probes": [broken.model_copy(update={"verdict": "skip"})]})
    assert without.score is None
