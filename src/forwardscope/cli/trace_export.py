"""The command `forwardscope trace export`: a trace file as spans at an OTLP receiver."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, cast

import typer

from forwardscope.analysis.formatting import plural
from forwardscope.analysis.run_data import read_result
from forwardscope.cli.reading import Traces, require_plain_file
from forwardscope.cli.targets import OtlpTarget, needs_sdk, otlp_target
from forwardscope.cli.terminal import Terminal
from forwardscope.errors import UserError
from forwardscope.suite.result import SuiteResult
from forwardscope.telemetry.http import shown_url
from forwardscope.text import MAX_SENTENCE, shown

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

__all__ = ["export"]

#: Spans sent in one request.
_BATCH_SIZE: Final = 512
_BATCH_S: Final = 30.0


def export(
    file: Annotated[Path, typer.Argument(help="A trace file.", metavar="FILE", show_default=False)],
    otlp: Annotated[
        str,
        typer.Option(help="OTLP receiver, for example Jaeger.", metavar="URL", show_default=False),
    ],
    otlp_protocol: Annotated[
        Literal["http/protobuf", "grpc"] | None,
        typer.Option(
            help="Protocol of the receiver. By default OTEL_EXPORTER_OTLP_PROTOCOL; if it is not "
            "set, grpc for port 4317 and http/protobuf for others.",
        ),
    ] = None,
    result: Annotated[
        Path | None,
        typer.Option(
            help="Result of one of the runs (`forwardscope run --json`), for the names of suite "
            "and model, the verdicts and the failures.",
            metavar="FILE",
        ),
    ] = None,
) -> None:
    """Send the runs of a trace file to an OTLP receiver as spans, with their recorded times.

    The trace id is the run id, and a second export has the same ids. Without
    --result the root is named `suite`, and no probe or run is marked as failed:
    a trace file has neither names nor verdicts. The export stops at the first
    failure. Needs the extra `otel`.

    Exit status: 0 when all spans are exported, 1 when some are not, 2 for a
    mistake in the options or the file.
    """
    sent, failure, trace_ids = _export(file, otlp, otlp_protocol, result)
    for trace_id in trace_ids:
        _print(f"trace {trace_id}")
    outcome = f"{plural(sent, 'span')} exported"
    if failure is not None:
        outcome = f"stopped after {plural(sent, 'span')}: {failure}"
    _print(f"OTLP {shown_url(otlp)}: {outcome}")
    raise typer.Exit(0 if failure is None else 1)


def _export(
    file: Path, url: str, protocol: str | None, result: Path | None
) -> tuple[int, str | None, list[str]]:
    """Export a trace; return the number of exported spans, the failure, and the trace ids."""
    target = otlp_target(url, protocol)
    run = None if result is None else _result_of(result, file)
    with needs_sdk("the OpenTelemetry SDK"):
        from forwardscope.cli import otlp, otlp_provider, replay  # noqa: PLC0415 - of an extra

        exporter = otlp.make_exporter(cast("OtlpTarget", target))
    spans = replay.Replay(
        Traces([file]), otlp_provider.make_resource(), version("forwardscope"), run
    )
    sent = 0
    try:
        for batch in _batches(spans):
            accepted, failure = exporter.send_within(_BATCH_S, batch)
            sent += accepted
            if failure is not None:
                return sent, failure, spans.trace_ids
    finally:
        exporter.shutdown()
    return sent, None, spans.trace_ids


def _result_of(path: Path, file: Path) -> SuiteResult:
    require_plain_file(file)
    result = read_result(path)
    if all(event.run_id != result.run_id for event in Traces([file])):
        raise UserError(f"{file} has no record of run {result.run_id}, which is that of {path}")
    return result


def _batches(spans: Iterable[ReadableSpan]) -> Iterator[list[ReadableSpan]]:
    remaining = iter(spans)
    while batch := list(islice(remaining, _BATCH_SIZE)):
        yield batch


def _print(line: str) -> None:
    Terminal().print(shown(line, MAX_SENTENCE))
