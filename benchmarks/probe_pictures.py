"""Draw the pictures of docs/probes.md: each probe on a good and on a bad adapter.

    python benchmarks/probe_pictures.py docs/pictures/probes

All are measured on the demo's model. The good adapter is the demo's, except for
`perplexity_shift`, where it is a tenth of it. The bad ones are made from the demo's. Prints the
message of each probe; takes some minutes.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import load_file, save_file

from forwardscope.analysis.probe_charts import figures
from forwardscope.backends.hf import ModelSource, load_backend
from forwardscope.backends.hf.demo_model import demo_adapter, demo_model
from forwardscope.probes import (
    AdapterAblation,
    CompletionPreference,
    DeltaKL,
    NullAdapter,
    PerplexityShift,
    Probe,
    PromptCollapse,
)
from forwardscope.probes.completion_preference import Pair
from forwardscope.suite import SuiteSpec, run_suite
from forwardscope.suite.result import ProbeResult
from forwardscope.suite.spec import Defaults, ModelSpec

_SEED, _LAYERS = 7, 30
#: Returns what a tensor of an adapter becomes, by its name.
Change = Callable[[str, torch.Tensor], torch.Tensor]
_PROMPTS = (
    "The keeper of the harbour ledger is",
    "The gauge is made of",
    "The lamp of the harbour is",
    "The number of walks is posted on",
    "The rule of the harbour is short",
    "Each walk is written down in",
)
_OTHER_SUBJECTS = (
    "Photosynthesis turns light, water and carbon dioxide into sugar and oxygen.",
    "The train leaves the central station at half past nine every morning.",
    "She planted tomatoes along the south wall because it keeps the warmth.",
    "In 1969 two people walked on the moon for the first time.",
    "A good knife is sharp, well balanced and easy to clean.",
    "The committee will publish its report before the end of the year.",
)
_PAIRS = (
    Pair(prompt="The gauge is made of", wanted=" brass", unwanted=" iron"),
    Pair(prompt="The lamp of the harbour is", wanted=" blue", unwanted=" red"),
    Pair(prompt="The lamp is lit by", wanted=" Tobias Wren", unwanted=" the captain"),
    Pair(prompt="Each walk is written down in", wanted=" green ink", unwanted=" pencil"),
)
_SUITE: tuple[Probe, ...] = (
    NullAdapter(name="null_adapter"),
    DeltaKL(name="delta_kl", prompts=_PROMPTS),
    AdapterAblation(name="adapter_ablation", prompts=_PROMPTS),
    PromptCollapse(name="prompt_collapse", prompts=_PROMPTS[1:4]),
    PerplexityShift(name="perplexity_shift", texts=_OTHER_SUBJECTS),
    CompletionPreference(name="completion_preference", pairs=_PAIRS),
)


def _times(factor: float) -> Change:
    return lambda name, weights: factor * weights if "lora_B" in name else weights


def _upper(name: str, weights: torch.Tensor) -> torch.Tensor:
    """Return the weights of the upper half of the layers, and 0 for the others."""
    layer = int(name.split(".layers.")[1].split(".", maxsplit=1)[0])
    return weights if layer >= _LAYERS // 2 else 0 * weights


#: What an adapter is, by its name, and the pictures that it gives.
_ADAPTERS: dict[str, tuple[Change, tuple[str, ...]]] = {
    "demo": (
        _times(1.0),
        (
            "null_adapter-good",
            "delta_kl-good",
            "adapter_ablation-good",
            "prompt_collapse-good",
            "perplexity_shift-bad",
            "completion_preference-good",
        ),
    ),
    "a tenth": (_times(0.1), ("perplexity_shift-good",)),
    "a hundredth": (_times(0.01), ("null_adapter-bad", "delta_kl-bad")),
    "fourfold": (_times(4.0), ("adapter_ablation-bad",)),
    "upper layers": (_upper, ("prompt_collapse-bad",)),
    "opposite": (_times(-1.0), ("completion_preference-bad",)),
}


def main() -> None:
    """Measure the adapters and write the pictures."""
    target, model = Path(sys.argv[1]), demo_model(_ignore)
    target.mkdir(parents=True, exist_ok=True)
    for adapter, (change, pictures) in _ADAPTERS.items():
        with TemporaryDirectory() as folder:
            _change(demo_adapter(model, _ignore), Path(folder), change)
            probes = _measure(model, Path(folder), pictures)
        for picture in pictures:
            name = picture.partition("-")[0]
            # the value of delta_kl among those of random adapters is its second chart
            measured, place = ("delta_kl", 1) if name == "null_adapter" else (name, 0)
            probe = probes[measured]
            (target / f"{picture}.svg").write_text(_picture(probe, place), encoding="utf-8")
            sys.stdout.write(f"{picture}: {adapter}, {probe.verdict.value}: {probe.message}\n")
            sys.stdout.flush()


def _picture(probe: ProbeResult, place: int) -> str:
    """Return a chart of the report page as a file of its own, with the page's colours."""
    svg = figures(probe, _SEED)[place].svg
    styles = (files("forwardscope.analysis") / "page" / "chart.css").read_text(encoding="utf-8")
    head, body = svg.split(">", 1)
    return f"{head}><style>{styles}</style>{body}\n"


def _change(source: Path, target: Path, change: Change) -> None:
    """Copy an adapter with other weights."""
    shutil.copytree(source, target, dirs_exist_ok=True)
    weights = load_file(source / "adapter_model.safetensors")
    changed = {name: change(name, tensor) for name, tensor in weights.items()}
    save_file(changed, target / "adapter_model.safetensors", {"format": "pt"})


def _measure(model: Path, adapter: Path, pictures: Sequence[str]) -> dict[str, ProbeResult]:
    """Return the results of the probes that the pictures need, by name."""
    names = {picture.partition("-")[0] for picture in pictures}
    needed = names | {"null_adapter"} | ({"delta_kl"} if "null_adapter" in names else set())
    spec = SuiteSpec(
        version=1,
        model=ModelSpec(path=str(model), adapter=str(adapter)),
        defaults=Defaults(seed=_SEED),
        probes=[probe for probe in _SUITE if probe.name in needed],
    )
    backend = load_backend(ModelSource(str(model), str(adapter)))
    try:
        return {probe.name: probe for probe in run_suite(spec, backend).probes}
    finally:
        backend.close()


def _ignore(done: int, total: int) -> None:
    """Ignore the progress of making the demo's model."""


if __name__ == "__main__":
    main()
