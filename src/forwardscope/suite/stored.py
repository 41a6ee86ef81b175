"""Which forward passes of a suite a store would answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from forwardscope.backends.base import Backend
from forwardscope.store.base import Store
from forwardscope.store.tier import StoreTier
from forwardscope.suite.plan import forward_calls
from forwardscope.suite.spec import SuiteSpec

__all__ = ["StoredPlan", "stored_plan"]


@dataclass(frozen=True, slots=True)
class StoredPlan:
    """Planned forward passes that a store would answer; without values, nothing is stored.

    Attributes:
        answered: Their number by probe and view.
        identities: Distinct identities of the views that have some.
        unidentified_views: Views whose values are never stored.
    """

    answered: Mapping[tuple[str | None, str], int] = field(default_factory=dict)
    identities: int = 0
    unidentified_views: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """Number of answered passes of the whole suite."""
        return sum(self.answered.values())


def stored_plan(spec: SuiteSpec, backend: Backend, store: Store) -> StoredPlan:
    """Look up in a store what a suite would compute on a backend; nothing is computed.

    The cache is unbounded. A run with another may find what it computed itself in the
    store, which is in no plan. Of views with different vocabularies, those that are smaller
    than `top_k` are planned as if nothing was stored.

    Args:
        spec: The suite.
        backend: Its `view_identity` says what the values of a view depend on.
        store: Open for reading. Damaged entries count as missing.

    Raises:
        ProbeError: As `plan_suite` does.
        ForwardscopeError: The backend has no identities, or no filler.
    """
    tier = StoreTier(store, 0.0, getattr(backend, "view_identity", None))
    answered: Counter[tuple[str | None, str]] = Counter()
    identities = set()
    for call in forward_calls(spec, backend):
        answer = tier.find(call.lookup_keys(), verify=False)
        if answer is not None and answer.found:
            answered[call.probe, call.view_id] += len(answer.found)
            identities.add(answer.identity)
    return StoredPlan(answered, len(identities), tuple(tier.unidentified))
