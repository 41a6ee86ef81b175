"""Charts of what the probes measured, each with its data as a table."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np
from pydantic import ValidationError

from forwardscope.analysis.charts import Line, Mark, curve
from forwardscope.analysis.evidence import (
    AblationEvidence,
    CollapseEvidence,
    DivergenceEvidence,
    PerplexityEvidence,
    PreferenceEvidence,
)
from forwardscope.analysis.figures import (
    Figure,
    bars_figure,
    curve_keys,
    curve_points,
    mean_marks,
    measured,
    null_figure,
    points_table,
    random_marks,
    value_figure,
    z_marks,
)
from forwardscope.suite.result import ProbeResult

__all__ = ["CHARTED", "Figure", "figures"]

#: Bounds of fitted lines and of what is fitted.
_LARGEST, _SMALLEST = 200.0, 1e-80


def figures(probe: ProbeResult, seed: int) -> list[Figure]:
    """Return the charts of a probe; none if its evidence lacks their data.

    Args:
        probe: The result of the probe.
        seed: Seed of the run, for intervals.
    """
    make = _MAKERS.get(probe.kind)
    try:
        return list(make(probe, seed) if make else value_figure(probe))
    except ValidationError:
        return []


def _divergence(probe: ProbeResult, seed: int) -> Iterator[Figure]:  # noqa: ARG001
    found = DivergenceEvidence.model_validate(probe.evidence)
    unit = f"{found.divergence}, nats"
    marks = [*random_marks(found.random_adapters), *mean_marks(probe)]
    if probe.z_score is None and (least := found.thresholds.get("min_mean")):
        marks.append(Mark("threshold", f"the mean passes from {least:g}", least, least))
    names = found.names(len(found.per_prompt))
    yield bars_figure(
        "Divergence of each prompt", ("prompt", names), ("divergence", found.per_prompt), marks,
        axis=unit,
    )  # fmt: skip
    least_z = z_marks(probe, found.random_adapters, found.thresholds.get("min_z"))
    yield from null_figure(probe, found.random_adapters, list(least_z), unit)


def _perplexity(probe: ProbeResult, seed: int) -> Iterator[Figure]:  # noqa: ARG001
    found = PerplexityEvidence.model_validate(probe.evidence)
    ratios = [math.exp(log) for log in found.per_text_log_ratio]
    marks = [*random_marks(found.random_adapters), *mean_marks(probe, "the ratio")]
    most = found.thresholds.get("max_ratio")
    limit = [] if most is None else [Mark("threshold", f"passes up to {most:g}", most, most)]
    marks += limit
    yield bars_figure(
        "Ratio of perplexities of each text", ("text", found.names(len(ratios))),
        ("ratio", ratios), marks, axis="fine-tuned / base; above 1 is worse", origin=1.0,
        more=[("tokens", found.per_text_tokens)],
    )  # fmt: skip
    yield from null_figure(probe, found.random_adapters, limit, "ratio of perplexities")


def _preference(probe: ProbeResult, seed: int) -> Iterator[Figure]:  # noqa: ARG001
    found = PreferenceEvidence.model_validate(probe.evidence)
    marks = [*random_marks(found.random_adapters), *mean_marks(probe)]
    if least := found.thresholds.get("min_shift"):
        marks.append(Mark("threshold", f"the mean passes from {least:g}", least, least))
    yield bars_figure(
        "Shift of each pair", ("pair", found.names(len(found.per_pair))),
        ("shift", found.per_pair), marks, axis="towards the wanted completion, nats",
        more=[("margin, base", found.margins_base), ("margin, fine-tuned", found.margins_tuned)],
    )  # fmt: skip
    least_z = z_marks(probe, found.random_adapters, found.thresholds.get("min_z"))
    yield from null_figure(probe, found.random_adapters, list(least_z), "mean shift, nats")


def _ablation(probe: ProbeResult, seed: int) -> Iterator[Figure]:
    found = AblationEvidence.model_validate(probe.evidence)
    x, y = found.lambdas, found.mean_divergence_per_lambda
    lines, marks = [], []
    if found.linearity is not None:
        said = f"straight line through it: R² {found.linearity:.2f}"
        above_0 = [(at, value) for at, value in _fitted(x, y) if value >= 0]
        lines.append(Line("fit", said, above_0))
    if (full := found.saturation_lambda) is not None:
        said = "saturation: 90 % of the maximum" if full < x[-1] else "no saturation: still rising"
        marks.append(Mark("mark", f"{said} at λ = {full:g}", full, full))
    if found.overshoot is not None and 1.0 in x:
        level = y[x.index(1.0)]
        said = f"overshoot {found.overshoot:.2f}: the end over this level of λ = 1"
        lines.append(Line("level", said, [(1.0, level), (x[-1], level)]))
    points = curve_points(x, y, found.per_prompt, seed)
    svg = curve(
        points, lines, marks, curve_keys(points, found.per_prompt),
        axes=("λ, the adapter's strength", f"mean {found.divergence} from λ = 0, nats"),
        label=f"{probe.name}: mean divergence over λ",
    )  # fmt: skip
    yield Figure("Effect over the adapter's strength", svg, points_table("λ", points))


def _collapse(probe: ProbeResult, seed: int) -> Iterator[Figure]:
    found = CollapseEvidence.model_validate(probe.evidence)
    x, y = found.context_lengths, found.mean_divergence_per_length
    lines, marks = [], []
    if probe.raw is not None:
        life = measured(probe).raw
        logs = [math.log(max(value, _SMALLEST)) for value in y]
        decay = [(at, math.exp(log)) for at, log in _fitted(x, logs)]
        lines.append(Line("fit", f"fitted decay: it halves every {life:.0f} tokens", decay))
        if life <= x[-1]:
            marks.append(Mark("mark", f"half-life {life:.0f} tokens", life, life))
    least = found.thresholds.get("min_half_life")
    if least is not None and least <= x[-1]:
        marks.append(Mark("threshold", f"a half-life passes from {least:g} tokens", least, least))
    points = curve_points(x, y, found.per_prompt, seed)
    svg = curve(
        points, lines, marks, curve_keys(points, found.per_prompt),
        axes=("filler before the prompt, tokens", f"mean {found.divergence}, nats"),
        label=f"{probe.name}: mean divergence over the length of the context",
    )  # fmt: skip
    yield Figure(
        "Effect over the length of the context", svg, points_table("filler, tokens", points)
    )


def _fitted(x: Sequence[float], y: Sequence[float]) -> list[tuple[float, float]]:
    """Return points of the straight line through points (least squares).

    There are none where the numbers are too large, too small or too close for a line.
    """
    with np.errstate(all="ignore"):
        centred = np.asarray(x) - np.mean(x)
        slope = centred @ np.asarray(y) / (centred @ centred)
        places = np.linspace(x[0], x[-1])
        values = np.mean(y) + slope * (places - np.mean(x))
    points = list(zip(places.tolist(), values.tolist(), strict=True))
    return points if all(abs(value) < _LARGEST for _, value in points) else []


_MAKERS: Final[dict[str, Callable[[ProbeResult, int], Iterator[Figure]]]] = {
    "delta_kl": _divergence,
    "adapter_ablation": _ablation,
    "prompt_collapse": _collapse,
    "perplexity_shift": _perplexity,
    "completion_preference": _preference,
}
#: Kinds of probes that have charts of their own.
CHARTED: Final = frozenset(_MAKERS)
