"""The charts of probes: what they draw, and what they make of evidence that they cannot use."""

from __future__ import annotations

import html
import itertools
import math
import re
import tracemalloc
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwardscope.analysis.figures import Figure
from forwardscope.analysis.probe_charts import CHARTED, figures
from forwardscope.probes import (
    AdapterAblation,
    CompletionPreference,
    DeltaKL,
    NullAdapter,
    PerplexityShift,
    Probe,
    PromptCollapse,
    Verdict,
)
from forwardscope.probes.completion_preference import Pair
from forwardscope.suite import SuiteSpec, run_suite
from forwardscope.suite.result import ProbeResult, Tally
from forwardscope.suite.spec import ModelSpec, ReportSpec
from forwardscope.testing import ScriptedBackend

PROMPTS = ["calm", "storm", "tide"]
_PAIRS = (
    Pair(prompt="a", wanted=" b", unwanted=" c"),
    Pair(prompt="d", wanted=" e", unwanted=" f"),
)
PROBES: dict[str, Probe] = {
    "delta_kl": DeltaKL(name="p", prompts=PROMPTS),
    "adapter_ablation": AdapterAblation(name="p", prompts=PROMPTS),
    "prompt_collapse": PromptCollapse(name="p", prompts=PROMPTS, context_lengths=(0, 4, 8)),
    "perplexity_shift": PerplexityShift(name="p", texts=["one two three", "four five six"]),
    "completion_preference": CompletionPreference(name="p", pairs=_PAIRS),
}
_TALLY = Tally(
    lookups=0, cache_hits=0, coalesced=0, cache_misses=0, forward_passes=0, forward_errors=0,
    hit_rate=0, scoring_wall_s=0, forward_s=0,
)  # fmt: skip


def measured(probe: Probe, *before: Probe, report: ReportSpec | None = None) -> ProbeResult:
    """Run a probe on a backend without a model, and return its result as a file has it."""
    spec = SuiteSpec(
        version=1,
        model=ModelSpec(path="m", adapter="a"),
        probes=(*before, probe),
        report=report or ReportSpec(),
    )
    result = run_suite(spec, ScriptedBackend()).probes[-1]
    return ProbeResult.model_validate_json(result.model_dump_json())


def made(kind: str, evidence: dict[str, Any], **more: Any) -> ProbeResult:
    return ProbeResult(
        name="p", kind=kind, verdict=Verdict.PASS, message="", evidence=evidence, duration_s=0,
        stats=_TALLY, **{"raw": 0.5, "ci_95": (0.2, 0.8), "n": 3} | more,
    )  # fmt: skip


def xml(svg: str) -> ElementTree.Element:
    """Return a chart's elements; it is well-formed."""
    return ElementTree.fromstring(svg)  # noqa: S314 - made here


def texts(figure: Figure) -> list[str]:
    return [one.text for one in xml(figure.svg).iter() if one.text]


def marks(figure: Figure, kind: str) -> list[dict[str, str]]:
    return [one.attrib for one in xml(figure.svg).iter() if one.attrib.get("class") == kind]


def test_every_kind_has_charts() -> None:
    """Each probe with charts is measured here, and its charts lie within their picture."""
    assert set(PROBES) == CHARTED
    for probe in PROBES.values():
        found = figures(measured(probe, NullAdapter(name="null", runs=3)), 0)
        assert found
        for figure in found:
            _check_that_it_is_within(figure.svg)


def _check_that_it_is_within(svg: str) -> None:
    root = xml(svg)
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    for element in root.iter():
        for name, most in (("x", width), ("cx", width), ("x1", width), ("x2", width)):
            assert 0 <= float(element.attrib.get(name, 0)) <= most
        for name in ("y", "cy", "y1", "y2"):
            assert 0 <= float(element.attrib.get(name, 0)) <= height


def test_each_prompt_has_a_bar_with_its_hash() -> None:
    """The longest first, as in the table; the length of a bar is in proportion to its value."""
    probe = measured(PROBES["delta_kl"])
    (figure,) = figures(probe, 0)
    values = sorted(probe.evidence["per_prompt"], reverse=True)
    assert [row[1] for row in figure.table.rows] == values
    assert {row[0] for row in figure.table.rows} == set(probe.evidence["prompts"])
    lengths = [float(one["width"]) for one in marks(figure, "value")]
    assert [length / lengths[0] for length in lengths] == pytest.approx(
        [value / values[0] for value in values], abs=0.01
    )
    shown = texts(figure)
    assert set(probe.evidence["prompts"]) < set(shown)
    assert "the mean passes from 0.005" in shown


