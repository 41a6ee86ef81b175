"""Forward calls, and the store that is searched before them.

They answer the lookups that miss in the cache. What another machine computes is waited for,
after the rest is computed. A share of the values from the store is computed again to verify
it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final, Literal

from msgspec.structs import replace

from forwardscope.core.cache import Entry
from forwardscope.core.keys import LookupKey, question_of
from forwardscope.core.single_flight import Flight, SingleFlight
from forwardscope.forward_leases import LeasedKeys
from forwardscope.recorder import Outcome, misses_of
from forwardscope.store.base import StoredEntry
from forwardscope.store.tier import Answer, StoreTier
from forwardscope.telemetry.span_factory import CallIds
from forwardscope.telemetry.spans import CallSpans

__all__ = ["Compute", "ForwardCalls"]

#: Computes the values of keys, in order.
Compute = Callable[[Sequence[LookupKey]], Sequence[Any]]

#: In place of the entries of values that are not kept.
_NOT_KEPT: Final = Entry(None, 0, None, None)


class ForwardCalls:
    """Makes the forward calls of one backend. Safe under threads; no lock is held in a call.

    Args:
        flights: The forward calls in flight.
        store_tier: Is searched before a forward call; None without a store.
        shows: Returns whether lookups have trace lines or spans now.
        now: Reads the clock, in nanoseconds.

    Attributes:
        stopping: Whether a stop was requested: then a call raises KeyboardInterrupt.
    """

    def __init__(
        self,
        flights: SingleFlight,
        store_tier: StoreTier | None,
        shows: Callable[[], bool],
        now: Callable[[], int],
    ) -> None:
        self.stopping = False
        self._flights = flights
        self._tier = store_tier
        self._shows = shows
        self._now = now

    def lead(
        self,
        flight: Flight,
        keys: Sequence[LookupKey],
        spans: CallSpans | None,
        compute: Compute,
        stored: dict[LookupKey, Outcome],
    ) -> None:
        """Answer the keys that this thread has claimed from the store, and compute the rest.

        The flight keeps the keys that are computed; the outcomes of the others are
        added to `stored`. What another machine was computing and did not store is computed
        in a later call of the flight.
        """
        flight.keys, tier, answer = keys, self._tier, None
        leased: LeasedKeys | None = None
        try:
            if tier is not None:
                answer = self._find_stored(tier, flight, stored)
                if answer is not None and flight.keys:
                    began = self._now()
                    leased = LeasedKeys(tier, answer, flight.keys)
                    leased.claim()
                    self._take_leased(leased, began, flight, stored)
            if flight.keys:
                self._call_and_keep(flight, spans, compute)
            if leased is not None and leased.waits:
                self._wait(leased, flight, spans, compute, stored)
            if tier is not None and answer is not None and answer.to_verify:
                self._verify(tier, answer, flight, spans, compute, stored)
        except BaseException as raised:
            flight.error = type(raised).__name__
            self._flights.release(flight, keys)
            if tier is not None and answer is not None and answer.to_verify:
                tier.postpone(answer)
            raise
        finally:
            if leased is not None:
                leased.release()

    def bypass(self, flight: Flight, spans: CallSpans | None, compute: Compute) -> Sequence[Any]:
        """Make a forward call for a flight's keys, and keep none of the values that it returns."""
        flight.bypass = True
        values = self._call(flight, spans, compute)
        flight.entries = dict.fromkeys(flight.keys, _NOT_KEPT)
        return values

    def keep(self, flight: Flight, position: int, value: Any) -> None:
        """Keep the value of the key at a position of a call that is still being made."""
        if not flight.bypass:
            self._keep(flight, ((flight.keys[position], value, flight.origins[position]),))

    def _keep(self, flight: Flight, computed: Iterable[tuple[LookupKey, Any, Any]]) -> None:
        """Land and save values of a flight, each with its key and origin; not those kept before."""
        answer = flight.answer
        kept: dict[LookupKey, Any] = {}
        for key, value, origin in computed:
            if key not in flight.entries:
                self._flights.land(key, flight, value, origin, flight.call)
                if answer is not None:
                    kept[key] = value
        if kept and self._tier is not None:
            self._tier.save(answer, kept, flight.call)

    def _call_and_keep(self, flight: Flight, spans: CallSpans | None, compute: Compute) -> None:
        values = self._call(flight, spans, compute)
        self._keep(flight, zip(flight.keys, values, flight.origins, strict=True))

    def _call(
        self,
        flight: Flight,
        spans: CallSpans | None,
        compute: Compute,
        *,
        verification: bool = False,
    ) -> Sequence[Any]:
        """Make one forward call for a flight's keys; return their values."""
        if self.stopping:
            raise KeyboardInterrupt
        keys, shows = flight.keys, spans is not None or self._shows()
        flight.origins = [question_of(key) if shows else None for key in keys]
        call: Callable[[], Sequence[Any]] = partial(compute, keys)
        started = False
        try:
            if spans is not None:
                call, started = spans.start_forward(flight, call, verification=verification), True
            flight.start_ns = self._now()
            try:
                values = flight.run(call)
            finally:
                flight.end_ns = self._now()
            if len(values) != len(keys):
                raise RuntimeError(
                    f"compute_misses returned {len(values)} values for {len(keys)} prompts"
                )
        except BaseException as raised:
            flight.error = type(raised).__name__
            raise
        finally:
            if spans is not None and started:
                spans.end_forward(flight)
        return values

    def _find_stored(
        self, tier: StoreTier, flight: Flight, stored: dict[LookupKey, Outcome]
    ) -> Answer | None:
        """Search the store for a flight's keys; land the values that are not to be verified."""
        began, keys = self._now(), flight.keys
        answer = flight.answer = tier.find(keys, verify=not self.stopping)
        if answer is not None:
            flight.keys = [key for key in keys if key not in answer.found]
            share = (self._now() - began) // len(keys)
            self._answer("hit", answer.found, (began, share), flight, stored)
        return answer

    def _answer(
        self,
        result: Literal["hit", "coalesced"],
        found: Mapping[LookupKey, StoredEntry],
        times: tuple[int, int],
        flight: Flight,
        stored: dict[LookupKey, Outcome],
    ) -> None:
        """Add the outcomes of found entries; land those that are not to be verified."""
        (began, wall), tier, answer = times, self._tier, flight.answer
        to_verify = () if answer is None else answer.to_verify
        for key, entry in found.items():
            question = question_of(key) if self._shows() else None
            call = CallIds.stored(entry.trace_id, entry.span_id)
            stored[key] = Outcome(
                *(key, question, result, began, began + wall, wall, call),
                tier=None if tier is None else tier.store.tier,
                stored_by=entry.run_id,
            )
            if key not in to_verify:
                self._flights.land(key, flight, entry.value, question, call)

    def _take_leased(
        self, leased: LeasedKeys, began: int, flight: Flight, stored: dict[LookupKey, Outcome]
    ) -> None:
        """Leave a flight the keys that no other machine computes; answer those stored meanwhile."""
        flight.keys = leased.owned
        self._answer("hit", leased.found(), (began, self._now() - began), flight, stored)

    def _wait(
        self,
        leased: LeasedKeys,
        flight: Flight,
        spans: CallSpans | None,
        compute: Compute,
        stored: dict[LookupKey, Outcome],
    ) -> None:
        """Wait for what other machines compute; compute what they do not store in time."""
        while leased.waits:
            began = self._now()
            came = leased.wait(lambda: self.stopping)
            self._answer("coalesced", came, (began, self._now() - began), flight, stored)
            if self.stopping and leased.waits:
                raise KeyboardInterrupt
            if owned := leased.owned:
                self._call_and_keep(self._later_call(flight, owned), spans, compute)

    def _later_call(self, flight: Flight, keys: Sequence[LookupKey]) -> Flight:
        """Return the flight of a call for more keys; the first call has the flight itself."""
        if not flight.start_ns:
            flight.keys = keys
            return flight
        later = Flight(flight.generation, flight.leader)
        later.keys, later.answer, later.entries = keys, flight.answer, flight.entries
        flight.later = [*flight.later, later]
        return later

    def _verify(
        self,
        tier: StoreTier,
        answer: Answer,
        flight: Flight,
        spans: CallSpans | None,
        compute: Compute,
        stored: dict[LookupKey, Outcome],
    ) -> None:
        """Compute some stored values again; land each if it agrees, else the computed one."""
        check, wrong = Flight(flight.generation, flight.leader), {}
        check.keys = answer.to_verify
        try:
            values = self._call(check, spans, compute, verification=True)
        except BaseException:
            for key in check.keys:
                del stored[key]
            stored |= {miss.key: miss for miss in misses_of(check)}
            raise
        for key, computed in zip(check.keys, values, strict=True):
            value = answer.found[key].value
            outcome = replace(stored[key], verified=tier.agrees(value, computed))
            if not outcome.verified:
                value = wrong[key] = computed
                outcome = replace(outcome, call=check.call)
            stored[key] = outcome
            self._flights.land(key, flight, value, outcome.question, outcome.call)
        if wrong:
            tier.replace(answer, wrong, check.call)
