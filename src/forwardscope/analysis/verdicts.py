"""What the verdict of a probe means, and how sure it is, in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from forwardscope.probes import Verdict
from forwardscope.suite.formats import format_z
from forwardscope.suite.result import ProbeResult
from forwardscope.text import plural

__all__ = ["certainty", "meaning"]

#: Fewer random adapters give a rough z; see docs/probes.md.
_FEW: Final = 8
#: Kinds whose verdict compares with random adapters where there are some.
_COMPARED: Final = ("delta_kl", "perplexity_shift", "completion_preference")

_NO_EFFECT: Final = "The adapter has no effect."
_PASSED: Final = {
    "null_adapter": "The probes below are compared with random adapters of the same shape.",
    "adapter_ablation": "The effect grows evenly with the adapter's strength.",
    "prompt_collapse": "The adapter keeps its effect when the context is long.",
    "completion_preference": "The adapter moves the model towards the wanted completions.",
    "lm-eval": "It has run; a task has no limit of its own.",
}


def meaning(probe: ProbeResult) -> str:
    """Return one sentence that says what the verdict means for the adapter."""
    if probe.verdict is Verdict.ERROR:
        return "The measurement failed, so it says nothing about the adapter."
    if probe.verdict is Verdict.SKIP:
        return "Nothing was measured."
    passed = probe.verdict is Verdict.PASS
    if probe.kind == "delta_kl":
        return _change(probe, passed=passed)
    if probe.kind == "perplexity_shift":
        return _perplexity(probe, passed=passed)
    if probe.kind == "prompt_collapse" and _is_zero(probe.evidence):
        return _NO_EFFECT
    if not passed and probe.kind in _FAILED:
        return _FAILED[probe.kind](probe)
    said = _PASSED.get(probe.kind) if passed else None
    return said or f"The value is {'' if passed else 'not '}within its limit."


def certainty(probe: ProbeResult) -> str:
    """Return how sure a value is: its interval, how many prompts, and its random adapters."""
    return "; ".join((*_sample(probe), *_comparison(probe)))


def _change(probe: ProbeResult, *, passed: bool) -> str:
    more = "by more than the threshold"
    if probe.z_score is not None:
        more = "clearly more than random adapters of its shape do"
    if passed:
        return f"The adapter changes what the model says next {more}."
    return (
        f"The adapter does not change what the model says next {more}: it may be untrained or "
        "not in use."
    )


def _perplexity(probe: ProbeResult, *, passed: bool) -> str:
    expect = probe.evidence.get("expect")
    if expect == "learned":
        learned = "has learned" if passed else "has not learned"
        return f"The adapter {learned} text like this."
    if expect == "kept":
        kept = "leaves the model as good" if passed else "makes the model worse"
        return f"The adapter {kept} at text like this{' as it was' if passed else ''}."
    return f"The perplexity of the texts is {'' if passed else 'not '}within its limit."


def _is_zero(evidence: dict[str, Any]) -> bool:
    """Return whether the adapter has no effect at any length of the context."""
    means = evidence.get("mean_divergence_per_length")
    return isinstance(means, list) and bool(means) and not any(means)


def _response(probe: ProbeResult) -> str:
    """Return what is wrong with the curve, worst first."""
    found, least = probe.evidence, _mapping(probe.evidence.get("thresholds"))
    if probe.raw is None:
        return _NO_EFFECT
    if _below(found.get("saturation_lambda"), least.get("min_saturation")):
        return "A fraction of the adapter has almost its whole effect: it is probably overtrained."
    if _below(found.get("overshoot"), least.get("min_overshoot")):
        return "The effect shrinks when the adapter is made stronger: it is probably overtrained."
    return "The effect does not grow evenly with the adapter's strength."


def _collapse(_: ProbeResult) -> str:
    return "The adapter loses its effect when the context is long."


def _preference(probe: ProbeResult) -> str:
    least = _mapping(probe.evidence.get("thresholds"))
    if _below(least.get("min_shift"), probe.raw) and _below(probe.z_score, least.get("min_z")):
        return (
            "The adapter moves the model towards the wanted completions, but not clearly more "
            "than random adapters of its shape do."
        )
    return "The adapter does not move the model towards the wanted completions."


def _sample(probe: ProbeResult) -> Iterator[str]:
    per_prompt = probe.evidence.get("per_prompt")
    if probe.interval_note is not None:
        yield probe.interval_note
    elif probe.n == 1:
        yield "one value alone, so there is no interval"
    elif probe.n is not None:
        yield f"from {plural(probe.n, 'value')}, without an interval"
    elif isinstance(per_prompt, list) and per_prompt:
        intervals = ", with the interval of each point in the chart" if len(per_prompt) > 1 else ""
        yield f"from {plural(len(per_prompt), 'prompt')}{intervals}"


def _comparison(probe: ProbeResult) -> Iterator[str]:
    random = _mapping(probe.evidence.get("random_adapters"))
    number = random.get("n")
    if probe.z_score is not None:
        said = f"z {format_z(probe.z_score)}"
        if isinstance(number, int):
            said += f" of {plural(number, 'random adapter')}"
            said += f", fewer than {_FEW}, so z is rough" if number < _FEW else ""
        yield said
    elif probe.kind in _COMPARED and probe.verdict in (Verdict.PASS, Verdict.FAIL):
        why = "the random adapters are equal or one" if random else "no random adapters before it"
        yield f"without z: {why}"


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _below(value: Any, least: Any) -> bool:
    numbers = isinstance(value, int | float) and isinstance(least, int | float)
    return numbers and value < least


_FAILED: Final[dict[str, Callable[[ProbeResult], str]]] = {
    "adapter_ablation": _response,
    "prompt_collapse": _collapse,
    "completion_preference": _preference,
}
