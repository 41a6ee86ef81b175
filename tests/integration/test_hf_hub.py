"""Hub ids: downloads with progress, and one sentence within seconds for what cannot be had."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

import pytest

_NAME: Final = "owner/adapter"
_COMMIT: Final = "c" * 40
_FILES: Final = {
    "adapter_config.json": b"{}",
    "adapter_model.safetensors": b"w" * 3_000_000,
    "adapter_model.bin": b"a pickle",
}
_DOWNLOAD: Final = """
import json, sys
from forwardscope.backends.hf.adapter_files import adapter_folder
from forwardscope.errors import AdapterError

def report(*step):
    print(json.dumps(step))

try:
    print(json.dumps(str(adapter_folder(sys.argv[1], report))))
except AdapterError as error:
    print(json.dumps(str(error)))
print(json.dumps(sorted({"torch", "transformers", "peft"} & set(sys.modules))))
"""


class _Hub(BaseHTTPRequestHandler):
    """A hub with one adapter; what has another name gets the status of that name."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        status, content, headers = self._found(self.path.partition("?")[0])
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def _found(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        if path.startswith(f"/api/models/{_NAME}/tree"):
            entries = [
                {"type": "file", "path": name, "size": len(content), "oid": f"{i}" * 40}
                for i, (name, content) in enumerate(_FILES.items())
            ]
            return 200, json.dumps(entries).encode(), {"Content-Type": "application/json"}
        if path.startswith(f"/api/models/{_NAME}"):
            siblings = [{"rfilename": name} for name in _FILES]
            info = {"id": _NAME, "sha": _COMMIT, "siblings": siblings}
            return 200, json.dumps(info).encode(), {"Content-Type": "application/json"}
        if path.startswith(f"/{_NAME}/resolve/"):
            name = path.rpartition("/")[2]
            return 200, _FILES[name], {"X-Repo-Commit": _COMMIT, "ETag": f'"{name}"'}
        if "gated" in path:
            return 403, b"", {"X-Error-Code": "GatedRepo"}
        if "broken" in path:
            return 500, b"", {}
        return 404, b"", {"X-Error-Code": "RepoNotFound"}

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def hub() -> Iterator[str]:
    """URL of a hub."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def silent_hub() -> Iterator[str]:
    """URL of a hub that takes connections and does not answer."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def _download(cache: Path, name: str, **variables: str) -> tuple[list[object], str]:
    """Find an adapter in another process; return its steps and its folder or error.

    It prints nothing of its own, and torch is not imported for it.
    """
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    environment |= {"HF_HOME": str(cache), "HF_HUB_OFFLINE": "0", **variables}
    ran = subprocess.run(
        [sys.executable, "-c", _DOWNLOAD, name],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    *steps, found, heavy = map(json.loads, ran.stdout.splitlines())
    assert (ran.stderr, heavy) == ("", [])
    return steps, found


def test_a_download_reports_its_bytes(hub: str, tmp_path: Path) -> None:
    """Wanted files are downloaded, pickles are not, and the bytes reach their total."""
    steps, folder = _download(tmp_path, _NAME, HF_ENDPOINT=hub)
    assert {path.name for path in Path(folder).iterdir()} == set(list(_FILES)[:2])
    assert steps[0] == [f"looking up {_NAME} on the hub", 0, 0]
    names, amounts = {name for name, _, _ in steps[1:]}, [amount for _, *amount in steps[1:]]
    assert names == {f"downloading {_NAME}"}
    wanted = sum(len(content) for content in list(_FILES.values())[:2])
    assert [wanted, wanted] in amounts


def test_what_is_in_the_cache_needs_no_hub(hub: str, tmp_path: Path) -> None:
    """Neither without a network nor in the offline mode."""
    _, folder = _download(tmp_path, _NAME, HF_ENDPOINT=hub)
    assert _download(tmp_path, _NAME, HF_ENDPOINT="http://127.0.0.1:9")[1] == folder
    assert _download(tmp_path, _NAME, HF_HUB_OFFLINE="1")[1] == folder


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("owner/none", "is neither a folder nor on 127.0.0.1; check the name"),
        ("owner/gated", "is gated; accept its terms on its page at 127.0.0.1 and log in"),
        ("owner/broken", "127.0.0.1 answers with status 500"),
        ("own er/name", "is neither a folder nor a hub id, which is like NAME or OWNER/NAME"),
    ],
)
def test_what_the_hub_refuses(hub: str, tmp_path: Path, name: str, message: str) -> None:
    """The sentence has the reason and the way to fix it."""
    error = _download(tmp_path, name, HF_ENDPOINT=hub)[1]
    assert error.startswith(f"adapter {name} ")
    assert message in error


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "127.0.0.1 cannot be reached ([Errno 111] Conn"),
        ({"HF_ENDPOINT": "http://u:pass@127.0.0.1:9"}, "127.0.0.1 cannot be reached ([Errno 111]"),
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set; give a folder, or unset it to download"),
        (
            {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_TOKEN": "hf_secret\u00e9"},
            "cannot be reached",
        ),
    ],
)
def test_without_a_network(tmp_path: Path, variables: dict[str, str], message: str) -> None:
    """The sentence says so, without the secrets of the environment."""
    error = _download(tmp_path, "owner/name", **variables)[1]
    assert error.startswith("adapter owner/name is neither a folder nor in the hub's cache, and ")
    assert message in error
    assert "pass" not in error
    assert "secret" not in error


def test_a_hub_that_does_not_answer(silent_hub: str, tmp_path: Path) -> None:
    """It is asked once, for as long as HF_HUB_ETAG_TIMEOUT."""
    start = time.monotonic()
    error = _download(tmp_path, "owner/name", HF_ENDPOINT=silent_hub, HF_HUB_ETAG_TIMEOUT="1")[1]
    assert "127.0.0.1 cannot be reached (" in error
    assert time.monotonic() - start >= 1
