"""Addresses of clusters, what Ray says of failures, and a Ray that is not there."""

from __future__ import annotations

import os
import socket
import sys

import pytest

from forwardscope.errors import MissingExtraError, UserError
from forwardscope.sweep.cluster import check_ray, local_ray, quiet_ray, reachable
from forwardscope.sweep.ray_errors import last_line, why_lost, why_no_connection


@pytest.mark.parametrize(
    "address", ["", "head", "head:", ":1", "head:x", "head:70000", "http://a:1"]
)
def test_what_is_no_address(address: str) -> None:
    """A mistake in the address is told before Ray is asked."""
    with pytest.raises(UserError, match="not an address; give auto, HOST:PORT or ray://HOST:PORT"):
        reachable(address)


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "ray://127.0.0.1:{}"])
def test_an_address_where_nothing_listens(form: str) -> None:
    """It is told at once; Ray would try for minutes."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        address = form.format(bound.getsockname()[1])
        with pytest.raises(UserError, match="no cluster is there: Connection refused"):
            reachable(address)
        bound.listen()
        reachable(address)


def test_auto_is_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Auto is the cluster that RAY_ADDRESS names, or what Ray finds."""
    monkeypatch.setenv("RAY_ADDRESS", "nonsense")
    with pytest.raises(UserError, match="nonsense"):
        reachable("auto")
    monkeypatch.delenv("RAY_ADDRESS")
    reachable("auto")


def test_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is named."""
    monkeypatch.setattr("forwardscope.sweep.cluster.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"ray is not installed.*\[ray\]"):
        check_ray()


def test_ray_that_was_imported_too_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would listen on all interfaces, so it is refused."""
    monkeypatch.setitem(sys.modules, "ray", sys)
    with pytest.raises(RuntimeError, match="imported before"), local_ray({}):
        pass


def test_variables_are_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray is quiet for a sweep, and as before after it."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    before = dict(os.environ)
    with quiet_ray():
        assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert dict(os.environ) == before


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Worker exits with an exit code 3.", "its process ended with exit code 3"),
        ("a connection error code 2. End of file.", "its process was killed, or crashed"),
        (
            "Task was killed due to the node running low on memory.\nMemory on the node",
            "Ray ended its process, since its machine was running low on memory",
        ),
        (
            "Traceback\n  x\nModuleNotFoundError: forwardscope\n",
            "ModuleNotFoundError: forwardscope",
        ),
        ("\x1b[2J", "\\x1b[2J"),
        ("", "Exception"),
    ],
)
def test_why_a_worker_was_lost(text: str, reason: str) -> None:
    """In a few words, with nothing that drives a terminal."""
    assert why_lost(Exception(text)) == reason


def test_why_there_is_no_connection() -> None:
    """The first paragraph, as one line."""
    error = Exception("Version mismatch:\n    Ray: 2\n\nmore")
    assert why_no_connection(error) == "Version mismatch: Ray: 2"
    assert why_no_connection(ConnectionError()) == "ConnectionError"
    assert last_line(Exception("a\nb\n")) == "b"
