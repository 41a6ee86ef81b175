"""A server that answers as vLLM did when its answers were recorded, and faults in between.

`recorded.json` has what vLLM 0.32 answered for SmolLM2-135M-Instruct. With an upstream, requests
go to a real vLLM, and its answers are recorded.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import httpx

__all__ = ["RECORDED", "UNKNOWN", "Fault", "VllmDouble"]

RECORDED: Final = Path(__file__).with_name("recorded.json")
#: vLLM's words for a model that it does not have.
UNKNOWN: Final = (
    b'{"error":{"message":"The model `x` does not exist. Valid aliases: base.","type":'
    b'"NotFoundError","param":"model","code":404}}'
)
#: What stands for folders, whose paths differ between machines.
_ADAPTER: Final = "ADAPTER_DIR"


@dataclass(frozen=True, slots=True)
class Fault:
    """What the next request gets in place of its answer.

    Attributes:
        status: Status of the answer; 0 closes the connection.
        body: Its body.
        headers: Its further headers.
        delay_s: Seconds before it.
        cut: Bytes of the body that are sent before the connection closes; None for all.
        operation: The next request of this operation gets it; empty for any.
        after: Requests of the operation that have their answers before.
    """

    status: int = 0
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    delay_s: float = 0.0
    cut: int | None = None
    operation: str = ""
    after: int = 0


@dataclass
class VllmDouble:
    """The double, once `running`.

    Attributes:
        adapter: Folder of the adapter that the server has.
        upstream: URL of a real vLLM, whose answers are recorded.
        faults: What requests get in place of their answers, the oldest first.
        requests: Operation and body of each request.
        keys: The header Authorization of each request.
        parents: The header traceparent of each request.
        loaded: Label of each adapter that is loaded, by name.
        unloaded: Names of adapters that were unloaded.
        absent: Operations that the server does not have.
    """

    adapter: Path
    upstream: str | None = None
    faults: deque[Fault] = field(default_factory=deque)
    requests: list[tuple[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    parents: list[str | None] = field(default_factory=list)
    loaded: dict[str, str] = field(default_factory=dict)
    unloaded: list[str] = field(default_factory=list)
    absent: set[str] = field(default_factory=set)
    url: str = ""

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        recorded = json.loads(RECORDED.read_text()) if RECORDED.exists() else []
        self._known = {self._key(one["operation"], one["request"]): one for one in recorded}

    @contextmanager
    def running(self) -> Iterator[VllmDouble]:
        """Serve until the context ends."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("H", (_Handler,), {"double": self}))
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def of(self, operation: str) -> list[Any]:
        """Return the bodies of all requests of an operation."""
        return [body for name, body in self.requests if name == operation]

    def fault_for(self, operation: str) -> Fault | None:
        """Take the oldest fault if it is for this operation."""
        with self._lock:
            if not self.faults or self.faults[0].operation not in ("", operation):
                return None
            fault = self.faults.popleft()
            if fault.after:
                self.faults.appendleft(replace(fault, after=fault.after - 1))
                return None
            return fault

    def answer(self, operation: str, body: Any) -> tuple[int, bytes]:
        """Return the recorded answer, or that of the upstream."""
        if operation in self.absent:
            return 404, b'{"detail":"Not Found"}'
        if operation == "load_lora_adapter":
            self._load(body)
        ask = self._forward if self.upstream else self._find
        status, found = ask(operation, body)
        if operation == "unload_lora_adapter" and status == 200:
            self.loaded.pop(body["lora_name"], None)
            self.unloaded.append(body["lora_name"])
        lost = status != 200 and b"already been loaded" not in found
        if operation == "load_lora_adapter" and lost:
            self.loaded.pop(body["lora_name"], None)
        return status, found.replace(_ADAPTER.encode(), str(self.adapter).encode())

    def _load(self, body: dict[str, str]) -> None:
        """Remember what an adapter is: its settings, and whether it has the trained weights."""
        folder = Path(body["lora_path"])
        with suppress(OSError):
            config = json.loads((folder / "adapter_config.json").read_text())
            kind = "trained" if _weights(folder) == _weights(self.adapter) else "random"
            settings = [f"{key} {config.get(key)}" for key in ("lora_alpha", "r", "bias")]
            self.loaded[body["lora_name"]] = ", ".join([kind, *settings])

    def _find(self, operation: str, body: Any) -> tuple[int, bytes]:
        plain = self._plain(body)
        found = self._known.get(self._key(operation, plain))
        if found is None and operation == "completions":
            found = self._assembled(plain)
        if found is None and _is_temporary(body):
            return 404, UNKNOWN
        if found is None:
            return 500, f'{{"error":{{"message":"not recorded: {operation}"}}}}'.encode()
        answer = found["answer"]
        text = answer if isinstance(answer, str) else json.dumps(answer)
        return found["status"], text.encode()

    def _assembled(self, body: Any) -> dict[str, Any] | None:
        """Return the answer to prompts that were recorded in other requests, alone or with others.

        Which stored values a run verifies is random.
        """
        options = {**body, "prompt": None}
        choices: dict[str, Any] = {}
        for one in self._known.values():
            if one["operation"] != "completions" or one["status"] != 200:
                continue
            if {**one["request"], "prompt": None} == options:
                prompts = map(json.dumps, one["request"]["prompt"])
                choices |= zip(prompts, one["answer"]["choices"], strict=True)
        wanted = [choices.get(json.dumps(prompt)) for prompt in body["prompt"]]
        if None in wanted:
            return None
        numbered = [{**choice, "index": index} for index, choice in enumerate(wanted)]
        return {"status": 200, "answer": {"object": "text_completion", "choices": numbered}}

    def _forward(self, operation: str, body: Any) -> tuple[int, bytes]:
        path = "/v1/" if operation in _OF_THE_API else "/"
        method = "GET" if body is None else "POST"
        got = httpx.request(method, f"{self.upstream}{path}{operation}", json=body, timeout=300)
        text = got.text.replace(str(self.adapter), _ADAPTER)
        for name in self.loaded:
            text = text.replace(name, "NAME")
        with suppress(ValueError):
            text = _stable(json.loads(text))
        plain = self._plain(body)
        entry = {"operation": operation, "request": plain, "status": got.status_code}
        if not _is_temporary(plain):  # its name is another one each time
            with self._lock:
                self._known[self._key(operation, plain)] = {**entry, "answer": text}
        return got.status_code, got.content

    def record(self) -> None:
        """Write all answers, one a line."""
        lines = ",\n".join(json.dumps(one) for _, one in sorted(self._known.items()))
        RECORDED.write_text(f"[\n{lines}\n]\n")

    def _plain(self, body: Any) -> Any:
        """Return a request with labels in place of the names of adapters, and of folders."""
        if not isinstance(body, dict):
            return body
        plain = {name: value for name, value in body.items() if name != "lora_path"}
        for key in ("model", "lora_name"):
            if plain.get(key) in self.loaded:
                plain[key] = self.loaded[plain[key]]
        return plain

    @staticmethod
    def _key(operation: str, body: Any) -> str:
        return f"{operation} {json.dumps(body, sort_keys=True)}"


