"""lm-evaluation-harness on this cache: `wrap` a model, and evaluate with what it returns.

    lm = HFLM(pretrained="HuggingFaceTB/SmolLM2-135M", device="cpu")
    with closing(wrap(lm, store="default")) as cached:
        results = lm_eval.simple_evaluate(model=cached, tasks=["arc_easy"])

A request is found by its exact strings, its generation arguments and the content of the
model that answers it, never by a name. Sampled texts and requests with repeats bypass the
cache, as each is to be drawn anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary, ref

from lm_eval.api.model import LM
from opentelemetry.context import get_current

from forwardscope.instrumentation import BackendInstrumentation
from forwardscope.integrations.lm_eval_answers import checked_answers
from forwardscope.integrations.lm_eval_identity import has_weights, identity_of
from forwardscope.integrations.lm_eval_requests import KeepingHook, key_of
from forwardscope.integrations.tool_run import ToolRun
from forwardscope.recorder import BatchProbes
from forwardscope.store.base import Store
from forwardscope.store.locations import open_store

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import CacheHook

__all__ = ["CachedLM", "wrap"]

#: The op in which the ranks of an evaluation wait for each other, so that each has to call its
#: model equally often. A rank that has to verify and to compute would call it twice.
_COLLECTIVE: Final = "loglikelihood_rolling"

#: Kinds of processes that hold parts of one model, as accelerate names them.
_SHARDED: Final = ("FSDP", "DEEPSPEED", "MEGATRON_LM")

#: Of an instrumentation that `wrap` makes.
_MAX_ENTRIES: Final = 4096
_VERIFY: Final = 1 / 64

#: The model of each instrumentation in use: two models must not share a cache in memory. Each
#: refers to the other through its hook, so a strong reference would keep both.
_MODELS: Final[WeakKeyDictionary[BackendInstrumentation, ref[LM]]] = WeakKeyDictionary()

#: A request, and the key under which its answer is kept; None where it is not kept.
Keyed = tuple[str | None, "Instance"]
Answer = Callable[[str, Sequence[Keyed], BatchProbes | None], list[Any]]


def wrap(
    lm: LM,
    *,
    store: str | None = None,
    instrumentation: BackendInstrumentation | None = None,
    revision: str | None = None,
    run: ToolRun | None = None,
    just_loaded: bool = False,
) -> CachedLM:
    """Return a model that answers repeated requests from a cache.

    Args:
        lm: A model of lm-evaluation-harness.
        store: Where answers outlive this process: `default`, or a path.
        instrumentation: Caches, counts and traces the requests, in place of one with `store`.
        revision: Says which model this is, for one that is no `HFLM`, whose content cannot
            be read: a version, a digest or a date. Answers are stored only if it is given.
            Raise it whenever the model behind the name changes.
        run: The run that the tasks belong to; without one their names are the labels of
            their lookups, and they have no spans of their own.
        just_loaded: Whether the weights in memory are those of the model's files and stay so,
            so that their digest can be remembered. Otherwise they are digested before each
            kind of request of an evaluation, which takes about a second per gigabyte.

    Raises:
        StoreError: The store cannot be opened.
        ValueError: Both a store and an instrumentation are given, or the instrumentation
            is that of another model.

    Returns:
        An `LM` (a virtual subclass) for `simple_evaluate(model=...)`. Attributes and methods
        other than the three that answer requests are those of `lm`.
    """
    if store is not None and instrumentation is not None:
        raise ValueError("give either a store or an instrumentation, which has its own")
    opened = None if store is None else open_store(store)
    inst = instrumentation or BackendInstrumentation(
        cache_maxsize=_MAX_ENTRIES, store=opened, verify=_VERIFY
    )
    return CachedLM(lm, inst, revision, run, opened, fixed=just_loaded)


class CachedLM:
    """A model of lm-evaluation-harness behind a cache; see `wrap`. For one thread.

    Attributes:
        lm: The model.
        instrumentation: Caches, counts and traces the requests.
        identity: What determines the model's answers.
    """

    def __init__(
        self,
        lm: LM,
        instrumentation: BackendInstrumentation,
        revision: str | None,
        run: ToolRun | None,
        store: Store | None,
        *,
        fixed: bool,
    ) -> None:
        if _MODELS.setdefault(instrumentation, ref(lm)) != ref(lm):
            raise ValueError("the instrumentation is that of another model; give each its own")
        self.lm: Final = lm
        self.instrumentation: Final = instrumentation
        self.identity = identity_of(lm, revision, just_loaded=fixed)
        self._revision: Final = revision
        self._fixed: Final = fixed
        self._run: Final = run
        self._store: Final = store
        self._keeps: Final = not _is_sharded(lm)
        self._hook: Final = KeepingHook(instrumentation)
        lm.set_cache_hook(self._hook)
        instrumentation.identify_views(
            lambda _: self.identity.digest, self.identity.tolerance, lambda _: self.identity.parts
        )

    def __getattr__(self, name: str) -> Any:
        if name == "lm":  # of an object that is not initialised
            raise AttributeError(name)
        return getattr(self.lm, name)

    def close(self) -> None:
        """Store what is queued, close the store that `wrap` opened; the model stays as it is."""
        self.instrumentation.close()
        if self._store is not None:
            self._store.close(0.0)  # what is queued was waited for

    def set_cache_hook(self, cache_hook: CacheHook) -> None:
        """Pass answers on to another cache as well, such as that of `--use_cache`."""
        self._hook.next = cache_hook

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Return the log-probability of each continuation, and whether it is greedy.

        Raises:
            ModelError: As by the methods below: the model has returned no valid answers.
        """
        return self._answer("loglikelihood", requests)

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Return the log-probability of each text."""
        return self._answer("loglikelihood_rolling", requests)

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Return a text for each context."""
        return self._answer("generate_until", requests)

    def _answer(self, op: str, requests: list[Instance]) -> list[Any]:
        """Answer requests in order: in one batch those that may be cached, in another the rest."""
        self._identify_again()
        known = self.identity.is_hflm
        keyed = [(key_of(op, request, is_hflm=known), request) for request in requests]
        keeps = self._keeps and not (op == _COLLECTIVE and self.lm.world_size > 1)
        kept = [index for index, (key, _) in enumerate(keyed) if keeps and key is not None]
        rest = sorted(set(range(len(keyed))) - set(kept))
        answers: dict[int, Any] = {}
        for answer, chosen in ((self._cached, kept), (self._bypassed, rest)):
            if chosen:
                found = self._label(op, [keyed[index] for index in chosen], answer)
                answers.update(zip(chosen, found, strict=True))
        return [answers[index] for index in range(len(requests))]

    def _identify_again(self) -> None:
        """Forget all values where the model has changed, as by training, or may have changed."""
        if self._fixed:
            return
        before, self.identity = self.identity, identity_of(self.lm, self._revision)
        unknown = self.identity.digest is None and has_weights(self.lm)
        if unknown or self.identity.digest != before.digest:
            self.instrumentation.views_changed()

    def _label(self, op: str, keyed: Sequence[Keyed], answer: Answer) -> list[Any]:
        """Make the lookups of one batch, each for its own task."""
        tasks = [request.task_name or "" for _, request in keyed]
        if self._run is None:
            return answer(op, keyed, BatchProbes(tasks, lambda *_: get_current()))
        if len(set(tasks)) > 1:
            return answer(op, keyed, self._run.several(tasks))
        with self._run.probe(tasks[0]):
            return answer(op, keyed, None)

    def _cached(self, op: str, keyed: Sequence[Keyed], probes: BatchProbes | None) -> list[Any]:
        prompts = [key or "" for key, _ in keyed]

        def compute_misses(missing: list[int]) -> list[Any]:
            self._hook.expect(op, [prompts[index] for index in missing])
            return self._compute(op, [keyed[index][1] for index in missing])

        return self.instrumentation.cached_batch(
            op, self.identity.view, prompts, 0, compute_misses, probes=probes
        )

    def _bypassed(self, op: str, keyed: Sequence[Keyed], probes: BatchProbes | None) -> list[Any]:
        requests = [request for _, request in keyed]
        self._hook.expect(op, [])
        return self.instrumentation.uncached_batch(
            *(op, self.identity.view, [repr(one.args) for one in requests], 0),
            lambda: self._compute(op, requests),
            probes=probes,
        )

    def _compute(self, op: str, requests: list[Instance]) -> list[Any]:
        answers = getattr(self.lm, op)(requests)
        return checked_answers(op, answers, len(requests), type(self.lm).__name__)


def _is_sharded(lm: LM) -> bool:
    """Return whether several processes compute each batch together.

    Then all of them need the same batches, which no cache of one process can promise. In
    tensor parallelism each process is the only rank of its evaluation.
    """
    if (getattr(getattr(lm, "model", None), "tp_size", None) or 1) > 1:
        return True
    kind = getattr(getattr(lm, "accelerator", None), "distributed_type", None)
    return lm.world_size > 1 and getattr(kind, "value", None) in _SHARDED


LM.register(CachedLM)
