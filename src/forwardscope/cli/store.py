"""The commands `forwardscope store info`, `verify`, `prune`, `clear`, `export` and `import`."""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from forwardscope.analysis.formatting import count, plural
from forwardscope.analysis.tables import as_rich
from forwardscope.cli.progress import steps
from forwardscope.cli.quantities import age, shown_size, size
from forwardscope.cli.store_tables import MAX_LISTED, identities_table, models_table
from forwardscope.cli.terminal import Terminal
from forwardscope.errors import UserError
from forwardscope.files import check_no_input, check_writable, replacing, unwritable
from forwardscope.store import maintenance, portable
from forwardscope.store.base import Store
from forwardscope.store.locations import DEFAULT, is_server, open_existing, store_path
from forwardscope.store.sqlite import DEFAULT_MAX_BYTES, MIN_BYTES
from forwardscope.store.sqlite_schema import Mode
from forwardscope.text import MAX_SENTENCE, shown

__all__ = ["store"]

store = typer.Typer(
    help="Look into a store of computed values, check it, make room, and carry it to another "
    "machine.\n\n`forwardscope run --store` makes one. Without STORE, the commands are about that "
    "of FORWARDSCOPE_STORE, or else `default`, the file in the user's cache folder. All can be "
    "used while runs use the store.",
    no_args_is_help=True,
)

_Location = Annotated[
    str | None,
    typer.Argument(
        metavar="STORE",
        help="Path of the store, default, or a redis:// URL. By default the value of "
        "FORWARDSCOPE_STORE, else default.",
        show_default=False,
    ),
]
_Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@store.command()
def info(
    location: _Location = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, with all view identities.")
    ] = False,
) -> None:
    """Show where a store is, how large, and what models and views its values are of.

    A view identity is the hash of all that determines the values of a view; runs
    with equal identities share values. `prune --identity` takes its first digits.
    The parts of an identity are in --json. Values from a run that did not
    describe its identities are listed as unknown. Nothing is changed.

    Example: forwardscope store info runs.db

    Exit status: 0, or 2 when there is no store or it cannot be read.
    """
    with _opened(location, "read") as opened:
        stats = opened.stats()
        with _bar("reading", stats.entries) as progress:
            found = maintenance.usage(opened, progress)
    if as_json:
        facts = {"store": opened.name, "entries": stats.entries, "bytes": stats.bytes}
        rows = [{"identity": name, **asdict(used)} for name, used in found.items()]
        Terminal().write(json.dumps({**facts, "identities": rows}, indent=2))
        return
    _print(f"store    {opened.name}")
    _print(f"entries  {count(stats.entries)}")
    _print(f"size     {shown_size(stats.bytes)}")
    if found:
        terminal = Terminal(soft_wrap=False)
        for table in (models_table(found), identities_table(found)):
            terminal.print()
            terminal.print(as_rich(table))
    if len(found) > MAX_LISTED:
        _print(f"{plural(len(found) - MAX_LISTED, 'identity')} more; --json has all")


@store.command()
def verify(
    location: _Location = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Only count damaged entries; change nothing.")
    ] = False,
) -> None:
    """Check the checksums of all entries, and remove damaged ones, as lookups do.

    A damaged value is never used, with or without this command; a run computes it
    again. This finds out whether a disk or a copy damages files. Whether values
    are those that the model computes is checked by runs; see `forwardscope run
    --verify`.

    Example: forwardscope store verify runs.db

    Exit status: 0 when all entries are sound, 1 when some are damaged, 2 when
    there is no store or it cannot be read.
    """
    with (
        _opened(location, "read") as opened,
        _bar("checking", opened.stats().entries) as progress,
    ):
        sound, damaged = maintenance.verify(opened, progress)
    _print(f"{plural(sound + len(damaged), 'entry')} checked, {count(len(damaged))} damaged")
    if not damaged:
        return
    if not keep:
        with _opened(location, "write") as opened:
            maintenance.remove(opened, damaged)
        _print("the damaged ones are removed; runs compute them again")
    raise typer.Exit(1)


@store.command()
def prune(
    location: _Location = None,
    max_bytes: Annotated[
        int | None,
        typer.Option(
            parser=size,
            help="Remove the least recently used entries until the store has at most this size.",
            metavar="SIZE",
        ),
    ] = None,
    older_than: Annotated[
        timedelta | None,
        typer.Option(
            parser=age, help="Remove entries that were not used for so long.", metavar="AGE"
        ),
    ] = None,
    identity: Annotated[
        str | None,
        typer.Option(
            help="Remove only entries of this view identity, all of them without another option. "
            "The first digits are enough; `store info` shows them.",
            metavar="ID",
        ),
    ] = None,
) -> None:
    """Remove entries that are old, too many, or of one view, and shrink the file.

    Needs at least one option. SIZE is a number with a unit, such as 512MiB or
    5GiB; AGE such as 12h, 30d or 8w. With both, both hold afterwards. Runs
    themselves keep a store within `cache.store_max_bytes` of the suite.

    Example: forwardscope store prune --older-than 30d --max-bytes 5GiB

    Exit status: 0, or 2 for a mistake in the options or the store.
    """
    if max_bytes is None and older_than is None and not identity:
        raise UserError("give at least one of --max-bytes, --older-than and --identity")
    with _opened(location, "write") as opened:
        before = opened.stats()
        if identity:
            names = {row.identity for row in opened.scan()} | set(opened.identities())
            identity = maintenance.find_identity(names, identity)
        since = None if older_than is None else time.time() - older_than.total_seconds()
        with _bar("removing", before.entries) as progress:
            removed = maintenance.prune(
                opened,
                max_bytes=max_bytes,
                unused_since=since,
                identity=identity or None,
                progress=progress,
            )
        _print_removed(removed, opened)