_OF_THE_API: Final = ("completions", "models", "load_lora_adapter", "unload_lora_adapter")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer waits for a delayed ACK
    double: VllmDouble

    def do_GET(self) -> None:
        self._answer(None)

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        self._answer(json.loads(self.rfile.read(length)))

    def _answer(self, body: Any) -> None:
        operation = self.path.rpartition("/")[2]
        self.double.requests.append((operation, body))
        self.double.keys.append(self.headers.get("Authorization"))
        self.double.parents.append(self.headers.get("traceparent"))
        fault = self.double.fault_for(operation)
        if fault is None:
            status, content = self.double.answer(operation, body)
            self._send(Fault(status, content))
            return
        time.sleep(fault.delay_s)
        if fault.status:
            self._send(fault)
        else:
            self.close_connection = True

    def _send(self, fault: Fault) -> None:
        self.send_response(fault.status)
        for name, value in (*fault.headers, ("Content-Length", str(len(fault.body)))):
            self.send_header(name, value)
        self.end_headers()
        with suppress(OSError):  # the client has gone
            self.wfile.write(fault.body[: fault.cut])
        if fault.cut is not None:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Print nothing."""


def _is_temporary(body: Any) -> bool:
    """Whether a request names an adapter of a view that the server does not have."""
    named = (body.get("model"), body.get("lora_name")) if isinstance(body, dict) else ()
    return any(str(name).startswith("forwardscope-") for name in named)


def _weights(folder: Path) -> bytes:
    return hashlib.sha256((folder / "adapter_model.safetensors").read_bytes()).digest()


def _stable(answer: Any) -> Any:
    """Leave out of an answer what differs each time and is not read."""
    if isinstance(answer, dict):
        volatile = {"created", "permission", *(["id"] if "choices" in answer else [])}
        kept = {key: one for key, one in answer.items() if one is not None}
        return {key: _stable(one) for key, one in kept.items() if key not in volatile}
    return [_stable(one) for one in answer] if isinstance(answer, list) else answer