def test_random_adapters_are_a_band_and_dots() -> None:
    """Every one is a dot beside the adapter; the value that z asks for is marked."""
    probe = measured(PROBES["delta_kl"], NullAdapter(name="null", runs=4))
    bars, null = figures(probe, 0)
    samples = probe.evidence["random_adapters"]["samples"]
    assert len(samples) == 4
    assert f"4 random adapters: {min(samples):.3g} to {max(samples):.3g}" in texts(bars)
    assert len(marks(null, "other")) == 4
    assert len(marks(null, "point")) == 1
    assert [row[1] for row in null.table.rows] == [*samples, probe.raw]
    least = probe.evidence["random_adapters"]["mean"] + 3 * probe.evidence["random_adapters"]["std"]
    assert any(text.startswith(f"passes from {least:.3g}:") for text in texts(null))


def test_the_threshold_that_decided() -> None:
    """It is that of the mean where random adapters give no z."""
    one = NullAdapter(name="one", runs=1, sentinel_prompts=["s"])
    for baseline in ((), (one,)):
        bars, *_ = figures(measured(PROBES["delta_kl"], *baseline), 0)
        assert "the mean passes from 0.005" in texts(bars)
    several = one.model_copy(update={"runs": 3})
    bars, *_ = figures(measured(PROBES["delta_kl"], several), 0)
    assert "the mean passes from 0.005" not in texts(bars)


def test_prompts_are_shown_if_the_suite_says_so() -> None:
    """Without that the evidence has their hashes alone."""
    for kind, probe in PROBES.items():
        assert "prompt_texts" not in measured(probe).evidence
        shown = measured(probe, report=ReportSpec(prompts="show")).evidence
        assert len(shown["prompt_texts"]) == len(shown["prompts"]), kind
    probe = measured(PROBES["delta_kl"], report=ReportSpec(prompts="show"))
    assert set(PROMPTS) < set(texts(figures(probe, 0)[0]))


def test_an_ablation_curve_has_its_line_saturation_and_overshoot() -> None:
    """Each is marked where it is, and the points have intervals over the prompts."""
    probe = made(
        "adapter_ablation",
        {
            "divergence": "js",
            "lambdas": [0.0, 0.5, 1.0, 1.25],
            "mean_divergence_per_lambda": [0.0, 0.4, 0.4, 0.2],
            "per_prompt": [[0.0, 0.3, 0.3, 0.1], [0.0, 0.5, 0.5, 0.3]],
            "linearity": 0.4,
            "saturation_lambda": 0.5,
            "overshoot": 0.5,
        },
    )
    (figure,) = figures(probe, 0)
    points, mark = marks(figure, "point")[:4], marks(figure, "mark")[0]
    assert points[1]["cx"] == mark["x1"] == mark["x2"]
    level = marks(figure, "level")[0]["points"].split()
    assert level[0].split(",") == [points[2]["cx"], points[2]["cy"]]
    assert level[1].split(",")[0] == points[3]["cx"]
    assert len(marks(figure, "whisker")) == 4 * 3
    shown = " ".join(texts(figure))
    assert "straight line through it: R² 0.40" in shown
    assert "saturation: 90 % of the maximum at λ = 0.5" in shown
    assert "overshoot 0.50" in shown
    assert figure.table.rows[1][:2] == (0.5, 0.4)


def test_a_collapse_curve_has_its_half_life() -> None:
    """The fitted decay halves there; a half-life beyond the longest filler is in words alone."""
    lengths, life = [0, 100, 200, 400], 150.0
    means = [0.4 * 2 ** -(length / life) for length in lengths]
    evidence = {"context_lengths": lengths, "mean_divergence_per_length": means}
    (figure,) = figures(made("prompt_collapse", evidence, raw=life), 0)
    points = [(float(one["cx"]), float(one["cy"])) for one in marks(figure, "point")[:4]]
    fit = [tuple(map(float, at.split(","))) for at in marks(figure, "fit")[0]["points"].split()]
    for at in points:
        assert min(math.dist(at, other) for other in fit) < 4
    assert "half-life 150 tokens" in texts(figure)
    (beyond,) = figures(made("prompt_collapse", evidence, raw=900.0), 0)
    assert not marks(beyond, "mark")
    assert "fitted decay: it halves every 900 tokens" in texts(beyond)


def test_names_of_bars_have_room() -> None:
    """A hash is whole, and so are 24 characters of a text; longer ones are cut."""
    names = ["aaf4c61ddcc5", "The capital of France is", "A letter of application should be"]
    (figure, *_) = figures(made("delta_kl", {"per_prompt": [0.5] * 3, "prompts": names}), 0)
    assert {*names[:2], "A letter of application…"} < set(texts(figure))


def test_many_prompts_have_the_ends() -> None:
    """The chart has the largest and the smallest, and says so; the table is bounded."""
    values = [place / 1e4 for place in range(5000)]
    (figure,) = figures(made("delta_kl", {"per_prompt": values}), 0)
    assert len(marks(figure, "value")) == 32
    assert figure.note == "The 16 largest and the 16 smallest of 5000 prompts."
    assert len(figure.table.rows) == 500


