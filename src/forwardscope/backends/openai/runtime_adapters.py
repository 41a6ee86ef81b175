"""Adapters of scaled and null views: written to files, loaded by the server, unloaded again.

vLLM keeps what it computed under an adapter's name, so each name has a digest of the adapter's
content. A name is used by one process, for one view.
"""

from __future__ import annotations

import re
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from forwardscope.backends.digests import digest_of
from forwardscope.backends.openai.adapter_files import AdapterFiles, read_adapter
from forwardscope.backends.openai.client import ServerClient
from forwardscope.backends.openai.source import ServedSource
from forwardscope.core.forks import reset_in_children
from forwardscope.errors import MissingExtraError, OutputError, ServerError, ViewError

__all__ = ["RuntimeAdapter", "RuntimeAdapters"]

_FAMILIES: Final = ("scaled", "null")
#: Of a digest, and of what makes a name unique.
_DIGITS: Final = 12
#: What vLLM says of an adapter with more rows than it allows.
_RANK: Final = re.compile(r"LoRA rank (\d{1,9}) is greater than max_lora_rank \d{1,9}")
#: The package that draws random factors.
_NOISE: Final = "torch"


class RuntimeAdapter:
    """An adapter that the server loads when its name is first needed. Thread-safe.

    A forked child loads and unloads one of its own, under another name.

    Args:
        client: Sends the requests.
        digest: Digest of its content.
        place: The folder in which its own folder is made.
        write: Writes the adapter into a new folder.
    """

    def __init__(
        self, client: ServerClient, digest: str, place: Path, write: Callable[[Path], None]
    ) -> None:
        self._client = client
        self._digest = digest
        self._place = place
        self._write = write
        self._closed = False
        self.after_fork()
        reset_in_children(self)

    def after_fork(self) -> None:
        """Begin with a new name, which nothing has loaded."""
        self.label = f"forwardscope-{self._digest[:_DIGITS]}-{uuid.uuid4().hex[:_DIGITS]}"
        self._folder = self._place / f".{self.label}"
        self._lock = threading.Lock()
        self._loaded = self._may_be_loaded = False

    def name(self) -> str:
        """Return the server's name of the adapter, which is loaded now if it was not.

        Raises:
            ServerError: The server does not load it.
            OutputError: It cannot be written.
            AdapterError: Its files have changed since they were read.
            ViewError: It is closed.
        """
        with self._lock:
            self._check_open()
            if not self._loaded:
                self._load()
                self._loaded = True
            return self.label

    def renew(self) -> bool:
        """Load the adapter once more, on a server that was restarted; return True.

        Raises:
            ServerError: The server does not load it.
            ViewError: It is closed.
        """
        with self._lock:
            self._check_open()
            self._request_load()
        return True

    def close(self) -> bool:
        """Unload the adapter and remove its files; return whether the server has none of it."""
        with self._lock:
            self._closed = True
            shutil.rmtree(self._folder, ignore_errors=True)
            unload = self._loaded or self._may_be_loaded
            self._loaded = self._may_be_loaded = False
        try:
            if unload:
                self._client.request("unload_lora_adapter", {"lora_name": self.label})
        except ServerError as error:
            return error.status == 404 or error.is_gone
        return True

    def _check_open(self) -> None:
        """Load nothing for a thread that is still in a view which was closed."""
        if self._closed:
            raise ViewError("the view is closed; open it again to score prompts")

    def _load(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)  # of an attempt that failed
        try:
            self._write(self._folder)
        except OSError as error:
            raise OutputError(
                f"an adapter cannot be written into {self._place}: {error.strerror}; give "
                "model.adapter_scratch, a folder that this process can write and the server can "
                "read"
            ) from error
        self._request_load()

    def _request_load(self) -> None:
        known, self._may_be_loaded = self._may_be_loaded, True  # the answer may be lost
        request = {"lora_name": self.label, "lora_path": str(self._folder)}
        try:
            self._client.request("load_lora_adapter", request)
        except ServerError as error:
            if "already been loaded" not in str(error):  # by an attempt whose answer was lost
                self._may_be_loaded = (known or error.status is None) and not error.is_gone
                raise


