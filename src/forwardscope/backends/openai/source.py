"""Which model of which server a backend has."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ServedSource"]


@dataclass(frozen=True, slots=True)
class ServedSource:
    """A model and an adapter on a server.

    Attributes:
        server: URL of the API, such as `http://127.0.0.1:8000/v1`.
        name: The server's name of the base model.
        adapter: The server's name of the adapter, or of a fine-tuned model.
        revision: What the names stand for now. Without it no value is stored.
        adapter_dir: Folder with the adapter's files, which the server sees under the same
            path; with it there are scaled and null views.
        adapter_scratch: Folder in which their adapters are written; by default the one that
            has `adapter_dir`.
        tokenizer: Folder with the model's `tokenizer.json`; by default the server's own
            tokenizer is used.
        timeout_s: Longest time of one attempt of a request.
        concurrency: Requests at a time.
    """

    server: str
    name: str
    adapter: str
    revision: str | None = None
    adapter_dir: str | None = None
    adapter_scratch: str | None = None
    tokenizer: str | None = None
    timeout_s: float = 300.0
    concurrency: int = 4
