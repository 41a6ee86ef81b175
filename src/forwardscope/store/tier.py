"""A backend's use of a store: finding, saving and verifying the values of its views."""

from __future__ import annotations

import hashlib
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import suppress
from typing import Any, Final, NamedTuple

from forwardscope.core.forks import reset_in_children
from forwardscope.core.keys import ADAPTED_FAMILIES, LookupKey, view_family
from forwardscope.store.agreement import agree
from forwardscope.store.base import IMPORTED, Lease, NewEntry, Store, StoredEntry
from forwardscope.store.keys import entry_digest, question_digest, tokenised_of
from forwardscope.text import shown

__all__ = ["DEFAULT_TOLERANCE", "Answer", "StoreTier"]

#: Largest difference of a log-probability, in nats, that `fast` allows in float32.
DEFAULT_TOLERANCE: Final = 1e-4
#: Imported entries are verified this many times as often, as others have computed them.
_IMPORTED_FACTOR: Final = 4
#: Views of a run whose identity, and that it was verified, are remembered.
_MAX_REMEMBERED: Final = 4096
#: Characters of a described part. Of a longer one the beginning and a digest are stored.
_MAX_PART: Final = 100
_BEGINNING: Final = 60


class Answer(NamedTuple):
    """What a store has for keys of one view.

    Attributes:
        identity: The view's identity.
        digests: The store's key of each lookup key.
        found: The entries that the store has.
        to_verify: Those of them that are to be computed again.
    """

    identity: str
    digests: Mapping[LookupKey, bytes]
    found: Mapping[LookupKey, StoredEntry]
    to_verify: Sequence[LookupKey]