@store.command()
def clear(location: _Location = None, yes: _Yes = False) -> None:
    """Remove all entries of a store, and shrink the file.

    Asks first; without a terminal to ask on, --yes is needed. The file itself
    stays, so that runs that use it go on.

    Example: forwardscope store clear runs.db --yes

    Exit status: 0; 1 when the answer is no; 2 when there is no store or it cannot
    be changed.
    """
    with _opened(location, "write") as opened:
        entries = opened.stats().entries
        if not yes:
            if sys.stdin is None or not sys.stdin.isatty():
                raise UserError(f"{plural(entries, 'entry')} would be removed; confirm with --yes")
            question = f"Remove all {plural(entries, 'entry')} of {opened.name}?"
            typer.confirm(question, abort=True, err=True)
        with _bar("removing", entries) as progress:
            removed = maintenance.prune(opened, progress=progress)
        _print_removed(removed, opened)


@store.command()
def export(
    file: Annotated[Path, typer.Argument(help="The file to write.", metavar="FILE")],
    location: _Location = None,
) -> None:
    """Write all entries into one file, for a cache in CI or for a colleague.

    The file has digests of prompts, values and their checksums, ids of runs, and
    the names of models and adapters; no prompt. It is the same on every system.
    Damaged entries are left out.

    Example: forwardscope store export values.fwstore runs.db

    Exit status: 0; 1 when damaged entries were left out; 2 when there is no store
    or the file cannot be written.
    """
    beside = _files_of(_location(location))
    check_no_input("export", file, beside)
    if Path(os.path.realpath(file)) in beside:  # which SQLite may make at any time
        raise UserError(f"{file} belongs to the store; choose another file for the export")
    check_writable("export", file)
    try:
        with (
            _opened(location, "read") as opened,
            _bar("writing", opened.stats().entries) as progress,
            replacing(file, 0o600) as output,
        ):
            written, damaged = portable.export_to(opened, output, progress)
    except OSError as error:
        raise unwritable("export", file, error) from error
    left_out = f"; {count(damaged)} damaged left out" if damaged else ""
    # the file may be stdout
    Terminal(stderr=not file.is_file()).print(
        shown(f"{plural(written, 'entry')} written to {file}{left_out}", MAX_SENTENCE)
    )
    raise typer.Exit(1 if damaged else 0)


@store.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="A file that `store export` wrote.", metavar="FILE")],
    location: _Location = None,
    max_bytes: Annotated[
        int | None,
        typer.Option(
            parser=size,
            help="Bound of the store, as `cache.store_max_bytes` of a suite; the least recently "
            "used entries are evicted. By default 10GiB.",
            metavar="SIZE",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Add the entries of an exported file to a store, which is made if there is none.

    Every length and checksum is checked, and nothing in the file is executed. But
    a checksum is no signature: import files of people whose results you would
    believe. Imported values are marked, and runs verify four times as many of
    them as of others. Entries that the store has already are kept.

    Example: forwardscope store import values.fwstore runs.db

    Exit status: 0, or 2 when the file is damaged or is no export, or the store
    cannot be changed; the entries before the damage are taken.
    """
    bound = DEFAULT_MAX_BYTES if max_bytes is None else max_bytes
    if bound < MIN_BYTES:
        raise UserError(f"--max-bytes must be at least {shown_size(MIN_BYTES)}")
    import_module("forwardscope.backends.values")  # the types of our values
    with portable.open_export(file) as source:
        total = os.fstat(source.fileno()).st_size
        with (
            _opened(location, "write", bound, create=True) as opened,
            _bar("reading", total) as progress,
        ):
            done = portable.import_from(opened, source, str(file), progress)
            stats = opened.stats()
    notes = [
        (done.kept, "there already"),
        (done.unknown, "of unknown types"),
        (done.too_large, "too large for the store"),
        (stats.evictions, f"evicted to keep {shown_size(bound)}"),
    ]
    more = "".join(f", {count(number)} {what}" for number, what in notes if number)
    _print(f"{plural(done.taken, 'entry')} imported into {opened.name}{more}")


def _files_of(location: str) -> list[Path]:
    """Return the files of a store; none of one on a server."""
    if is_server(location):
        return []
    path = os.path.realpath(store_path(location))
    return [Path(f"{path}{suffix}") for suffix in ("", "-wal", "-shm")]


def _location(given: str | None) -> str:
    if given == "":
        raise UserError("STORE needs a path, or default; an unset variable gives none")
    return given or os.environ.get("FORWARDSCOPE_STORE") or DEFAULT


@contextmanager
def _opened(
    given: str | None, mode: Mode, max_bytes: int = DEFAULT_MAX_BYTES, *, create: bool = False
) -> Iterator[Store]:
    """Open a store; errors say what its warnings, which speak of a run, would."""
    opened = open_existing(_location(given), mode=mode, max_bytes=max_bytes, create=create)
    with closing(opened), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        yield opened


@contextmanager
def _bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    with steps(quiet=False, transient=True) as report:
        yield lambda done: report(what, done, total)


def _print_removed(removed: int, opened: Store) -> None:
    left = opened.stats()
    _print(
        f"{plural(removed, 'entry')} removed; {count(left.entries)} left, {shown_size(left.bytes)}"
    )


def _print(line: str) -> None:
    Terminal().print(shown(line, MAX_SENTENCE))
