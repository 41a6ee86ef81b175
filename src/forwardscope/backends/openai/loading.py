"""Open a served model: ask the server what it has, and make its backend."""

from __future__ import annotations

from collections.abc import Callable

from forwardscope.backends.openai.backend import ServedBackend
from forwardscope.backends.openai.client import ServerClient
from forwardscope.backends.openai.runtime_adapters import RuntimeAdapters
from forwardscope.backends.openai.scorer import ServedScorer
from forwardscope.backends.openai.server import ask_server
from forwardscope.backends.openai.source import ServedSource
from forwardscope.backends.openai.tolerance import measured_tolerance
from forwardscope.backends.server_url import ServerUrl
from forwardscope.errors import ServerError
from forwardscope.instrumentation import BackendInstrumentation
from forwardscope.store.tier import DEFAULT_TOLERANCE
from forwardscope.text import printable

__all__ = ["load_backend"]

#: Called with the name of a step, the amount done and the total, 0 if not known.
Report = Callable[[str, int, int], None]


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
        check: Whether the tolerance of stored values is measured, where there is a store.
        report: Called with each step.
        client: Sends the requests, which the instrumentation counts; by default a new one for the
            server of the source.

    Raises:
        ServerError: The server is not reached, or does not answer as vLLM does.
        ModelError: It has no such model, or the local tokenizer is not the server's.
        AdapterError: The folder of the adapter has none that can be read.
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
        report("asking the model server", 0, 0)
        facts = ask_server(client, source)
        report("loading an adapter on the server", 0, 0)
        adapters = RuntimeAdapters(client, source, facts.adapter.root)
        tolerance = DEFAULT_TOLERANCE
        if check and source.revision is not None and instrumentation.store is not None:
            report("measuring the server's tolerance", 0, 0)
            scorer = ServedScorer("base", lambda: facts.base.id, client, facts, instrumentation, 1)
            tolerance = measured_tolerance(scorer)
        return ServedBackend(source, client, facts, adapters, instrumentation, tolerance)
    except BaseException:
        client.close()
        raise


def _url(server: str) -> ServerUrl:
    try:
        return ServerUrl.parse(server)
    except ValueError as error:
        raise ServerError(f"model.server {error}") from None
