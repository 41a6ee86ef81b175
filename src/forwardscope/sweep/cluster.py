"""The Ray of a sweep: one that is started here and ends with the sweep, or one that runs."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, Final

from forwardscope.errors import MissingExtraError, UserError
from forwardscope.text import MAX_SENTENCE, shown

__all__ = ["check_ray", "local_ray", "quiet_ray", "reachable"]

#: Of each process that uses Ray: no statistics to its makers, no notes of dead workers on stdout,
#: no warning of what changes in Ray.
_QUIET: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
#: Makes 127.0.0.1 the address of this machine, in spite of the name, so that Ray's processes
#: listen there alone. By default they listen on all interfaces.
_LOOPBACK: Final = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
#: Ray's sockets have paths of about 65 characters in its folder; 107 is the limit.
_MAX_FOLDER: Final = 20
_CONNECT_S: Final = 5.0
_STOP_S: Final = 15.0


def check_ray() -> None:
    """Check that Ray is installed.

    Raises:
        MissingExtraError: It is not.
    """
    if find_spec("ray") is None:
        raise MissingExtraError("ray", "ray")


@contextmanager
def local_ray(resources: Mapping[str, Any]) -> Iterator[str]:
    """Start Ray on this machine, yield its address, and stop it at the end.

    All of its processes listen on 127.0.0.1 alone and need a token that only this process
    and its children have. They end, and their files are removed, also if this process is killed.
    It must come before the first import of `ray`, which reads its environment then; so a
    process can call it once.

    Args:
        resources: Arguments of `ray.init` that state the machine's resources.

    Raises:
        UserError: Ray does not start.
        RuntimeError: `ray` has been imported.
    """
    if "ray" in sys.modules:
        raise RuntimeError("ray was imported before local_ray set its environment")
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    with _variables(_QUIET | _LOOPBACK | token):
        folder = tempfile.mkdtemp(prefix="forwardscope-", dir=_temporary_folder())
        command = [sys.executable, "-P", "-m", "forwardscope.sweep.ray_node"]
        process = subprocess.Popen(  # noqa: S603 - this interpreter and a module of this package
            [*command, folder, json.dumps(dict(resources))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            yield _address(process)
        finally:
            _stop(process)
            shutil.rmtree(folder, ignore_errors=True)  # where the process was killed


def quiet_ray() -> AbstractContextManager[None]:
    """Keep Ray from printing and from sending statistics, in a process that has not imported it."""
    return _variables(_QUIET)


def reachable(address: str) -> None:
    """Check that something listens at the address of a cluster; Ray itself waits for minutes.

    Args:
        address: Host and port, also with `ray://` before them, or `auto`.

    Raises:
        UserError: The address is not one, or nothing listens there.
    """
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", "auto")
        if address == "auto":
            return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isascii() and port.isdigit() and int(port) < 2**16) or "/" in host:
        raise UserError(
            f"--ray {shown(address)}: not an address; give auto, HOST:PORT or ray://HOST:PORT"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_S).close()
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"--ray {shown(address)}: no cluster is there: {shown(reason)}") from error


@contextmanager
def _variables(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables, and restore them at the end."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _temporary_folder() -> Path | None:
    """Return where Ray's folder can be made; None for the usual place."""
    return None if len(tempfile.gettempdir()) <= _MAX_FOLDER else Path("/tmp")  # noqa: S108 - mkdtemp


def _address(process: subprocess.Popen[bytes]) -> str:
    line = _pipe(process.stdout).readline()
    message = json.loads(line) if line else {"error": "its process ended"}
    if "error" in message:
        reason = shown(message["error"], MAX_SENTENCE)
        raise UserError(f"Ray does not start on this machine: {reason}")
    return str(message["address"])


def _stop(process: subprocess.Popen[bytes]) -> None:
    with suppress(OSError):  # it has ended
        _pipe(process.stdin).close()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    _pipe(process.stdout).close()


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None  # noqa: S101 - each was opened
    return pipe