def test_a_wide_spread_has_a_logarithmic_axis() -> None:
    """A ratio of 1000 beside one of 1.1, and random adapters far below the adapter."""
    logs = {"per_text_log_ratio": [math.log(1000), math.log(1.1)]}
    (bars,) = figures(made("perplexity_shift", logs, raw=30.0, ci_95=None), 0)
    assert {"1", "10", "100", "1000"} < set(texts(bars))
    random = {"mean": 4e-4, "std": 1e-4, "samples": [3e-4, 5e-4]}
    evidence = {"per_prompt": [0.4], "random_adapters": random}
    _, null = figures(made("delta_kl", evidence, raw=0.4, ci_95=None), 0)
    assert "divergence, nats (logarithmic axis)" in texts(null)


def test_a_probe_of_another_package_has_its_value() -> None:
    """With its interval; nothing is drawn without one."""
    (figure,) = figures(made("says_yes", {"anything": ["at all"]}), 0)
    assert figure.table.rows == [(0.5, 0.2, 0.8)]
    assert figures(made("says_yes", {}, ci_95=None), 0) == []


def test_results_of_older_versions() -> None:
    """Prompts without a hash have numbers; there is no chart of random adapters."""
    (figure,) = figures(made("delta_kl", {"divergence": "js", "per_prompt": [0.1, 0.3]}), 0)
    assert [row[0] for row in figure.table.rows] == ["no. 2", "no. 1"]
    for kind in CHARTED:
        assert figures(made(kind, {}), 0) == []


def test_names_are_escaped() -> None:
    """Texts of prompts, kinds of divergence and names of probes are text in a chart."""
    evil = "</text></svg><script>alert(1)</script>\x1b[31m"
    evidence = {"per_prompt": [0.5], "prompts": [evil], "divergence": evil}
    for kind in ("delta_kl", "other"):
        probe = made(kind, evidence).model_copy(update={"name": evil})
        for figure in figures(probe, 0):
            assert not re.search("<script|\x1b", figure.svg)
            assert html.escape("</text>") in figure.svg


_NUMBERS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False), st.integers(-(10**30), 10**30),
    st.sampled_from([0, 1, 5e-324, 1e-320, 1e50, 1e100, -1e100, 1e308]),
)  # fmt: skip
_PLAIN = st.one_of(_NUMBERS, st.text(max_size=5), st.booleans(), st.none(), st.lists(_NUMBERS))
_KEYS = (
    "per_prompt", "prompts", "random_adapters", "thresholds", "lambdas", "linearity",
    "saturation_lambda", "overshoot", "context_lengths", "mean_divergence_per_lambda",
    "mean_divergence_per_length", "per_text_log_ratio", "per_pair", "margins_base",
    "margins_tuned",
)  # fmt: skip


@given(
    st.sampled_from(sorted([*CHARTED, "other"])),
    st.dictionaries(st.sampled_from(_KEYS), _PLAIN, max_size=6),
    st.one_of(st.none(), _NUMBERS.map(float)),
)
def test_hostile_evidence_of_any_shape(kind: str, evidence: dict[str, Any], raw: float) -> None:
    """It makes a chart or none, never an error."""
    for figure in figures(made(kind, evidence, raw=raw), 0):
        _check_that_it_is_within(figure.svg)


@given(
    st.sampled_from(sorted(CHARTED)),
    st.lists(_NUMBERS, min_size=2, max_size=4),
    st.lists(_NUMBERS, min_size=2, max_size=4),
    _NUMBERS.map(float),
)
def test_hostile_numbers(
    kind: str, first: Sequence[float], second: Sequence[float], raw: float
) -> None:
    """Evidence of the right shape with numbers of any size makes a sound chart or none."""
    x, y = sorted(set(map(abs, first))), [abs(one) for one, _ in zip(second, itertools.count())]
    evidence = {
        "per_prompt": y if kind == "delta_kl" else [y, y],
        "lambdas": x, "context_lengths": x, "mean_divergence_per_lambda": y,
        "mean_divergence_per_length": y, "linearity": raw, "saturation_lambda": raw,
        "overshoot": raw, "per_text_log_ratio": first, "per_pair": first, "margins_base": first,
        "margins_tuned": first,
        "random_adapters": {"mean": raw, "std": abs(raw), "samples": second},
        "thresholds": dict.fromkeys(("min_mean", "min_z", "max_ratio", "min_half_life"), raw),
    }  # fmt: skip
    probe = made(kind, evidence, raw=raw, ci_95=(min(first), max(first)), z_score=1.0)
    for figure in figures(probe, 0):
        _check_that_it_is_within(figure.svg)


@pytest.mark.parametrize("kind", ["delta_kl", "adapter_ablation"])
def test_evidence_of_millions_of_values(kind: str) -> None:
    """There is no chart of it, and it is not copied."""
    many: list[Any] = [1.0] * 2_000_000 if kind == "delta_kl" else [[1.0, 1.0]] * 2_000_000
    curve = {"lambdas": [0, 1], "mean_divergence_per_lambda": [0, 1]}
    probe = made(kind, {"per_prompt": many, **curve})
    tracemalloc.start()
    try:
        assert figures(probe, 0) == []
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()
