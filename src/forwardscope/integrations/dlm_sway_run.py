"""Suites of dlm-sway on our instrumentation, and its command line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final
from weakref import ref

from dlm_sway import backends
from dlm_sway.backends import two_model
from dlm_sway.cli import app
from dlm_sway.core.determinism import seed_everything
from dlm_sway.suite import runner

from forwardscope.backends.views import BASE, FINETUNED
from forwardscope.errors import UserError
from forwardscope.instrumentation import BackendInstrumentation
from forwardscope.integrations.dlm_sway import Backend
from forwardscope.integrations.dlm_sway_identity import SwayIdentity, identity_of
from forwardscope.integrations.dlm_sway_results import Notes, measured_of
from forwardscope.integrations.dlm_sway_views import watched
from forwardscope.integrations.replaced import replaced
from forwardscope.integrations.tool_run import About, ToolRun, spec_of_tool
from forwardscope.suite.spec import SuiteSpec
from forwardscope.trace import TraceEvent, TraceWriter

__all__ = ["OpenRun", "instrumented", "run_sway"]

_NAME: Final = "sway"
#: What of dlm-sway is replaced, or read, while it runs.
_NEEDED: Final = (
    (app, "app"),
    (runner, "run"),
    (runner, "build_probe"),
    (backends, "build"),
    (two_model, "TwoModelDifferential"),
)

#: Opens the run of a suite; at its end what was recorded is delivered.
OpenRun = Callable[[SuiteSpec], AbstractContextManager[ToolRun]]


def run_sway(
    arguments: Sequence[str], open_run: OpenRun, *, name: str = _NAME, revision: str | None = None
) -> None:
    """Run a command line of dlm-sway in this process, with its suites instrumented.

    All files and all output of dlm-sway are as without us.

    Args:
        arguments: The arguments after `sway`.
        open_run: As in `instrumented`.
        name: As in `instrumented`.
        revision: As in `instrumented`.

    Raises:
        UserError: As for `instrumented`.
        SystemExit: dlm-sway has ended, with a status.
        BaseException: Whatever dlm-sway raised, unchanged.
    """
    with instrumented(open_run, name=name, revision=revision):
        app.app(args=list(arguments), prog_name=_NAME)


@contextmanager
def instrumented(
    open_run: OpenRun, *, name: str = _NAME, revision: str | None = None
) -> Iterator[None]:
    """Have each suite that dlm-sway's runner runs meanwhile make its lookups in a run of ours.

    Args:
        open_run: Opens the run of a suite.
        name: Name of the suites.
        revision: Says which models these are, where their content cannot be read.

    Raises:
        UserError: This version of dlm-sway lacks something that is replaced here.
    """
    _check_version()
    run_suite, make, made = runner.run, backends.build, _Made()

    def build(base_spec: Any, *, adapter_path: Path | None = None) -> Any:
        backend = make(base_spec, adapter_path=adapter_path)
        adapter = base_spec.adapter if adapter_path is None else adapter_path
        made.add(backend, base_spec.model_copy(update={"adapter": adapter}))
        return backend

    def run(spec: Any, backend: Any, *, trace_path: Path | None = None, **settings: Any) -> Any:
        notes = Notes()
        tuned = made.spec_of(backend) or spec.models.ft  # `diff` gives others than the suite's
        named = spec_of_tool(name, spec.models.base.base, str(tuned.adapter or tuned.base))
        with open_run(named) as opened:
            inst = opened.instrumentation
            # as the runner begins: it changes how torch computes, which is in the identities
            seed_everything(spec.defaults.seed, strict=True)
            with (
                _traced(inst, trace_path),
                _watched(backend, made.spec_of, inst, revision) as about,
                _labelled(opened, notes),
            ):
                result = run_suite(spec, backend, **settings)
            notes.show = opened.spec.show_errors
            opened.finish({one.name: measured_of(one, notes) for one in result.probes}, about)
        return result

    with replaced(runner, "run", run), replaced(backends, "build", build):
        yield


class _Made:
    """The specs from which backends were made; it does not keep a backend alive."""

    def __init__(self) -> None:
        self._specs: list[tuple[ref[Any], Any]] = []

    def add(self, backend: Any, spec: Any) -> None:
        """Note the spec of a backend, and forget those of backends that are gone."""
        alive = [pair for pair in self._specs if pair[0]() is not None]
        with suppress(TypeError):  # of a class with slots, which cannot be instrumented
            alive.append((ref(backend), spec))
        self._specs = alive

    def spec_of(self, backend: Any) -> Any:
        """Return the latest spec of a backend; None if it was made elsewhere."""
        return next((spec for one, spec in reversed(self._specs) if one() is backend), None)


def _check_version() -> None:
    for module, name in _NEEDED:
        if not hasattr(module, name):
            raise UserError(
                f"dlm-sway {version('dlm-sway')} has no {module.__name__}.{name}, so that its "
                "suites cannot be instrumented; use dlm-sway 0.1.0"
            )


@contextmanager
def _watched(
    backend: Any,
    made_from: Callable[[Any], Any],
    inst: BackendInstrumentation,
    revision: str | None,
) -> Iterator[About]:
    """Have a backend make its lookups through an instrumentation; yield what is known of it."""
    if isinstance(backend, Backend):
        with backend.recorded_in(inst) as about:
            yield about
        return
    identity = identity_of(backend, made_from, revision)
    inst.identify_views(identity.digest, identity.tolerance, identity.parts)
    with watched(backend, inst):
        yield _about(identity, inst)


def _about(identity: SwayIdentity, inst: BackendInstrumentation) -> About:
    base, tuned = identity.digest(BASE), identity.digest(FINETUNED)
    not_stored = inst.store is not None and identity.reason is not None
    return About(
        identity=tuned or "",
        base_identity=base,
        tuned_identity=tuned,
        dtype=identity.dtype,
        device=identity.device,
        warnings=[f"answers are not stored: {identity.reason}"] if not_stored else (),
    )


@contextmanager
def _labelled(run: ToolRun, notes: Notes) -> Iterator[None]:
    """Give each probe of a suite its span and its label; note whose it is and its error."""
    build = runner.build_probe

    class Labelled:
        """A probe in the eyes of the runner."""

        def __init__(self, probe: Any) -> None:
            self._probe = probe

        def __getattr__(self, name: str) -> Any:
            return getattr(self._probe, name)

        def run(self, spec: Any, ctx: Any) -> Any:
            with run.probe(spec.name):
                try:
                    return self._probe.run(spec, ctx)
                except Exception as error:
                    notes.errors[spec.name] = type(error).__name__
                    raise

    def build_labelled(raw: Any) -> tuple[Any, Any]:
        probe, spec = build(raw)
        notes.add(spec)
        return Labelled(probe), spec

    with replaced(runner, "build_probe", build_labelled):
        yield


@contextmanager
def _traced(inst: BackendInstrumentation, path: Path | None) -> Iterator[None]:
    """Write the trace of `sway --trace` beside ours."""
    if path is None:
        yield
        return
    own, theirs = inst.trace, TraceWriter(path)
    inst.trace = _Both(own, theirs) if own.enabled else theirs
    try:
        yield
    finally:
        inst.trace = own
        theirs.close()


class _Both(TraceWriter):
    """Writes each record to two traces."""

    def __init__(self, one: TraceWriter, other: TraceWriter) -> None:
        super().__init__(None)
        self._writers = one, other

    @property
    def enabled(self) -> bool:
        return True

    def write_batch(self, events: Sequence[TraceEvent]) -> None:
        for writer in self._writers:
            writer.write_batch(events)
