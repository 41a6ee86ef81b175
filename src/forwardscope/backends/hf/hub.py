"""Download files from the Hugging Face hub, by its own library.

So its settings hold: tokens, mirrors (HF_ENDPOINT), proxies, the offline mode and timeouts. Only
its waiting differs: it would try again for minutes, and with many lines, where there is no network.
"""

from __future__ import annotations

import io
import logging
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from forwardscope.backends.hf.load_errors import Kind

__all__ = ["Report", "download", "no_report"]

T = TypeVar("T")

#: Called with the name of a step, the amount done and the total amount; 0 if it is not known.
Report = Callable[[str, int, int], None]

#: What a message of a library may quote of a token or a password.
_SECRETS: Final = re.compile(r"(?<=//)[^/@\s]+(?=@)|hf_\w+|(?<=Bearer )[^'\"]+")
_MAX_REASON: Final = 200


def no_report(_step: str, _done: int = 0, _total: int = 0) -> None:
    """Ignore the progress of a step."""


def download(
    name: str,
    kind: Kind,
    what: str,
    report: Report,
    *,
    wanted: Sequence[str],
    unwanted: Sequence[str] = (),
) -> Path:
    """Return the folder of a hub id's files, as they are on the hub or else in its cache here.

    Args:
        name: The hub id.
        kind: Class of the errors.
        what: What it is, for messages.
        report: Called with the bytes downloaded.
        wanted: Patterns of the files to download.
        unwanted: Patterns of files that are left out.

    Raises:
        ModelError: Or AdapterError, as `kind` says: there is no such id, or the hub cannot be
            reached within HF_HUB_ETAG_TIMEOUT (10 s) and the files are not in the cache.
    """
    from huggingface_hub import HfApi, constants, snapshot_download  # noqa: PLC0415 - takes 0.3 s

    def snapshot(**options: Any) -> Path:
        options |= {"allow_patterns": list(wanted), "ignore_patterns": list(unwanted)}
        return Path(snapshot_download(name, **options))

    timeout_s = constants.HF_HUB_ETAG_TIMEOUT
    report(f"looking up {name} on the hub", 0, 0)
    with _few_lines():
        try:
            _within(timeout_s, lambda: HfApi().model_info(name, timeout=timeout_s))
        except Exception as failure:  # noqa: BLE001 - of the library or of its HTTP client
            try:
                return snapshot(local_files_only=True)
            except Exception:  # noqa: BLE001 - it is not in the cache
                raise kind(f"{what} {name} {_reason(failure)}") from failure
        try:
            with _bars(lambda done, total: report(f"downloading {name}", done, total)) as bars:
                return snapshot(tqdm_class=bars)
        except Exception as failure:
            message = f"{what} {name} cannot be downloaded: {_first_line(failure)}"
            raise kind(message) from failure


def _reason(failure: Exception) -> str:
    """Return why the hub does not have an id, and what to do."""
    from huggingface_hub import constants, errors  # noqa: PLC0415

    host = urlsplit(constants.ENDPOINT).hostname
    if isinstance(failure, errors.OfflineModeIsEnabled):
        return (
            "is neither a folder nor in the hub's cache, and HF_HUB_OFFLINE is set; give a "
            "folder, or unset it to download"
        )
    if isinstance(failure, errors.HFValidationError):
        return "is neither a folder nor a hub id, which is like NAME or OWNER/NAME"
    if isinstance(failure, errors.GatedRepoError):
        return f"is gated; accept its terms on its page at {host} and log in with: hf auth login"
    if isinstance(failure, errors.RepositoryNotFoundError):
        return (
            f"is neither a folder nor on {host}; check the name, and if it is private, log in "
            "with: hf auth login"
        )
    if isinstance(failure, errors.HfHubHTTPError):
        status = failure.response.status_code
        return (
            f"cannot be downloaded: {host} answers with status {status}; check HF_ENDPOINT, or try "
            "again later"
        )
    return (
        f"is neither a folder nor in the hub's cache, and {host} cannot be reached "
        f"({_first_line(failure)}); give a folder, or check network and proxy"
    )


def _first_line(failure: Exception) -> str:
    """Return what an exception says in its first line, without secrets."""
    line = next((line for line in str(failure).splitlines() if line.strip()), "")
    return _SECRETS.sub("…", line)[:_MAX_REASON].strip() or type(failure).__name__


def _within(seconds: float, call: Callable[[], T]) -> T:
    """Return what a function returns in a thread; TimeoutError if that takes longer.

    The timeouts of HTTP clients count for each address of a host, and not for its name.
    """
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:  # noqa: BLE001 - raised again by the caller
            outcome.set_exception(error)

    threading.Thread(target=run, name="forwardscope-hub", daemon=True).start()
    try:
        return outcome.result(seconds)
    except TimeoutError as error:
        if outcome.done():
            raise
        raise TimeoutError(f"no answer within {seconds:g} s") from error


@contextmanager
def _bars(report: Callable[[int, int], None]) -> Iterator[type[Any]]:
    """Yield a class like tqdm's that reports bytes in the context, and draws nothing."""
    from tqdm import tqdm  # type: ignore[import-untyped] # noqa: PLC0415

    amounts: dict[int, tuple[int, int]] = {}
    lock, ended = threading.Lock(), threading.Event()  # files are downloaded in threads

    class Reporting(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            options = {name: one for name, one in options.items() if name != "name"}
            super().__init__(*args, **options | {"file": io.StringIO(), "disable": False})

        def display(self, *_: Any, **__: Any) -> None:
            if self.unit == "B" and not ended.is_set():  # others count files
                with lock:
                    amounts[id(self)] = int(self.n), int(self.total or 0)
                    largest = max(amounts.values())
                report(*largest)

    try:
        yield Reporting
    finally:
        ended.set()  # bars are closed when they are deleted


@contextmanager
def _few_lines() -> Iterator[None]:
    """Suppress the hub's warnings, which are of its attempts."""
    from huggingface_hub.utils import logging as hub_logging  # noqa: PLC0415

    verbosity = hub_logging.get_verbosity()
    hub_logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        hub_logging.set_verbosity(verbosity)