class RuntimeAdapters:
    """The adapters that the views of one backend need.

    With `adapter_dir`, the server loads and unloads its adapter here, so that what it refuses is
    known before the run.

    Args:
        client: Sends the requests.
        source: Names the adapter's folder.
        compare: Called with the name under which the server has it now; raises where it is not
            the adapter of `source`.

    Raises:
        AdapterError: `adapter_dir` has no adapter that can be read.
        ServerError: The server is not reached.

    Attributes:
        refusals: The reason for each view family that is not available.
        warnings: What a reader of the results should know.
        files: What views take from the adapter, by name, for identities; empty without
            `adapter_dir`.
    """

    def __init__(
        self, client: ServerClient, source: ServedSource, compare: Callable[[str], None]
    ) -> None:
        self._client = client
        self._files: AdapterFiles | None = None
        self._place = Path()
        self._open: set[RuntimeAdapter] = set()
        self.refusals: dict[str, str] = {}
        self.warnings: list[str] = []
        self.files: Mapping[str, str] = {}
        if source.adapter_dir is None:
            self._refuse(
                "the server scales no adapter; give model.adapter_dir, the folder of this one, "
                "which the server sees too"
            )
            return
        self._files = files = read_adapter(source.adapter_dir)
        self._place = Path(source.adapter_scratch or files.folder.parent).expanduser().absolute()
        self.files = {**files.parts, "random factors": _drawn_by()}
        self._find_refusals(files, compare)

    @contextmanager
    def scaled(self, lam: float) -> Iterator[RuntimeAdapter]:
        """Yield an adapter whose change is multiplied by `lam`; unload it afterwards."""
        files = self._known()
        with self._adapter(["scaled", lam], lambda at: files.write_scaled(at, lam)) as adapter:
            yield adapter

    @contextmanager
    def random(self, seed: int, init_scale: float, rank_scale: float) -> Iterator[RuntimeAdapter]:
        """Yield an adapter with Gaussian factors; unload it afterwards."""
        files, draw = self._known(), (seed, init_scale, rank_scale)
        with self._adapter(["null", *draw], lambda at: files.write_random(at, *draw)) as adapter:
            yield adapter

    def close(self) -> None:
        """Unload the adapters of open views and remove their files; may be called twice."""
        while self._open:
            self._open.pop().close()

    def _known(self) -> AdapterFiles:
        if self._files is None:
            raise ServerError(self.refusals["scaled"])
        return self._files

    @contextmanager
    def _adapter(
        self, change: list[object], write: Callable[[Path], None]
    ) -> Iterator[RuntimeAdapter]:
        digest = digest_of([dict(self.files), change])
        adapter = RuntimeAdapter(self._client, digest, self._place, write)
        self._open.add(adapter)
        try:
            yield adapter
        finally:
            if not adapter.close():
                self.warnings.append(
                    f"the adapter {adapter.label} may still be loaded on the server"
                )
            self._open.discard(adapter)

    def _find_refusals(self, files: AdapterFiles, compare: Callable[[str], None]) -> None:
        """Find out what the server refuses, by loading the adapter itself under another name."""
        if files.refusal is not None:
            self._refuse(files.refusal)
            return
        with self.scaled(1.0) as adapter:
            try:
                name = adapter.name()
            except ServerError as error:
                if error.status is None:
                    raise
                self._refuse(_reason(error, self._place))
            except OutputError as error:
                self._refuse(str(error))
            else:
                compare(name)
        if "null" not in self.refusals and (missing := _missing()):
            self.refusals["null"] = missing

    def _refuse(self, reason: str) -> None:
        self.refusals |= dict.fromkeys(_FAMILIES, reason)


def _reason(error: ServerError, place: Path) -> str:
    """Return why a server does not load an adapter, with what to change."""
    if "No adapter found" in str(error):
        return (
            f"the server does not see {place}; give model.adapter_scratch, a folder that this "
            "process can write and the server can read under the same path"
        )
    if error.status in (404, 405):
        return (
            "the server loads no adapters at run time; start vLLM with --enable-lora and "
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True in its environment"
        )
    if rank := _RANK.search(str(error)):
        return f"{rank[0]}; start vLLM with a --max-lora-rank of at least {rank[1]}"
    return str(error)


def _missing() -> str | None:
    """Return why random factors cannot be drawn; None where they can."""
    try:
        import forwardscope.backends.hf  # noqa: F401, PLC0415 - without torch, which is slow
    except MissingExtraError as error:
        return f"random factors are drawn by torch, and {error}"
    return None


def _drawn_by() -> str:
    with suppress(PackageNotFoundError):
        return f"{_NOISE} {version(_NOISE)}"
    return ""
