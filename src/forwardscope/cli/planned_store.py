"""What the store of a suite has, for `forwardscope plan`."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from forwardscope.analysis.formatting import count, plural
from forwardscope.backends.base import Backend
from forwardscope.cli.progress import steps
from forwardscope.errors import ForwardscopeError
from forwardscope.instrumentation import BackendInstrumentation
from forwardscope.store.base import Store
from forwardscope.store.locations import is_server, open_existing, open_store, store_name
from forwardscope.suite.backend import load_model as _load
from forwardscope.suite.model_spec import ServedModelSpec
from forwardscope.suite.spec import SuiteSpec
from forwardscope.suite.stored import StoredPlan, stored_plan
from forwardscope.text import printable, shown

__all__ = ["PlannedStore", "planned_store"]


@dataclass(frozen=True, slots=True)
class PlannedStore:
    """A store and what it would answer.

    Attributes:
        name: The store.
        exists: Whether there is one.
        plan: What it would answer; None where that is not known.
        reason: Why it is not known.
        verifies: Whether a run computes some of the stored values again.
        backend: The suite's model; None where it was not loaded.
        unidentified: Why values of views are never stored.
    """

    name: str
    exists: bool
    plan: StoredPlan | None
    reason: str | None = None
    verifies: bool = False
    backend: Backend | None = None
    unidentified: str = ""

    def facts(self, needed: int) -> dict[str, Any]:
        """Return it as plain data.

        Args:
            needed: Forward passes of the suite.
        """
        plan = self.plan
        return {
            "name": self.name,
            "exists": self.exists,
            "stored": None if plan is None else plan.total,
            "to_pay": None if plan is None else needed - plan.total,
            "verified_at_least": None if plan is None else self._verified(plan),
            "unidentified_views": [] if plan is None else list(plan.unidentified_views),
            "reason": self.reason,
        }

    def sentences(self, needed: int) -> Iterator[str]:
        """Yield it as sentences; `needed` as for `facts`."""
        if self.plan is None:
            yield f"what the store {self.name} would answer is not known: {self.reason}"
        elif not self.exists:
            yield f"nothing is stored yet in {self.name}: a run would pay all {count(needed)}"
        else:
            yield from self._answers(self.plan, needed)

    def _answers(self, plan: StoredPlan, needed: int) -> Iterator[str]:
        yield (
            f"store {self.name}: {count(plan.total)} of {plural(needed, 'forward pass')} stored, "
            f"{count(needed - plan.total)} to pay"
        )
        if least := self._verified(plan):
            yield f"a run computes at least {plural(least, 'stored value')} again, to verify them"
        if plan.unidentified_views:
            views = ", ".join(map(shown, plan.unidentified_views))
            yield f"never stored {self.unidentified}: {views}"

    def _verified(self, plan: StoredPlan) -> int:
        """Return how many stored values a run computes again at least."""
        return plan.identities if self.verifies else 0


@contextmanager
def planned_store(spec: SuiteSpec, location: str) -> Iterator[PlannedStore]:
    """Yield what a store would answer. The store is only read, and not made.

    A store has values by the content of the model, which must be loaded for it. No
    forward pass is run. Where there is no store, no model is loaded.

    Raises:
        StoreError: It is no store, or cannot be opened.
    """
    name = store_name(location)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # there is none, which the plan says
        opener = open_existing if is_server(location) else open_store
        store = opener(location, mode="read")
    if store is None:
        yield PlannedStore(name, exists=False, plan=StoredPlan())
        return
    asked = _ask(spec, store, name)
    try:
        yield asked
    finally:
        store.close()
        if asked.backend is not None:
            asked.backend.close()


def _ask(spec: SuiteSpec, store: Store, name: str) -> PlannedStore:
    backend = None
    try:
        with steps(quiet=False, transient=True) as report_progress:
            backend = _load(spec, BackendInstrumentation(), report_progress, check=False)
        plan = stored_plan(spec, backend, store)
    except ForwardscopeError as error:
        return PlannedStore(
            name, exists=True, plan=None, reason=printable(str(error)), backend=backend
        )
    return PlannedStore(
        name,
        exists=True,
        plan=plan,
        verifies=spec.cache.verify > 0,
        backend=backend,
        unidentified=_why_unidentified(spec),
    )


def _why_unidentified(spec: SuiteSpec) -> str:
    if isinstance(spec.model, ServedModelSpec) and spec.model.revision is None:
        return "without model.revision"
    return "because nothing says what determines them"
