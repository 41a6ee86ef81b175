"""Our batched backend for suites of dlm-sway.

    models:
      base: &model
        kind: custom
        entry_point: forwardscope.integrations.dlm_sway:Backend
        base: HuggingFaceTB/SmolLM2-135M-Instruct
      ft: {<<: *model, adapter: ./my-adapter}

The values are those of dlm-sway's own backend, but for rounding.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
from dlm_sway.core.errors import SpecValidationError
from dlm_sway.core.model import ModelSpec
from dlm_sway.suite import runner

from forwardscope.errors import UserError
from forwardscope.instrumentation import BackendInstrumentation
from forwardscope.integrations.dlm_sway_ahead import Answers, lookups_of
from forwardscope.integrations.dlm_sway_lookups import Lookup, LookupBackend, compute
from forwardscope.integrations.dlm_sway_views import PassedThrough
from forwardscope.integrations.replaced import replaced
from forwardscope.integrations.tool_run import About
from forwardscope.suite.spec import CacheSpec

__all__ = ["Backend"]

_DTYPES: Final = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}
#: The lookup with which dlm-sway's own backends check themselves before a suite.
_PREFLIGHT: Final = "hello"
_PREFLIGHT_K: Final = 8


class Backend(LookupBackend):
    """A backend of dlm-sway over ours, with all abilities of its own one. For one thread.

    Args:
        base_spec: The model.
        adapter_path: Its adapter.

    Raises:
        SpecValidationError: The model or the adapter cannot be loaded.
    """

    safe_for_concurrent_views: ClassVar[bool] = False

    def __init__(self, *, base_spec: ModelSpec, adapter_path: Path | None) -> None:
        backend = _load(base_spec, adapter_path)
        super().__init__(backend, _with_padding(backend.tokenizer))
        self._inst = PassedThrough(backend.instrumentation)
        self._answers = Answers()
        _plan_probes()

    def answer(self, view: Any, lookup: Lookup) -> Any:
        """Return a value that was computed ahead, else look it up now."""
        value = self._answers.take(lookup)
        return compute(view, lookup) if value is None else value

    def generate(self, view: Any, prompt: str, **settings: Any) -> str:
        """Generate a text."""
        return str(view.generate(prompt, **settings))

    def cache_identity(self) -> str:
        """Return what determines all values, for dlm-sway's file of random adapters."""
        return f"forwardscope:{self.backend.identity()}"

    def preflight_finite_check(self) -> tuple[bool, str]:
        """Return whether both views give finite values, and why not."""
        try:
            for opened in (self.as_base(), self.as_finetuned()):
                with opened as view:
                    dist = view.next_token_dist(_PREFLIGHT, top_k=_PREFLIGHT_K)
                    if not np.isfinite(dist.logprobs).all():
                        return False, f"view {view.id} gave values that are not finite"
        except Exception as error:  # noqa: BLE001 - it is the reason
            return False, f"{type(error).__name__}: {error}"
        return True, ""

    def close(self) -> None:
        """Free the weights; may be called twice."""
        self.backend.close()

    @contextmanager
    def ahead(self, lookups: list[Lookup]) -> Iterator[None]:
        """Compute lookups in batches, and answer them from that while the context is open."""
        self._answers.compute(self.backend, lookups)
        try:
            yield
        finally:
            self._answers = Answers()

    @contextmanager
    def recorded_in(self, instrumentation: BackendInstrumentation) -> Iterator[About]:
        """Make all lookups through another instrumentation; yield what is known of the model."""
        backend, before = self.backend, self.backend.instrumentation
        backend.record_in(instrumentation)
        try:
            with replaced(self, "_inst", PassedThrough(instrumentation)):
                yield About(
                    identity=backend.identity(),
                    base_identity=backend.view_identity("base"),
                    tuned_identity=backend.view_identity("ft"),
                    exactness=backend.exactness,
                    dtype=backend.dtype,
                    device=backend.device,
                    warnings=backend.warnings,
                )
        finally:
            backend.record_in(before)


class _Planned:
    """A probe whose lookups are computed ahead, on a `Backend`."""

    def __init__(self, probe: Any) -> None:
        self._probe: Final = probe

    def __getattr__(self, name: str) -> Any:
        return getattr(self._probe, name)

    def run(self, spec: Any, ctx: Any) -> Any:
        """Run the probe."""
        if not isinstance(ctx.backend, Backend):
            return self._probe.run(spec, ctx)

        def run_on(backend: Any) -> object:
            return self._probe.run(spec, replace(ctx, backend=backend))

        with ctx.backend.ahead(lookups_of(run_on, ctx.backend)):
            return self._probe.run(spec, ctx)


def _plan_probes() -> None:
    """Have dlm-sway's runner plan its probes, from now on; those on other backends are as before.

    The runner has no other way to say which probe comes next.
    """
    build = runner.build_probe
    if getattr(build, "plans", False):
        return

    def build_planned(raw: dict[str, Any]) -> tuple[Any, Any]:
        probe, spec = build(raw)
        return _Planned(probe), spec

    build_planned.plans = True  # type: ignore[attr-defined]
    runner.build_probe = build_planned


def _load(spec: ModelSpec, adapter: Path | None) -> Any:
    """Load a backend of ours; its mistakes are those of dlm-sway, which prints them."""
    try:
        if adapter is None:
            raise UserError("give the adapter of the tuned model, as adapter: PATH under ft")
        if spec.trust_remote_code:
            raise UserError("leave out trust_remote_code: the code of a model is never run here")
        from forwardscope.backends import hf  # noqa: PLC0415 - takes a second

        return hf.load_backend(
            hf.ModelSource(
                path=spec.base,
                adapter=str(adapter),
                device=spec.device,
                dtype=_DTYPES.get(spec.dtype, spec.dtype),
            ),
            instrumentation=BackendInstrumentation(cache_maxsize=CacheSpec().max_entries),
        )
    except UserError as error:
        raise SpecValidationError(str(error)) from error


def _with_padding(tokenizer: Any) -> Any:
    """Return a copy of a tokenizer that has a pad token, as dlm-sway gives it one."""
    own = copy.deepcopy(tokenizer)
    if own.pad_token_id is None:
        own.pad_token = own.eos_token
    return own
