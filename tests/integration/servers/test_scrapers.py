"""Scrapers that misbehave: whatever one does with its connection is its own affair."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from .runs import Cli, LiveRun, Run, suite

REQUEST = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
CLOSE_S, MARGIN_S = 5.0, 15.0  # what all ways out may take together, and a slow machine's share


@pytest.fixture(scope="module")
def plain(cli: Cli) -> Run:
    """A run without telemetry."""
    return cli.run(suite())


def connect(live: LiveRun, request: bytes = b"") -> socket.socket:
    """A scraper that has sent so much of its request."""
    host, _, port = live.metrics_url.removeprefix("http://").partition("/")[0].partition(":")
    one = socket.create_connection((host, int(port)), timeout=30)
    one.sendall(request)
    return one


def reset(one: socket.socket) -> None:
    """Close a connection so that the other side sees a reset."""
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    one.close()


def hang(live: LiveRun) -> socket.socket:
    return connect(live)


def hang_in_its_request(live: LiveRun) -> socket.socket:
    return connect(live, REQUEST[:20])


def never_read(live: LiveRun) -> socket.socket:
    one = connect(live, REQUEST)
    assert one.recv(1, socket.MSG_PEEK)  # answered, which is no scrape after the run's end
    return one


def leave_at_once(live: LiveRun) -> socket.socket:
    one = connect(live)
    one.close()
    return one


def leave_in_the_middle(live: LiveRun) -> socket.socket:
    one = connect(live, REQUEST)
    assert one.recv(15) == b"HTTP/1.0 200 OK"
    one.close()
    return one


def reset_in_the_middle(live: LiveRun) -> socket.socket:
    one = connect(live, REQUEST)
    assert one.recv(15) == b"HTTP/1.0 200 OK"
    reset(one)
    return one


def reset_before_the_answer(live: LiveRun) -> socket.socket:
    one = connect(live, REQUEST)
    reset(one)
    return one


def reset_in_its_request(live: LiveRun) -> socket.socket:
    one = connect(live, REQUEST[:20])
    reset(one)
    return one


def reset_at_once(live: LiveRun) -> socket.socket:
    one = connect(live)
    reset(one)
    return one


@pytest.mark.parametrize(
    "scrape",
    [
        hang,
        hang_in_its_request,
        never_read,
        leave_at_once,
        leave_in_the_middle,
        reset_in_the_middle,
        reset_before_the_answer,
        reset_in_its_request,
        reset_at_once,
    ],
)
def test_a_scraper_that_misbehaves(
    cli: Cli, plain: Run, scrape: Callable[[LiveRun], socket.socket]
) -> None:
    """The run's values, status, time and terminal are its own."""
    options = ("--metrics-port", 0, "--metrics-linger", 0.5)
    live = cli.start(suite(), *options, hold=True).until_held()
    kept = [scrape(live) for _ in range(5)]
    live.release()
    run = live.finish()
    for one in kept:
        one.close()
    assert (run.status, run.measured) == (plain.status, plain.measured)
    assert run.result["reconciliation"]["holds"]
    assert run.stderr == f"metrics: {live.metrics_url}\n"
    assert run.seconds < plain.seconds + CLOSE_S + MARGIN_S
    told = run.delivery("http://")
    assert not told["ok"]
    assert told["what"].endswith(", not within 0.5 s after the end")
