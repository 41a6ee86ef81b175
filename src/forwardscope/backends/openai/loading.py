"""Open a served model: read what the server says of itself, and make its backend."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

from forwardscope.backends.openai.backend import ServedBackend
from forwardscope.backends.openai.client import ServerClient
from forwardscope.backends.openai.runtime_adapters import RuntimeAdapters
from forwardscope.backends.openai.scorer import ServedScorer
from forwardscope.backends.openai.server import Facts, read_facts
from forwardscope.backends.openai.source import ServedSource
from forwardscope.backends.openai.tolerance import largest_difference, measured_tolerance
from forwardscope.backends.server_url import ServerUrl
from forwardscope.backends.views import BASE, FINETUNED, scaled_view_id
from forwardscope.errors import AdapterError, NonFiniteError, PromptError, ServerError
from forwardscope.instrumentation import BackendInstrumentation
from forwardscope.store.tier import DEFAULT_TOLERANCE
from forwardscope.text import printable, shown

__all__ = ["load_backend"]

#: Called with the name of a step, the amount done and the total, 0 if not known.
Report = Callable[[str, int, int], None]

#: Largest difference of a log-probability of equal adapters in float32, also on a busy server.
_OF_EQUAL_ADAPTERS: Final = 1e-3
#: NaN, which a run reports by probe, and samples that are too long for the model.
_FOUND_LATER: Final = (NonFiniteError, PromptError)


def load_backend(
    source: ServedSource,
    *,
    instrumentation: BackendInstrumentation | None = None,
    check: bool = True,
    report: Report = lambda *_: None,
    client: ServerClient | None = None,
) -> ServedBackend:
    """Return a backend for a model and an adapter on a server.

    Args:
        source: Server and names.
        instrumentation: Caches, counts and traces lookups; a new one by default.
        check: Whether the tolerance of stored values is measured, where there is a store, and
            the adapter's files are compared with what the server has.
        report: Called with each step.
        client: Sends the requests, which the instrumentation counts; by default a new one for the
            server of the source.

    Raises:
        ServerError: The server is not reached, or does not answer as vLLM does.
        ModelError: It has no such model, or the local tokenizer is not the server's.
        AdapterError: The folder of the adapter has none that can be read, or another one than
            the server has.
    """
    instrumentation = instrumentation or BackendInstrumentation()
    instrumentation.name_model(printable(source.name), printable(source.adapter), "vllm")
    if client is None:
        client = ServerClient(
            _url(source.server),
            timeout_s=source.timeout_s,
            connections=source.concurrency,
            stopping=lambda: instrumentation.stopping,
        )
    instrumentation.name_server(client.url.name, client.url.address, client.url.port)
    client.observe = instrumentation.report_request
    try:
        report("reading what the model server has", 0, 0)
        facts = read_facts(client, source)
        scorer = partial(_scorer, client, facts, instrumentation)
        is_stored = source.revision is not None and instrumentation.store is not None
        tolerance = DEFAULT_TOLERANCE
        if check and (is_stored or source.adapter_dir is not None):
            report("measuring the server's tolerance", 0, 0)
            with suppress(*_FOUND_LATER):
                tolerance = measured_tolerance(scorer(BASE, facts.base.id))
        if source.adapter_dir is not None:
            report("loading an adapter on the server", 0, 0)
        compare = partial(_compare, source, scorer, tolerance) if check else lambda _: None
        adapters = RuntimeAdapters(client, source, compare)
        return ServedBackend(source, client, facts, adapters, instrumentation, tolerance)
    except BaseException:
        client.close()
        raise


def _scorer(
    client: ServerClient,
    facts: Facts,
    instrumentation: BackendInstrumentation,
    view_id: str,
    name: str,
) -> ServedScorer:
    """Return what computes the values of a view that the server has under a name."""
    return ServedScorer(view_id, lambda: name, client, facts, instrumentation, 1)


def _compare(
    source: ServedSource,
    scorer: Callable[[str, str], ServedScorer],
    tolerance: float,
    name: str,
) -> None:
    """Compare the adapter of `adapter_dir`, as the server loaded it, with that of the views.

    Args:
        source: Names both.
        scorer: Returns what computes the values of a view and a name.
        tolerance: Largest difference that the server's batches make, in nats.
        name: The server's name of the loaded one.

    Raises:
        AdapterError: They are not the same, such as after a new training into the same folder.
    """
    tuned, loaded = scorer(FINETUNED, source.adapter), scorer(scaled_view_id(1.0), name)
    apart = 0.0
    with suppress(*_FOUND_LATER):
        apart = largest_difference(tuned, loaded)
    if apart > max(_OF_EQUAL_ADAPTERS, tolerance):
        raise AdapterError(
            f"model.adapter_dir: {shown(str(source.adapter_dir))} is not what the server has as "
            f"{shown(source.adapter)}: their log-probabilities differ by {apart:.2g} nats; give "
            "the folder of that adapter, or load it again on the server if its files have changed"
        )


def _url(server: str) -> ServerUrl:
    try:
        return ServerUrl.parse(server)
    except ValueError as error:
        raise ServerError(f"model.server {error}") from None
