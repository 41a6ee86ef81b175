"""A backend's lookups: cached, counted, traced and shown as spans, behind two methods.

A scoring method of a view is three lines around one of them:

    def next_token_dist(self, prompt, *, top_k=256):
        return self._instrumentation.cached(
            "next_token_dist", self.id, prompt, top_k, lambda: self._compute(prompt, top_k)
        )

A lookup searches the cache. Where it finds nothing it claims its key, forward_calls.py
searches the store and computes what is not there, and recorder.py turns the outcome into
counts, trace lines and spans.

The module is longer than others because these methods, with their contracts, are what programs
call; all work but that of a lookup is elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from os import PathLike
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from msgspec.structs import replace

from forwardscope.batch_outcomes import misses_of_batch, outcomes_of_batch
from forwardscope.core.cache import DisabledCache, Entry, ForwardCache
from forwardscope.core.clock import Clock
from forwardscope.core.keys import LookupKey
from forwardscope.core.ledger import Ledger
from forwardscope.core.server_requests import Exchange, ServerRequests
from forwardscope.core.single_flight import Flight, SingleFlight
from forwardscope.core.stats import LiveStats
from forwardscope.forward_calls import ForwardCalls
from forwardscope.recorder import BatchProbes, Outcome, Recorder, misses_of, parts_by_probe
from forwardscope.store.base import Store
from forwardscope.store.tier import DEFAULT_TOLERANCE, StoreTier
from forwardscope.telemetry.spans import DEFAULT_BUDGET, CallSpans, LookupSpans
from forwardscope.trace.writer import TraceWriter

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

__all__ = ["BackendInstrumentation"]

T = TypeVar("T")

_FLUSH_S: Final = 5.0


class BackendInstrumentation:
    """What a backend owns to have its lookups cached, counted, traced and shown as spans.

    Safe under threads. Computes run outside every lock; threads that miss the
    same key pay one forward pass between them.

    Args:
        cache_maxsize: The most entries to keep.
        trace_path: JSONL file to append one record a lookup to, or None.
        cache_max_bytes: The most bytes to keep, or None for no bound.
        name: Which backend this is, where several are shown together.
        tracer_provider: Where spans go; None means the global provider, and
            where none is set there are no spans.
        span_budget: Spans of hits from one `set_current_probe` to the next; None
            for no limit. Misses and forward calls always have spans.
        cache_enabled: False keeps nothing between calls; lookups are counted
            and traced all the same.
        clock: Where times come from; a test may bring its own.
        store: Where values outlive this process, or None. Its maker closes it.
        view_identity: Returns the content hash of all that determines a view's values, or
            None where they must not be stored. Without it the store is not used.
        verify: Share of the store's hits that are computed again and compared, 0 to 1.

    Raises:
        ValueError: A cache bound is not positive, the budget is negative, or the share is
            not between 0 and 1.
        OSError: The trace file cannot be opened.

    Attributes:
        cache: The forward cache.
        flights: The forward calls in flight.
        ledger: The counts behind everything, by series.
        stats: One live object with the totals of the moment at which it is read.
        computed_in_flight: Prompts that a forward call in flight has computed so far, if
            the backend sets it; the ledger counts them when the call ends. For progress.
        store_tier: The tier of the store; None without one.
        server_requests: Requests to the server that holds the model; None without one.
        spans: The spans of lookups and what became of them. Their parent is the
            span that is current where the lookup is made; in a thread without
            one, the span that was current at `set_current_probe`.
    """

    def __init__(
        self,
        *,
        cache_maxsize: int = 256,
        trace_path: str | PathLike[str] | None = None,
        cache_max_bytes: int | None = None,
        name: str = "default",
        tracer_provider: TracerProvider | None = None,
        span_budget: int | None = DEFAULT_BUDGET,
        cache_enabled: bool = True,
        clock: Clock = time,
        store: Store | None = None,
        view_identity: Callable[[str], str | None] | None = None,
        verify: float = 0.0,
    ) -> None:
        make_cache = ForwardCache if cache_enabled else DisabledCache
        self.name = name
        self.cache = make_cache(cache_maxsize, max_bytes=cache_max_bytes)
        self.ledger = Ledger()
        self.stats = LiveStats(self.ledger.totals)
        self.computed_in_flight = 0
        self.spans = LookupSpans(tracer_provider, span_budget, clock)
        self.flights = SingleFlight(self.cache)
        self.store_tier: StoreTier | None = None
        self.server_requests: ServerRequests | None = None
        if store is not None and cache_enabled:
            self.store_tier = StoreTier(store, verify, view_identity)
        self._recorder = Recorder(
            self.ledger, self.spans, TraceWriter(trace_path), clock, self.store_tier
        )
        self._now = clock.perf_counter_ns
        self._calls = ForwardCalls(
            self.flights, self.store_tier, lambda: self._recorder.shows, self._now
        )

    @property
    def trace(self) -> TraceWriter:
        """The trace writer. Another can be assigned; its maker closes the one that it replaces."""
        return self._recorder.trace

    @trace.setter
    def trace(self, writer: TraceWriter) -> None:
        self._recorder.trace = writer

    @property
    def store(self) -> Store | None:
        """The store below the cache; None without one."""
        return None if self.store_tier is None else self.store_tier.store

    @property
    def current_probe(self) -> str | None:
        """The label of lookups that end now; None outside any probe."""
        return self._recorder.probe

    def set_current_probe(self, name: str | None) -> None:
        """Label the lookups of all threads from now on; None means outside any probe.

        It also begins a new budget of hit spans.
        """
        self.spans.probe_began()
        self._recorder.set_probe(name)

    def set_run_id(self, run_id: str | None) -> None:
        """Mark the trace records of all threads from now on with a run's id."""
        self._recorder.run_id = run_id
        if self.store_tier is not None:
            self.store_tier.begin_run(run_id)

    def name_model(self, model: str, adapter: str | None, provider: str | None = None) -> None:
        """Set the names of model and adapter in later forward spans, and in the store.

        Args:
            model: Name of the model.
            adapter: Name of the adapter, or of the fine-tuned model in its place.
            provider: What runs the model; None leaves it as it is.
        """
        self.spans.name_model(model, adapter or "", provider)
        if self.store_tier is not None:
            self.store_tier.model, self.store_tier.adapter = model, adapter or None

    def name_server(self, server: str, address: str, port: int) -> None:
        """Say that a server holds the model: later forward spans are CLIENT spans with its address.

        The counts of its requests begin; those of the same server go on.

        Args:
            server: Scheme, host and port, without user, path and query.
            address: Host.
            port: Port.
        """
        self.spans.name_server(address, port)
        if self.server_requests is None or self.server_requests.server != server:
            self.server_requests = ServerRequests(server, address, port)

    def report_request(self, exchange: Exchange) -> None:
        """Count a request to the server; nothing happens before `name_server`."""
        if self.server_requests is not None:
            self.server_requests.add(exchange, self.spans.exemplar(exchange.seconds))

    def identify_views(
        self,
        view_identity: Callable[[str], str | None],
        tolerance: float = DEFAULT_TOLERANCE,
        parts: Callable[[str], Mapping[str, str]] | None = None,
    ) -> None:
        """Say what determines the values of views, so that a store can be used for them.

        Backends call it once they are loaded; a `view_identity` that was given before stays.

        Args:
            view_identity: As the argument of the constructor.
            tolerance: Largest difference of a log-probability between two computations
                of one value, in nats; 0.0 if they are equal.
            parts: Returns by name what an identity is made of, each a digest or a short
                text, so that `trace why` can name the part that differs.
        """
        tier = self.store_tier
        if tier is not None:
            if tier.view_identity is None:
                tier.view_identity, tier.identity_parts = view_identity, parts
            tier.tolerance = tolerance

    def views_changed(self) -> None:
        """Forget what was computed so far: views of the same ids have other values from now on.

        The cache is empty then, and the identities of views are asked for again, so that the
        store answers with values of what they are now.
        """
        self.cache.clear()
        if self.store_tier is not None:
            self.store_tier.forget_identities()

    def report_tokens(self, tokens: Iterable[Any], reused: Iterable[Any] | None = None) -> None:
        """Report, from inside a compute, how many tokens each of its prompts has.

        The counts belong to this thread's innermost forward call, in the order of
        its prompts. Outside any call nothing happens. What cannot be read as
        counts is ignored.

        Args:
            tokens: Of each prompt: a sequence, an array or a tensor of integers.
            reused: How many of these need not be computed, an earlier prompt
                having begun with the same; read when the compute has returned.
        """
        flight = Flight.current()
        if flight is not None:
            flight.tokens, flight.reused = tokens, reused

    def keep(self, position: int, value: Any) -> None:
        """Keep one value of a batch at once, from inside its compute.

        An interrupt or an error later in the compute does not cost this value: it is in
        the cache and the store, and its lookup is counted as a forward pass. Outside any
        compute, and where the cache is bypassed, nothing happens.

        Args:
            position: Position of its prompt among those that the compute was called for.
            value: What the compute is going to return there.
        """
        flight = Flight.current()
        if flight is not None:
            self._calls.keep(flight, position, value)

    @property
    def stopping(self) -> bool:
        """Whether a stop was requested."""
        return self._calls.stopping

    def request_stop(self) -> None:
        """Stop before the next forward call, in whatever thread that would be.

        A lookup that would compute raises KeyboardInterrupt instead, and is not
        counted; hits are still answered. For programs that turn a signal into an
        orderly stop.
        """
        self._calls.stopping = True

    def close(self) -> None:
        """Finish the spans of all hits, wait for the store, close the trace; may be called twice.

        Call it before the tracer provider is shut down. Lookups still work
        after it, without records and spans.
        """
        self.spans.close()
        if self.store_tier is not None:
            self.store_tier.store.flush(_FLUSH_S)
        self.trace.close()

    def cached(self, op: str, view_id: str, prompt: str, top_k: int, compute: Callable[[], T]) -> T:
        """Answer one lookup from the cache or the store, or with one forward pass.

        A thread that misses a key which another is computing waits for it. If
        that pass fails, its error goes to its own caller and one waiter computes
        instead. A thread that is itself inside a compute never waits. A compute
        that hands work to another thread and waits for that thread must not
        look up its own key there.

        Args:
            op: What is computed.
            view_id: The view that computes it.
            prompt: The whole prompt; part of the key.
            top_k: Part of the key; 0 where an op has none.
            compute: Runs the forward pass, in a copy of the caller's context
                (contextvars).

        Returns:
            The stored value, or what `compute` returned.

        Raises:
            KeyboardInterrupt: A stop was requested; see `request_stop`.
            BaseException: Whatever `compute` raised, unchanged; nothing is
                stored then.
        """
        start = self._now()
        key = (op, view_id, prompt, top_k)
        entry = self.cache.find(key)
        if entry is not None:
            return self._hit(key, entry, "hit", start)  # type: ignore[no-any-return]
        spans = self._call_spans(start)
        while True:
            flight = Flight(self.cache.generation, get_ident())
            with flight.lock:  # waiters block on it; it is free again however the block ends
                found = self.flights.claim(key, flight)
                if found is None:
                    stored: dict[LookupKey, Outcome] = {}
                    try:
                        self._calls.lead(flight, (key,), spans, lambda _: (compute(),), stored)
                    finally:
                        outcomes = [*stored.values(), *misses_of(flight)]
                        self._record(outcomes, start, spans, flight.error)
                    return flight.entries[key].value  # type: ignore[no-any-return]
            entry = found if isinstance(found, Entry) else found.wait(key)
            if entry is not None:
                result: Literal["hit", "coalesced"] = "hit" if entry is found else "coalesced"
                return self._hit(key, entry, result, start)  # type: ignore[no-any-return]

    def cached_batch(
        self,
        op: str,
        view_id: str,
        prompts: Sequence[str],
        top_k: int,
        compute_misses: Callable[[list[int]], Sequence[T]],
        *,
        probes: BatchProbes | None = None,
    ) -> list[T]:
        """Answer several lookups of one view, with one forward batch for the misses.

        Hits never enter the batch, and equal prompts are computed once. The store is
        searched once for what this call leads, and the rest is computed before the call
        waits for other threads.

        Args:
            op: What is computed.
            view_id: The view that computes it.
            prompts: The whole prompts.
            top_k: Part of each key; 0 where an op has none.
            compute_misses: Gets the indices of the prompts to compute, in
                order, and returns as many values. Called once for what this
                call leads, and again only for stored values that are verified
                and for what another thread was computing and failed; not at
                all where nothing is missing.
            probes: Whose lookups they are, if they are not all of the current probe.

        Returns:
            The values, in the order of `prompts`.

        Raises:
            RuntimeError: `compute_misses` returned another number of values
                than it was called for.
            KeyboardInterrupt: A stop was requested; see `request_stop`.
            BaseException: Whatever `compute_misses` raised, unchanged; none of
                the values that it was to compute is stored then.
        """
        start = self._now()
        keys = [(op, view_id, prompt, top_k) for prompt in prompts]
        first: dict[LookupKey, int] = {}
        for index, key in enumerate(keys):
            first.setdefault(key, index)
        entries = self.cache.find_all(keys)
        share = (self._now() - start) // max(1, len(keys))
        spans = self._call_spans(None if probes else start, (op, view_id, top_k))
        flights: list[Flight] = []
        later: dict[LookupKey, Outcome] = {}  # of the prompts that were not found at first
        error: str | None = None

        def compute(computed: Sequence[LookupKey]) -> Sequence[T]:
            # a generator does its work in here, as part of the forward call
            return list(compute_misses([first[key] for key in computed]))

        try:
            while missing := [key for key in first if key not in entries]:
                flight = Flight(self.cache.generation, get_ident())
                with flight.lock:  # waiters block on it; it is free again however the block ends
                    found = {key: self.flights.claim(key, flight) for key in missing}
                    if led := [key for key in missing if found[key] is None]:
                        flights.append(flight)
                        self._calls.lead(flight, led, spans, compute, later)
                        entries |= flight.entries
                for key, claimed in found.items():
                    began = self._now()
                    if isinstance(claimed, Flight):
                        if (entry := claimed.wait(key)) is not None:
                            entries[key] = entry
                            later[key] = self._outcome(key, entry, "coalesced", began)
                    elif claimed is not None:
                        entries[key] = claimed
                        later[key] = self._outcome(key, claimed, "hit", began)
            return [entries[key].value for key in keys]
        except BaseException as raised:
            error = type(raised).__name__
            raise
        finally:
            calls = [call for flight in flights for call in (flight, *flight.later)]
            later |= misses_of_batch(calls)
            sizes = [len(call.keys) for call in calls if call.start_ns]
            answered = _answered_ns(spans, later)
            names = None if probes is None else probes.names
            outcomes = list(outcomes_of_batch(keys, entries, later, start, answered, share, names))
            self._record(outcomes, start, spans, error, sizes, probes)

    def uncached_batch(
        self,
        op: str,
        view_id: str,
        prompts: Sequence[str],
        top_k: int,
        compute: Callable[[], Sequence[T]],
        *,
        probes: BatchProbes | None = None,
    ) -> list[T]:
        """Compute values that no cache may answer, such as sampled texts, in one forward batch.

        They are counted, traced and shown as misses that bypassed the cache, each prompt
        as one, also where prompts are equal. Arguments, errors and concurrency are otherwise
        those of `cached_batch`; `compute` returns the values of all prompts.
        """
        start = self._now()
        spans = self._call_spans(None if probes else start, (op, view_id, top_k))
        flight = Flight(self.cache.generation, get_ident())
        flight.keys = [(op, view_id, prompt, top_k) for prompt in prompts]
        try:
            return list(self._calls.bypass(flight, spans, lambda _: list(compute())))
        finally:
            misses = misses_of(flight, batch=True)
            if probes is not None:
                named = zip(misses, probes.names, strict=False)  # no misses where it was stopped
                misses = [replace(miss, probe=name) for miss, name in named]
            sizes = [len(prompts)] if misses else []
            self._record(misses, start, spans, flight.error, sizes, probes)

    def uncached(
        self, op: str, view_id: str, prompt: str, top_k: int, compute: Callable[[], T]
    ) -> T:
        """Compute one value that no cache may answer; as `uncached_batch`, but a single call."""
        start = self._now()
        spans = self._call_spans(start)
        flight = Flight(self.cache.generation, get_ident())
        flight.keys = ((op, view_id, prompt, top_k),)
        try:
            return self._calls.bypass(flight, spans, lambda _: (compute(),))[0]  # type: ignore[no-any-return]
        finally:
            self._record(misses_of(flight), start, spans, flight.error)

    def _hit(
        self, key: LookupKey, entry: Entry, result: Literal["hit", "coalesced"], start: int
    ) -> Any:
        """Record a single lookup that needed no forward pass of its own; return its value."""
        outcome = self._outcome(key, entry, result, start)
        self._recorder.record((outcome,), outcome.wall_ns)
        return entry.value

    def _outcome(
        self, key: LookupKey, entry: Entry, result: Literal["hit", "coalesced"], start: int
    ) -> Outcome:
        """Return the outcome of a lookup that ends now."""
        end = self._now()
        return Outcome(key, entry.origin, result, start, end, end - start, entry.call)

    def _call_spans(
        self, start: int | None, batch: tuple[str, str, int] | None = None
    ) -> CallSpans | None:
        """Return the live spans of a call that began at `start`; None without a tracer."""
        self.spans.refresh_at(self._now() if start is None else start)
        if not self.spans.active:
            return None
        return self.spans.call(self._recorder.parent(), start, batch)

    def _record(
        self,
        outcomes: Sequence[Outcome],
        start: int,
        spans: CallSpans | None,
        error: str | None,
        batches: Sequence[int] = (),
        probes: BatchProbes | None = None,
    ) -> None:
        """Record the outcomes of a call that made a forward call, or tried to."""
        end = self._now()
        if outcomes and probes is None:
            self._recorder.record(outcomes, end - start, batches, spans)
        elif outcomes:
            share = (end - start) // len(outcomes)
            for part in parts_by_probe(outcomes):
                self._recorder.record(part, share * len(part), batches, spans, probes)
                batches = ()
        if spans is not None:
            spans.end(outcomes, error, end)


def _answered_ns(spans: CallSpans | None, later: Mapping[LookupKey, Outcome]) -> int | None:
    """Return when the first forward call of a batch began, or else when its store answered."""
    if spans is not None and spans.forward_ns is not None:
        return spans.forward_ns
    found = (one.end_ns for one in later.values() if one.tier is not None and one.result == "hit")
    return max(found, default=None)