class StoreTier:
    """The tier below a backend's in-memory cache. Safe under threads.

    Args:
        store: The store.
        verify: Share of the found entries to verify, 0 to 1; of imported entries four
            times as many, of texts none. Unless it is 0, at least one entry of each view
            identity is verified in a run, except of `verified_before`.
        view_identity: Initial value of the attribute.

    Raises:
        ValueError: The share is not between 0 and 1.

    Attributes:
        store: The store.
        view_identity: Returns the identity of a view by its id; None where its values
            must not be stored, or where it raises. Without it nothing is found and nothing
            saved.
        identity_parts: Returns by name what a view's identity is made of, so that the store
            can describe it; None where nothing is known of it.
        model: Name of the model in these descriptions.
        adapter: Name of the adapter in those of `ft` and scaled views, or None.
        tolerance: Largest difference of a log-probability between a stored and a computed
            value, in nats; 0.0 means equal values.
        verified_before: Identities of which this process has verified an entry in an earlier run.
    """

    def __init__(
        self, store: Store, verify: float, view_identity: Callable[[str], str | None] | None
    ) -> None:
        if not 0.0 <= verify <= 1.0:
            raise ValueError(f"verify must be between 0 and 1; got {verify}")
        self.store: Final = store
        self.view_identity = view_identity
        self.identity_parts: Callable[[str], Mapping[str, str]] | None = None
        self.model = ""
        self.adapter: str | None = None
        self.tolerance = DEFAULT_TOLERANCE
        self.verified_before: Set[str] = frozenset()
        self._verify: Final = verify
        self._run_id: str | None = None
        self._verified: set[str] = set()
        self._identities: dict[str, str | None] = {}
        self.after_fork()
        reset_in_children(self)

    def after_fork(self) -> None:
        """Make a lock that no thread holds."""
        self._lock = threading.Lock()

    def begin_run(self, run_id: str | None) -> None:
        """Mark later entries with a run's id; a new run verifies and identifies anew."""
        self._run_id = run_id
        if run_id is not None:
            self._verified = set()
            self.forget_identities()

    def forget_identities(self) -> None:
        """Ask for the identity of each view again at its next lookup."""
        self._identities = {}

    @property
    def verified(self) -> frozenset[str]:
        """Identities of which the run has verified an entry, be it wrong or right."""
        with self._lock:
            return frozenset(self._verified)

    @property
    def unidentified(self) -> list[str]:
        """Views of the run that have no identity, so that their values are not stored."""
        return sorted(view for view, known in self._identities.copy().items() if known is None)

    def known_identity(self, view_id: str) -> str | None:
        """Return the identity of a view that the run has looked up; None for another."""
        return self._identities.get(view_id)

    def find(self, keys: Sequence[LookupKey], *, verify: bool = True) -> Answer | None:
        """Find the values of keys of one view; None if the view has no identity.

        Which of them are to be verified depends on entry and run, so that each run
        verifies others.

        Args:
            keys: At least one, of one view.
            verify: False verifies none of them.
        """
        identity = self._identity_of(keys[0][1])
        if identity is None:
            return None
        digests = {
            key: entry_digest(identity, op, prompt, top_k, tokenised_of(prompt))
            for key in keys
            for op, _, prompt, top_k in [key]
        }
        entries = self._entries(list(digests.values()))
        found = {key: entries[at] for key, at in digests.items() if at in entries}
        # not a text: one rounding while it is generated can change all that follows
        sure = [key for key, one in found.items() if verify and not isinstance(one.value, str)]
        chosen = [key for key in sure if self._is_in_share(digests[key], found[key])]
        if sure and self._is_first(identity) and not chosen:
            chosen = sure[:1]
        return Answer(identity, digests, found, chosen)

    def lease(self, digests: Sequence[bytes]) -> Lease:
        """Claim entries before they are computed; all are the caller's where that fails."""
        try:
            return self.store.lease(digests)
        except Exception as error:  # noqa: BLE001 - no lookup fails for a store
            _warn(f"the store gave no lease: {type(error).__name__}")
            return Lease(digests)

    def save(
        self, answer: Answer, values: Mapping[LookupKey, Any], call: tuple[str, str] | None
    ) -> None:
        """Queue computed values to be stored; returns at once.

        Args:
            answer: The result of `find` for their keys.
            values: Values of some of these keys.
            call: Trace and span of the forward call, where its span is sampled.
        """
        trace_id, span_id = call or (None, None)
        entries = [
            NewEntry(
                digest=answer.digests[key],
                question=question_digest(key[0], key[2], key[3]),
                identity=answer.identity,
                value=value,
                run_id=self._run_id,
                trace_id=trace_id,
                span_id=span_id,
            )
            for key, value in values.items()
        ]
        try:
            self.store.put_many(entries)
        except Exception as error:  # noqa: BLE001 - no lookup fails for a store
            _warn(f"the store did not take values: {type(error).__name__}")

    def replace(
        self, answer: Answer, values: Mapping[LookupKey, Any], call: tuple[str, str] | None
    ) -> None:
        """Save values in place of stored ones, which are removed also where these cannot be stored.

        Args:
            answer: As for `save`.
            values: As for `save`.
            call: As for `save`.
        """
        try:
            self.store.delete([answer.digests[key] for key in values])
        except Exception as error:  # noqa: BLE001 - no lookup fails for a store
            _warn(f"the store did not remove wrong values: {type(error).__name__}")
        self.save(answer, values, call)

    def postpone(self, answer: Answer) -> None:
        """Verify another hit of an identity, where this one could not be verified."""
        with self._lock:
            self._verified.discard(answer.identity)

    def agrees(self, stored: Any, computed: Any) -> bool:
        """Return whether a stored value is the computed one, within the tolerance."""
        return agree(stored, computed, self.tolerance)

    def _identity_of(self, view_id: str) -> str | None:
        """Return a view's identity, which is computed and described once a run."""
        known = self._identities  # another thread may begin a run
        try:
            return known[view_id]
        except KeyError:  # another thread may clear it at any time
            identity = self._identified(view_id)
        if len(known) >= _MAX_REMEMBERED:
            known.clear()
        known[view_id] = identity
        if identity is not None and self.identity_parts is not None:
            self._describe(identity, view_id, self.identity_parts)
        return identity

    def _describe(
        self, identity: str, view_id: str, parts_of: Callable[[str], Mapping[str, str]]
    ) -> None:
        family = view_family(view_id)
        adapter = self.adapter if family in ADAPTED_FAMILIES else None
        try:
            parts = {_text(name): _brief(_text(part)) for name, part in parts_of(view_id).items()}
            self.store.describe_identity(
                identity, parts, model=self.model, adapter=adapter, view_family=family
            )
        except Exception as error:  # noqa: BLE001 - no lookup fails for a store
            _warn(f"the store did not take a view's description: {type(error).__name__}")

    def _identified(self, view_id: str) -> str | None:
        try:
            identity = None if self.view_identity is None else self.view_identity(view_id)
            return None if identity is None else _text(identity)
        except Exception as error:  # noqa: BLE001 - no lookup fails for a store
            _warn(f"the view {shown(view_id)} has no identity: {type(error).__name__}")
            return None

    def _entries(self, digests: Sequence[bytes]) -> dict[bytes, StoredEntry]:
        """Ask the store; what raises or is no entry counts as not found."""
        try:
            found = self.store.get_many(digests).items()
            return {at: entry for at, entry in found if isinstance(entry, StoredEntry)}
        except Exception as error:  # noqa: BLE001 - no lookup fails for a store
            _warn(f"the store did not answer: {type(error).__name__}")
            return {}

    def _is_first(self, identity: str) -> bool:
        """Return whether a run has found nothing of an identity before."""
        if self._verify == 0.0 or identity in self.verified_before:
            return False
        with self._lock:
            first = identity not in self._verified and len(self._verified) < _MAX_REMEMBERED
            if first:
                self._verified.add(identity)
        return first

    def _is_in_share(self, digest: bytes, entry: StoredEntry) -> bool:
        """Return whether an entry is in the share that this run verifies."""
        seed = (self._run_id or "").encode("utf-8", "surrogatepass")
        drawn = hashlib.blake2b(digest + seed, digest_size=8).digest()
        share = self._verify * (_IMPORTED_FACTOR if _is_imported(entry) else 1)
        return int.from_bytes(drawn, "little") < share * 2**64


def _is_imported(entry: StoredEntry) -> bool:
    return entry.run_id is not None and entry.run_id.startswith(IMPORTED)


def _text(given: object) -> str:
    """Return what a caller gave; TypeError if it is no text."""
    if not isinstance(given, str):
        raise TypeError
    return given


def _brief(part: str) -> str:
    """Return a part, or of a long one, such as a build's settings, the beginning and a digest."""
    if len(part) <= _MAX_PART:
        return part
    digest = hashlib.blake2b(part.encode("utf-8", "surrogatepass"), digest_size=16)
    return f"{part[:_BEGINNING]}… {digest.hexdigest()}"


def _warn(message: str) -> None:
    with suppress(RuntimeWarning):  # where warnings are errors, no lookup fails
        warnings.warn(f"{message}; the run goes on", RuntimeWarning, stacklevel=2)
