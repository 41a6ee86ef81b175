"""What probes measured, compared with a reference run."""

from __future__ import annotations

from typing import Any

import pytest

from forwardscope.analysis.score_gate import ScoreLimits, compare_scores, differences, suite_score
from forwardscope.probes import DeltaKL
from forwardscope.suite import SuiteResult, SuiteSpec, run_suite
from forwardscope.suite.spec import ModelSpec
from forwardscope.testing import ScriptedBackend

_PROBES = (DeltaKL(name="p", prompts=["a"]),)
_SPEC = SuiteSpec(version=1, model=ModelSpec(path="m", adapter="a"), probes=_PROBES)
_RUN = run_suite(_SPEC, ScriptedBackend())
_USUAL = {"raw": 1.0, "score": 0.8, "z_score": None, "ci_95": None, "lower_is_better": False}


def run(**measured: Any) -> SuiteResult:
    """Return a run whose only probe measured this."""
    probe = _RUN.probes[0].model_copy(update=_USUAL | measured)
    return _RUN.model_copy(update={"probes": [probe]})


def worse(before: SuiteResult, now: SuiteResult, limits: ScoreLimits | None = None) -> list[str]:
    """Return the names of the failed checks."""
    checks = compare_scores(before, now, limits or ScoreLimits())
    return [check.name for check in checks if not check.ok]


def test_nothing_is_worse_than_itself() -> None:
    """A run compared with itself passes, whatever it measured."""
    one = run(ci_95=(0.9, 1.1), z_score=-2.0, raw=1.2)
    assert worse(one, one) == []
    assert worse(one, one, ScoreLimits(0.0)) == []


def test_a_fall_of_z_alone_fails() -> None:
    """A score that cannot rise any more hides nothing."""
    before, now = run(score=1.0, z_score=394.0), run(score=1.0, z_score=61.0)
    assert worse(before, now) == ["z of p"]
    assert worse(before, run(score=1.0, z_score=200.0)) == []
    assert worse(now, before) == []


@pytest.mark.parametrize(
    ("lower_is_better", "raw", "fails"),
    [
        (False, 0.89, True),
        (False, 0.91, False),
        (False, 9.0, False),
        (True, 1.11, True),
        (True, 1.09, False),
        (True, 0.1, False),
    ],
)
def test_value_outside_the_interval(lower_is_better: bool, raw: float, fails: bool) -> None:
    """By default a value may be where the reference run's interval is, or better."""
    before = run(ci_95=(0.9, 1.1), lower_is_better=lower_is_better)
    now = run(raw=raw, lower_is_better=lower_is_better)
    assert worse(before, now) == ["value of p"] * fails


@pytest.mark.parametrize(("raw", "fails"), [(0.79, True), (0.81, False)])
def test_a_share_of_the_value(raw: float, fails: bool) -> None:
    """A share replaces the interval, for one probe or for all."""
    before, now = run(ci_95=(0.99, 1.01)), run(raw=raw)
    for limits in (ScoreLimits(0.2), ScoreLimits(0.0, {"p": 0.2})):
        assert worse(before, now, limits) == ["value of p"] * fails


def test_without_an_interval() -> None:
    """The score is compared, which may fall by 0.1."""
    assert worse(run(), run(raw=0.1, score=0.71)) == []
    assert worse(run(), run(raw=0.1, score=0.69)) == ["score of p"]


def test_score_of_the_suite() -> None:
    """A run with a smaller score than allowed, or without one, fails."""
    assert suite_score(run(), 0.75).ok
    assert not suite_score(run(score=0.7), 0.75).ok
    assert not suite_score(run(score=None), 0.0).ok


def test_a_value_that_is_missing_is_not_compared() -> None:
    """A probe without value, z or score has nothing to compare; nor has another kind."""
    nothing = run(raw=None, score=None, z_score=None)
    assert worse(run(z_score=1.0), nothing) == []
    assert worse(run(), run(kind="other", score=0.0)) == []


def test_differences() -> None:
    """What tells models and adapters apart is named, where both runs have it."""
    one = run().model_copy(update={"adapter": "x", "tuned_identity": "1" * 64})
    other = one.model_copy(update={"adapter": "y", "tuned_identity": None})
    assert differences(one, one) == []
    assert differences(one, other) == ["adapter: y, x before"]
