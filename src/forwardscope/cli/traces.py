"""The commands on traces."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from enum import StrEnum
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, cast

import typer
from rich.console import Console

from forwardscope.analysis.curve import SHARES, Curve, curve_of, optimum_at, sizes_to_show
from forwardscope.analysis.formatting import (
    count,
    counts_table,
    curve_table,
    summary_tables,
    with_bars,
)
from forwardscope.analysis.summary import summarize
from forwardscope.analysis.tables import Table, as_csv, as_dicts, as_markdown, as_rich, plain
from forwardscope.analysis.why import explain, miss_line, reason_line
from forwardscope.cli.exits import mistakes_exit_with_two
from forwardscope.cli.reading import Traces, must_be_a_file
from forwardscope.cli.targets import OtlpTarget, otlp_target, without_credentials
from forwardscope.errors import MissingExtraError, UserError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

__all__ = ["traces"]

traces = typer.Typer(
    help="Ask traces what a suite paid for; those of other tools with the same eight keys too.",
    no_args_is_help=True,
)


#: Spans sent in one request.
_BATCH_SIZE: Final = 512


class Format(StrEnum):
    """How an answer is written."""

    TERMINAL = "terminal"
    JSON = "json"
    MARKDOWN = "markdown"
    CSV = "csv"


_Files = Annotated[list[Path], typer.Argument(help="Traces; several are one.", metavar="FILE…")]
_File = Annotated[Path, typer.Argument(help="A trace.", metavar="FILE", show_default=False)]


@traces.command()
def summary(
    files: _Files,
    format: Annotated[  # noqa: A002 - the option's name
        Format, typer.Option("--format", help="How to write it; csv has the counts alone.")
    ] = Format.TERMINAL,
) -> None:
    """Sum up who asked what, what the cache answered, and what was paid.

    By probe, view and op: lookups, hits (coalesced ones not included), forward
    passes, failed ones, the share of lookups that paid none, the time spent in
    passes, and the time that hits saved: each the mean duration of a pass of
    its op and view. Then the slowest passes and the most repeated prompts.
    """
    with mistakes_exit_with_two():
        read = Traces(files)
        summed = summarize(read)
    tables = summary_tables(summed)
    if format is Format.JSON:
        facts = {"skipped_lines": read.skipped, "questions": summed.questions}
        rows = {name: as_dicts(table) for name, table in tables.items()}
        typer.echo(json.dumps({**facts, **rows}, indent=2))
    elif format is Format.CSV:
        typer.echo(as_csv(counts_table(summed)), nl=False)
    elif format is Format.MARKDOWN:
        typer.echo("\n".join(as_markdown(table) for table in tables.values()))
    else:
        _print(*(table for table in tables.values() if table.rows))
        _say(f"{count(summed.questions)} distinct questions")
    _tell_skipped(read)


@traces.command()
def curve(
    file: _File,
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw it into this file, an SVG for instance.", metavar="FILE.svg"),
    ] = None,
    format: Annotated[  # noqa: A002 - the option's name
        Format, typer.Option("--format", help="How to write it.")
    ] = Format.TERMINAL,
) -> None:
    """Say what the hit rate would be at every cache size, and which sizes are worth having.

    It is exact for a cache that drops what was used least recently, as
    forwardscope's does. Beside it stands the best that any cache of that size
    could do, had it known what would be asked; that is best by count, and
    another choice of as many hits could save more time. Lookups that failed do
    not count, each run begins with an empty cache, and the order within a batch
    is the file's.
    """
    with mistakes_exit_with_two():
        if plot is not None:
            from forwardscope.analysis.plot import write_plot  # noqa: PLC0415 - of an extra
        read = Traces([file])
        found = curve_of(read)
        best = list(optimum_at(found, sizes_to_show(found)))
        if plot is not None:
            write_plot(found, best, plot)
    table = curve_table(found, best)
    worth = {share: found.worth(share) for share in SHARES}
    if format is Format.JSON:
        facts = {"skipped_lines": read.skipped, "lookups": found.total, "hits": found.lookups.hits}
        sizes = {f"{share:.0%}": size for share, size in worth.items()}
        typer.echo(json.dumps({**facts, "worth": sizes, "sizes": as_dicts(table)}, indent=2))
    elif format is Format.CSV:
        typer.echo(as_csv(table), nl=False)
    elif format is Format.MARKDOWN:
        typer.echo(as_markdown(table))
    else:
        _print_curve(found, table)
    _tell_skipped(read)


@traces.command()
def why(
    file: _File,
    miss: Annotated[
        int | None,
        typer.Option(help="Which miss of the file, from 1 on.", metavar="N", min=1),
    ] = None,
    prompt_hash: Annotated[
        str | None,
        typer.Option(help="All misses of a prompt; the beginning of its hash will do."),
    ] = None,
    format: Annotated[  # noqa: A002 - the option's name
        Literal["terminal", "json"], typer.Option("--format", help="How to write it.")
    ] = "terminal",
) -> None:
    """Say why a lookup missed, and paid for a forward pass.

    Because nobody had asked for it; because it was asked of another view or op,
    or with another top_k; because it was asked, and had failed; or because it
    was asked and evicted since: so many other questions ago, farther than any
    hit of its run reached back. Exits with 2 where there is no such miss.
    """
    with mistakes_exit_with_two():
        if (miss is None) == (not prompt_hash):
            raise UserError("name a miss by --miss N, or a prompt by --prompt-hash HASH")
        must_be_a_file(file)
        found = list(explain(Traces([file]), number=miss, prompt_hash=prompt_hash))
        if not found:
            which = f"no miss {miss}" if prompt_hash is None else f"no miss of {prompt_hash}"
            raise UserError(f"{file} has {which}; see: forwardscope trace summary {file}")
    if format == "json":
        typer.echo(json.dumps([asdict(one) | {"event": one.event.to_dict()} for one in found]))
        return
    for one in found:
        _say(plain(miss_line(one)))
        _say(f"  {plain(reason_line(one))}")


@traces.command()
def export(
    file: _File,
    otlp: Annotated[
        str,
        typer.Option(help="The receiver, for instance Jaeger.", metavar="URL", show_default=False),
    ],
    otlp_protocol: Annotated[
        Literal["http/protobuf", "grpc"] | None,
        typer.Option(help="How to speak to it. By default grpc on port 4317, HTTP elsewhere."),
    ] = None,
) -> None:
    """Send a trace's runs as spans, with their own times: for runs that had no receiver.

    A run's trace has its run id, and a second export the same ids. The suite's
    name and the verdicts are not in a trace, and so not in its spans. Exits with
    0 when all of them arrived, 1 when not, 2 for a mistake. Needs the extra otel.
    """
    with mistakes_exit_with_two():
        sent, dropped, failure, trace_ids = _export(file, otlp, otlp_protocol)
    for trace_id in trace_ids:
        _say(f"trace {trace_id}")
    said = f"OTLP {without_credentials(otlp)}: {count(sent)} spans exported"
    _say(f"{said}, {count(dropped)} not: {failure or 'no answer'}" if dropped else said)
    raise typer.Exit(1 if dropped else 0)


def _export(file: Path, url: str, protocol: str | None) -> tuple[int, int, str | None, list[str]]:
    """Export a trace; return how many spans arrived, how many did not, why, and the trace ids."""
    target = otlp_target(url, protocol)
    try:
        from forwardscope.cli import otlp, replay  # noqa: PLC0415 - of an extra

        exporter = otlp.make_exporter(cast("OtlpTarget", target))
    except ImportError as error:
        raise MissingExtraError("the OpenTelemetry SDK", "otel") from error
    spans = replay.Replay(Traces([file]), otlp.make_resource(), version("forwardscope"))
    sent = 0
    try:
        for batch in _batches(spans):
            if failure := exporter.send(batch):  # the receiver gets no further batch
                return sent, len(batch), failure, spans.trace_ids
            sent += len(batch)
    finally:
        exporter.shutdown()
    return sent, 0, None, spans.trace_ids


def _batches(spans: Iterable[ReadableSpan]) -> Iterator[list[ReadableSpan]]:
    rest = iter(spans)
    while batch := list(islice(rest, _BATCH_SIZE)):
        yield batch


def _print_curve(found: Curve, table: Table) -> None:
    if not table.rows:
        _say(f"{count(found.total)} lookups, and no question twice: no cache answers any")
        return
    _print(with_bars(table))
    _say(f"of {count(found.total)} lookups the recorded cache answered {count(found.lookups.hits)}")
    for share in SHARES:
        size, of = found.worth(share), "all" if share == 1 else f"{share:.0%}"
        _say(f"max_entries {count(size)} answers {of} of what an endless cache would")


def _print(*tables: Table) -> None:
    console = Console(highlight=False)
    for table in tables:
        console.print()
        console.print(as_rich(table))


def _say(line: str) -> None:
    Console(highlight=False, markup=False, soft_wrap=True).print(line)


def _tell_skipped(read: Traces) -> None:
    if read.skipped:
        lines = "1 line is" if read.skipped == 1 else f"{count(read.skipped)} lines are"
        note = f"{lines} torn, or no record, and not counted"
        Console(stderr=True, highlight=False, soft_wrap=True).print(note)
