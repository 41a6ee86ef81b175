"""`forwardscope check`: whether an adapter does anything, without a suite file."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from shlex import quote
from string import Template
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from forwardscope.analysis import legend
from forwardscope.analysis.check import answer, answer_table
from forwardscope.analysis.tables import as_rich
from forwardscope.backends.model_paths import is_path, local_path
from forwardscope.cli.options import RunOptions, takes_run_options
from forwardscope.cli.running import run_and_report
from forwardscope.errors import OutputError, SpecError, UserError
from forwardscope.files import check_outputs, write_file
from forwardscope.suite.loading import parse_suite
from forwardscope.suite.report import print_line
from forwardscope.suite.result import SuiteResult
from forwardscope.suite.text_files import read_items
from forwardscope.suite.yaml_source import yaml_text
from forwardscope.text import MAX_SENTENCE, shown

__all__ = ["check"]


@takes_run_options
def check(
    adapter: Annotated[
        str,
        typer.Argument(
            help="A folder or a hub id: of an adapter, or with --base of a whole fine-tuned model.",
            metavar="ADAPTER",
        ),
    ],
    options: RunOptions,
    base: Annotated[
        str | None,
        typer.Option(
            help="The base model: a folder, a .gguf file or a hub id. By default the one that the "
            "adapter's config names.",
            metavar="MODEL",
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(help="A torch device, or auto.", metavar="DEVICE")
    ] = "auto",
    chat: Annotated[
        bool,
        typer.Option(
            "--chat", help="Give the prompts as messages of a user, for an adapter of a chat model."
        ),
    ] = False,
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="Prompts of your own instead of the general ones: a file with one in each line, "
            "or .jsonl.",
            metavar="FILE",
        ),
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option(help="Write the suite that is run to this new file.", metavar="SUITE.yaml"),
    ] = None,
) -> None:
    """Tell in a minute whether an adapter does anything, and breaks nothing.

    Base and adapter answer 32 general prompts and predict 32 general texts; five
    random adapters of the same shape show what is noise. Values are kept in the
    store, so that the next adapter on this base takes less time.

    For questions of your own, write the suite with --save, edit it, and run it:

        forwardscope check ./my-adapter --save suite.yaml

    Exit status: 0 when the adapter does something and breaks no general text, 1
    when it does not, 2 for an error.
    """
    if save is not None and save.exists():
        raise OutputError(f"{save} exists; choose another name for the suite")
    if prompts is not None:
        _check_prompts(prompts)
    text = _suite_text(adapter, base, device, prompts, chat=chat)
    suite = parse_suite(text, "check.yaml")
    model = suite.model.model_copy(update={"adapter_name": adapter})
    spec = options.override(suite.model_copy(update={"name": "check", "model": model}))
    check_outputs(options.output_files(spec) | {"suite": save})
    if save is not None:
        write_file("suite", save, text)
    result = run_and_report(spec, options, show=_print_answer)
    raise typer.Exit(0 if result.passed else 1)


def _check_prompts(prompts: Path) -> None:
    """Raise a UserError if a file has no prompts, before torch is imported."""
    try:
        read_items(prompts)
    except SpecError as error:
        raise UserError(f"--prompts: {error}") from error


def _suite_text(
    adapter: str, base: str | None, device: str, prompts: Path | None, *, chat: bool
) -> str:
    """Return the suite as YAML; its paths are absolute.

    Raises:
        UserError: A path is empty; or the base is not given, and the adapter is a whole model or
            does not name one that is here.
    """
    from forwardscope.backends.hf.adapter_files import is_whole_model  # noqa: PLC0415 - a second

    for what, path in (("ADAPTER", adapter), ("--base", base)):
        if path is not None and not path.strip():
            raise UserError(f"{what} is empty; give a folder or a hub id")
    whole = is_whole_model(adapter)
    if whole and base is None:
        raise UserError(
            f"{adapter} is a whole model, not an adapter; add --base MODEL, the model before "
            "fine-tuning"
        )
    own = "" if prompts is None else f", prompts_file: {yaml_text(_absolute(str(prompts)))}"
    text = (files("forwardscope.suite") / "check.yaml").read_text(encoding="utf-8")
    return Template(text).substitute(
        model=yaml_text(_absolute(base if base is not None else _named_base(adapter))),
        kind="tuned" if whole else "adapter",
        tuned=yaml_text(_absolute(adapter)),
        device=yaml_text(device),
        chat="true" if chat else "false",
        prompts=own,
    )


def _named_base(adapter: str) -> str:
    from forwardscope.backends.hf.adapter_files import adapter_folder  # noqa: PLC0415 - a second

    folder = adapter_folder(adapter)
    from forwardscope.backends.hf.trained_on import named_base  # noqa: PLC0415 - loads torch

    name = named_base(folder)
    if name is None:
        raise UserError(f"adapter {adapter} names no base model; add --base MODEL")
    if local_path(name) is None and is_path(name):
        raise UserError(
            f"adapter {adapter} was trained on {name}, which is not on this machine; "
            "add --base MODEL"
        )
    return name


def _absolute(path: str) -> str:
    local = local_path(path)
    return path if local is None else str(local.resolve())


def _warnings(result: SuiteResult) -> Iterator[str]:
    """Yield what did not go well, as the report of a run has it."""
    yield from result.warnings
    if result.store is not None:
        yield from (f"store: {problem}" for problem in result.store.problems())
    yield from (f"{one.to}: {one.what}" for one in result.delivery if not one.ok)


def _print_answer(result: SuiteResult, console: Console, *, saved: Path | None) -> None:
    print_line(console, Text(shown(result.about, MAX_SENTENCE)))
    if (table := answer_table(result)).rows:
        console.print(as_rich(table))
        print_line(console, Text(f"{legend.Z}\n", style="dim"))
    for warning in _warnings(result):
        line = Text(f"warning: {shown(warning, MAX_SENTENCE)}", style="bold yellow")
        print_line(console, line)
    style = "bold green" if result.passed else "bold red"
    line = Text(shown(answer(result), MAX_SENTENCE), style=style)
    print_line(console, line)
    if saved is not None:
        step = f"forwardscope report {shown(quote(str(saved)))} -o report.html shows each value"
        print_line(console, Text(step))
