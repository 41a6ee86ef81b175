"""The commands on dashboards and rules."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console

from forwardscope.cli.exits import mistakes_exit_with_two
from forwardscope.cli.exporting import KEPT, write_tree
from forwardscope.dashboards.files import shipped, working_folder
from forwardscope.errors import UserError

if TYPE_CHECKING:
    from forwardscope.dashboards.check import Finding, Report
    from forwardscope.dashboards.reading import Query

__all__ = ["dashboards"]

dashboards = typer.Typer(
    help="Take along what Grafana, Prometheus and Alertmanager load, and check your own.",
    no_args_is_help=True,
)

_NEXT: Final = """next, in {folder}:
  cp .env.example .env     and write a password for Grafana into it
  docker compose up -d     then Grafana is at http://127.0.0.1:3000; its user is admin
with servers of your own:
  Grafana     import the JSON files of {folder}/dashboards/grafana
  Prometheus  add the rule files of {folder}/dashboards/prometheus: recording.yml, alerts-*.yml
after changes: forwardscope dashboards check {quoted}"""
_LONGEST: Final = 200
_LABEL: Final = re.compile(r"[A-Za-z_]\w*", re.ASCII)


def _label(text: str) -> str:
    if _LABEL.fullmatch(text):
        return text
    raise typer.BadParameter(f"{text!r} is no label's name, as for instance cluster is")


@dashboards.command()
def export(
    folder: Annotated[Path, typer.Argument(help="Where; it is made if need be.", metavar="DIR")],
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite files that differ from this version's.")
    ] = False,
) -> None:
    """Write dashboards, alert rules and a compose stack into a folder.

    With them come the rules' tests and their runbook. `docker compose up` in
    that folder starts Prometheus, Alertmanager, a Pushgateway, Jaeger and
    Grafana, for this machine alone. What is there already is never deleted,
    and overwritten only with --force, which keeps what it was beside it.
    """
    with mistakes_exit_with_two():
        files = working_folder(version("forwardscope"))
        new, overwritten = write_tree(folder, files, force=force)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    left = len(files) - len(new) - len(overwritten)
    console.print(
        f"wrote {_many(len(files) - left, 'file')} to {folder}"
        + (f"; {left} left as they were" if left else "")
    )
    for name in overwritten:
        console.print(f"  {name} is overwritten; what it was is {name}{KEPT}")
    console.print(_NEXT.format(folder=folder, quoted=shlex.quote(str(folder))))


@dashboards.command()
def check(
    path: Annotated[
        Path | None,
        typer.Argument(
            help="A dashboard's JSON, a rule file, or a folder of them; those that "
            "forwardscope brings where it is left out.",
            metavar="PATH",
            show_default=False,
        ),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(
            "--label",
            parser=_label,
            help="One that your Prometheus adds to each series; can be repeated.",
            metavar="NAME",
        ),
    ] = None,
) -> None:
    """Say whether this version exports each metric and label that queries ask for.

    It looks at the queries of panels, annotations, variables and rules, and
    at the labels in legends and alerts. Exits with 0 when all is there, 1 when
    something is not, and 2 for files that cannot be read. Needs the extra
    dashboards.
    """
    with mistakes_exit_with_two():
        report, files = _examined(path, label or ())
    console = Console(soft_wrap=True, highlight=False, markup=False)
    for finding in report.findings:
        console.print(_told(finding))
    console.print(_summary(report, files))
    if report.foreign:
        foreign = ", ".join(sorted(report.foreign))
        console.print(_plain(f"not forwardscope's, and not looked at: {foreign}"))
    raise typer.Exit(1 if report.findings else 0)


def _examined(path: Path | None, labels: Iterable[str]) -> tuple[Report, int]:
    # loads the PromQL parser, which is an extra
    from forwardscope.dashboards import check, reading  # noqa: PLC0415

    def queries_of(files: Iterable[tuple[str, bytes]]) -> list[Query]:
        return [query for name, content in files for query in reading.queries_in(name, content)]

    own = queries_of(file for file in shipped().items() if file[0].endswith((".json", ".yml")))
    queries = own if path is None else queries_of(reading.files_under(path))
    if not queries:
        raise UserError(f"{path} holds no dashboard and no rule that asks Prometheus for anything")
    report = check.check(queries, recorded=own, added=labels, version=version("forwardscope"))
    return report, len({query.place.file for query in queries})


def _told(finding: Finding) -> str:
    query = " ".join(finding.query.text.split())
    cut = query if len(query) <= _LONGEST else f"{query[:_LONGEST]}…"
    return f"{_plain(str(finding.query.place))}\n  {_plain(finding.says)}\n  in: {_plain(cut)}"


def _summary(report: Report, files: int) -> str:
    places = {query.place for query in report.queries}
    panels, rules = (sum(one.kind == kind for one in places) for kind in ("panel", "rule"))
    looked = (
        f"{_many(panels, 'panel')}, {_many(rules, 'rule')}, "
        f"{_many(len(report.queries), 'expression')} in {_many(files, 'file')}"
    )
    if report.findings:
        found = _many(len(report.findings), "mistake")
        return f"{looked}: {found}; for labels that your servers add, see --label"
    if not report.metrics and not report.recorded:
        return f"{looked} ask for nothing of forwardscope's"
    exported = f"{_many(len(report.metrics), 'metric')}, all exported by forwardscope"
    also = f", and for {len(report.recorded)} that rules record" if report.recorded else ""
    return f"{looked} ask for {exported} {version('forwardscope')}{also}"


def _many(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _plain(text: str) -> str:
    """Keep what files hold from steering the terminal."""
    return "".join(one if one.isprintable() else "�" for one in text)
