"""Real servers on 127.0.0.1 for tests."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from shutil import which

import pytest


def free_port() -> int:
    """Return a port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def start(port: int, *options: str) -> subprocess.Popen[bytes]:
    """Start a server that keeps nothing on disk, and wait until it answers."""
    command = which("redis-server") or which("valkey-server")
    if command is None:
        pytest.skip("neither redis-server nor valkey-server is installed")
    bound = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    process = subprocess.Popen([command, *bound, *options], stdout=subprocess.DEVNULL)
    due = time.monotonic() + 30
    while time.monotonic() < due:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.01)
        else:
            return process
    process.kill()
    raise TimeoutError("the server does not answer")


def stop(process: subprocess.Popen[bytes]) -> None:
    """Kill a server and wait until it is gone."""
    process.kill()
    process.wait()


@contextmanager
def running(*options: str) -> Iterator[int]:
    """Yield the port of a server."""
    port = free_port()
    process = start(port, *options)
    try:
        yield port
    finally:
        stop(process)
