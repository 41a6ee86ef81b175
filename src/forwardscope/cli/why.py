"""The command `forwardscope trace why`: why lookups were misses, and where store hits came from."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from shlex import quote
from typing import Annotated, Any, Literal

import typer
from rich.text import Text

from forwardscope.analysis.causes import cause_lines, causes_of, causes_table
from forwardscope.analysis.formatting import plural
from forwardscope.analysis.stored import InStore, StoreSearch, hit_line, store_lines
from forwardscope.analysis.tables import as_dicts, as_rich
from forwardscope.analysis.why import Miss, explain, lookup_line, miss_line, reason_line
from forwardscope.cli.reading import Traces, require_plain_file
from forwardscope.cli.terminal import Terminal
from forwardscope.errors import UserError
from forwardscope.store.locations import is_server, open_existing, store_path
from forwardscope.suite.report import print_line
from forwardscope.suite.trace_url import trace_url
from forwardscope.text import MAX_SENTENCE, shown
from forwardscope.trace import TraceEvent

__all__ = ["why"]


def why(
    file: Annotated[Path, typer.Argument(help="A trace file.", metavar="FILE", show_default=False)],
    miss: Annotated[
        int | None,
        typer.Option(help="Explain the N-th miss of the file, from 1.", metavar="N", min=1),
    ] = None,
    prompt_hash: Annotated[
        str | None,
        typer.Option(
            help="Explain all misses and store hits of a prompt; a prefix is enough.",
            metavar="HASH",
        ),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            help="Store of the run: a path, or default. Says what it has for a miss, and which "
            "parts of the view's identity differ. By default the value of FORWARDSCOPE_STORE.",
            metavar="PATH|default",
        ),
    ] = None,
    format: Annotated[  # noqa: A002 - the option's name
        Literal["terminal", "json"], typer.Option("--format", help="Output format.")
    ] = "terminal",
) -> None:
    """Explain why lookups were misses and cost forward passes.

    Without --miss and --prompt-hash, a table counts all misses of the file by
    their reasons, with the number of the first one for --miss; hashes are in the
    trace and in `trace summary`. The reasons are: it is the first lookup of the
    prompt; earlier lookups of the prompt had another view, op or top_k; the
    previous equal lookup failed; its value was evicted; or its value is gone for
    another reason, such as max_bytes. With a store, the reason why it did not
    answer: no run stored the value, or runs stored it for another model, adapter,
    dtype or the like, which is named. Of a hit in a store, the run that computed
    the value, and whether it was verified. With FORWARDSCOPE_TRACES_URL, the
    address of the lookup's trace is printed too.

    Exit status: 0, or 2 when there is no such miss or store hit, or a file cannot
    be read.
    """
    if (miss is not None and prompt_hash is not None) or prompt_hash == "":
        raise UserError("give either --miss N or --prompt-hash HASH, or neither")
    require_plain_file(file)
    if miss is None and prompt_hash is None:
        _print_causes(file, format)
        return
    events = Traces([file])
    misses = list(explain(events, number=miss, prompt_hash=prompt_hash))
    hits = [] if prompt_hash is None else [*_store_hits(events, prompt_hash)]
    if not (misses or hits):
        raise UserError(_nothing(file, miss, prompt_hash))
    with _search(store) as search:
        found = [None if search is None else search.find(one.event) for one in misses]
    if format == "json":
        rows = [_miss_row(*one) for one in zip(misses, found, strict=True)]
        Terminal().write(json.dumps([*rows, *map(_hit_row, hits)]))
        return
    for explained, in_store in zip(misses, found, strict=True):
        _print_miss(explained, in_store)
    for hit in hits:
        _print(lookup_line("hit", hit), f"  {hit_line(hit)}", *_trace_line(hit))


def _print_causes(file: Path, format: Literal["terminal", "json"]) -> None:  # noqa: A002
    causes = causes_of(Traces([file]))
    table = causes_table(causes)
    if format == "json":
        Terminal().write(json.dumps(as_dicts(table)))
        return
    if not causes:
        _print("every lookup was a hit")
        return
    terminal = Terminal(soft_wrap=False)
    terminal.print(as_rich(table))
    lines = [
        *cause_lines(causes),
        f"one of them: forwardscope trace why {quote(str(file))} --miss N",
    ]
    for line in lines:
        print_line(terminal, Text(shown(line, MAX_SENTENCE)))


def _store_hits(events: Iterable[TraceEvent], prompt_hash: str) -> Iterator[TraceEvent]:
    for event in events:
        if event.tier is not None and event.prompt_hash.startswith(prompt_hash):
            yield event


def _nothing(file: Path, miss: int | None, prompt_hash: str | None) -> str:
    which = f"no miss {miss}" if prompt_hash is None else f"no miss of {prompt_hash}"
    if prompt_hash is None and (stored := sum(1 for _ in _store_hits(Traces([file]), ""))):
        which += f", but {plural(stored, 'hit')} in a store: give --prompt-hash to explain them"
    return f"{file} has {which}; see: forwardscope trace summary {quote(str(file))}"


@contextmanager
def _search(location: str | None) -> Iterator[StoreSearch | None]:
    """Open a store to search; None if none is named, or the environment's does not exist."""
    chosen = os.environ.get("FORWARDSCOPE_STORE") or None if location is None else location
    exists = chosen is not None and (
        is_server(chosen) or os.path.exists(store_path(chosen))  # noqa: PTH110 - no error
    )
    if location is not None and not exists:
        raise UserError(f"the store {shown(location)} does not exist; give the store of the run")
    opened = None if chosen is None or not exists else open_existing(chosen, mode="read")
    if opened is None:
        yield None
        return
    try:
        yield StoreSearch(opened)
    finally:
        opened.close(0.0)


def _print_miss(miss: Miss, found: InStore | None) -> None:
    lines = [] if found is None else list(store_lines(found))
    if found is None and miss.event.view_identity is not None:
        lines = ["the run had a store: add --store to see what it has of this lookup"]
    _print(
        miss_line(miss),
        f"  {reason_line(miss)}",
        *(f"  {line}" for line in lines),
        *_trace_line(miss.event),
    )


def _trace_line(event: TraceEvent) -> list[str]:
    url = trace_url(event.trace_id, None)
    return [] if url is None else [f"  trace: {url}"]


def _print(*lines: str) -> None:
    for line in lines:
        Terminal().print(shown(line, MAX_SENTENCE))


def _miss_row(miss: Miss, found: InStore | None) -> dict[str, Any]:
    store = None if found is None else asdict(found)
    return asdict(miss) | _of_event(miss.event) | {"store": store}


def _hit_row(hit: TraceEvent) -> dict[str, Any]:
    return {"number": None, "reason": "stored"} | _of_event(hit)


def _of_event(event: TraceEvent) -> dict[str, Any]:
    return {"event": event.to_dict(), "trace_url": trace_url(event.trace_id, None)}
