"""Servers of the tests, real or broken, and the command line that talks to them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from ..conftest import Zoo
from .demos import Demo, run_demo
from .processes import Prometheus, Pushgateway, run_prometheus, run_pushgateway
from .receivers import Receiver, receive_grpc, receive_http
from .runs import Cli
from .sweeps import Running, prepared_sweep


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """The command line with a scripted model."""
    cli = Cli(tmp_path_factory.mktemp("runs"))
    yield cli
    cli.close()


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory, demo_cache: Path) -> Callable[..., Demo]:
    """Run the demo; the model is made once."""
    return lambda *options: run_demo(tmp_path_factory.mktemp("demo"), demo_cache, *options)


@pytest.fixture
def pushgateway(tmp_path: Path) -> Iterator[Pushgateway]:
    """A Pushgateway that nobody has pushed to."""
    with run_pushgateway(tmp_path) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Prometheus]]:
    """Start a Prometheus that scrapes some targets, given as host:port."""
    with ExitStack() as running:

        def start(*targets: str) -> Prometheus:
            folder = tmp_path_factory.mktemp("prometheus")
            return running.enter_context(run_prometheus(folder, targets))

        yield start


@pytest.fixture
def running(zoo: Zoo, tmp_path: Path) -> Iterator[Running]:
    """A sweep of tiny models that is not started yet."""
    with prepared_sweep(zoo, tmp_path) as sweep:
        yield sweep


@pytest.fixture(scope="module")
def otlp_http() -> Iterator[Receiver]:
    """A receiver that speaks OTLP over HTTP."""
    with receive_http() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def otlp_grpc() -> Iterator[Receiver]:
    """A receiver that speaks OTLP over gRPC."""
    with receive_grpc() as receiver:
        yield receiver


@pytest.fixture
def dying() -> Iterator[Callable[[str], Receiver]]:
    """Start a receiver of a protocol that the test will stop in the middle of a run."""
    with ExitStack() as running:
        kinds = {"http": receive_http, "grpc": receive_grpc}
        yield lambda protocol: running.enter_context(kinds[protocol]())


@pytest.fixture
def hanging() -> Iterator[str]:
    """A host and port that accepts all connections, keeps them, and never says a word."""
    kept: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listening:

        def accept() -> None:
            with suppress(OSError):  # it was closed
                while True:
                    kept.append(listening.accept()[0])

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield "{}:{}".format(*listening.getsockname())
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()
    for connection in kept:
        connection.close()


@pytest.fixture
def refused() -> Iterator[str]:
    """A host and port where nothing listens, and nothing else will."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield "{}:{}".format(*bound.getsockname())
