"""Benchmarks of suites of many probes with and without exporters.

The model takes 3 ms for each prompt, a seventh of the demo's; 500 probes take 8 s without
exporters. The exporters send to a server in another process, which accepts everything:

    python benchmarks/exported.py
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

_FOLDER: Final = tempfile.TemporaryDirectory()
_PASS_S: Final = 0.003


def suite_with(n: int) -> dict[str, Any]:
    """Measure a suite of `n` probes with file, pushes, scrape endpoint and spans: per probe."""
    url = _server()
    return _run(
        n,
        {
            "otlp": url,
            "pushgateway": url,
            "metrics_port": 0,
            "metrics_file": str(Path(_FOLDER.name, "run.prom")),
        },
    )


def suite_without(n: int) -> dict[str, Any]:
    """Measure the same suite without exporters."""
    return _run(n, {})


def _run(n: int, settings: dict[str, Any]) -> dict[str, Any]:
    from forwardscope import BackendInstrumentation  # noqa: PLC0415 - not in the server's process
    from forwardscope.cli.telemetry import Telemetry  # noqa: PLC0415
    from forwardscope.suite import SuiteSpec, run_suite  # noqa: PLC0415
    from forwardscope.suite.plan import expect_series  # noqa: PLC0415
    from forwardscope.testing import ScriptedBackend, pseudo_random_logits  # noqa: PLC0415

    def script(view: Any, prompt: str) -> Any:
        time.sleep(_PASS_S)
        return pseudo_random_logits(view, prompt)

    probes = [
        {"name": f"probe {one}", "kind": "delta_kl", "prompts": [f"{one} a", f"{one} b", "all"]}
        for one in range(n)
    ]
    model = {"path": "model", "adapter": "adapter"}
    spec = SuiteSpec.model_validate(
        {"version": 1, "model": model, "telemetry": settings, "probes": probes}
    )
    start, cpu = time.perf_counter_ns(), time.process_time_ns()
    with ExitStack() as stack:
        telemetry = stack.enter_context(Telemetry(spec))
        inst = BackendInstrumentation(tracer_provider=telemetry.tracer_provider)
        telemetry.watch(inst)
        if telemetry.has_counters:
            expect_series(spec, inst)
        backend = ScriptedBackend(script, instrumentation=inst)
        stack.callback(backend.close)
        run_suite(spec, backend, observer=telemetry.observer)
        failed = [one for one in telemetry.finish() if not one.ok]
    if failed:
        raise SystemExit(f"not delivered: {failed}")
    wall = time.perf_counter_ns() - start
    return {"ns": wall / n, "process_ns": (time.process_time_ns() - cpu) / n}


@cache
def _server() -> str:
    command = [sys.executable, __file__]
    server = subprocess.Popen(  # noqa: S603 - ends with this process, whose pipe it reads
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    if server.stdout is None:
        raise SystemExit("the server has no pipe")
    return f"http://127.0.0.1:{int(server.stdout.readline())}"


class _Accepting(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Read and accept a request."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(b"")

    def do_GET(self) -> None:
        """Answer that the Pushgateway has no groups."""
        self._answer(b'{"status": "success", "data": []}')

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _serve() -> None:
    """Print the port, and serve until standard input ends."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Accepting) as server:
        sys.stdout.write(f"{server.server_port}\n")
        sys.stdout.flush()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        sys.stdin.read()
        server.shutdown()


TASKS = {"exported": suite_with, "unexported": suite_without}

if __name__ == "__main__":
    _serve()
