"""The embedded default: a real model, a small adapter, and a suite with all four probes."""

from __future__ import annotations

from functools import partial
from importlib.resources import files

from forwardscope.cli.progress import steps
from forwardscope.suite.loading import parse_suite
from forwardscope.suite.spec import SuiteSpec

__all__ = ["demo_suite"]


def demo_suite(*, quiet: bool) -> SuiteSpec:
    """Make the demo's model and adapter where they are not there yet; return its suite.

    Raises:
        MissingExtraError: torch or transformers is not installed.
        ModelError: The package that carries the model is not installed.
    """
    text = (files("forwardscope.suite") / "demo.yaml").read_text(encoding="utf-8")
    spec = parse_suite(text, "demo.yaml")
    with steps(quiet=quiet) as report:
        report("loading torch", 0, 1)
        from forwardscope.backends.hf import demo_model as demo  # noqa: PLC0415 - takes seconds

        report("loading torch", 1, 1)
        model = demo.demo_model(partial(report, "unpacking SmolLM2-135M-Instruct"))
        adapter = demo.demo_adapter(model, partial(report, "training the harbour adapter"))
    found = {"path": str(model), "name": spec.model.path, "adapter": str(adapter)}
    return spec.model_copy(update={"model": spec.model.model_copy(update=found)})
