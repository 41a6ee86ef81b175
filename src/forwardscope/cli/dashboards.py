"""The commands `forwardscope dashboards export` and `check`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from forwardscope.analysis.formatting import plural
from forwardscope.cli.exporting import BACKUP_SUFFIX, write_tree
from forwardscope.cli.terminal import Terminal
from forwardscope.dashboards.files import shipped, working_folder
from forwardscope.errors import UserError
from forwardscope.text import MAX_SENTENCE, shown

if TYPE_CHECKING:
    from forwardscope.dashboards.check import Finding, Report
    from forwardscope.dashboards.reading import Query

__all__ = ["dashboards"]

dashboards = typer.Typer(
    help="Export dashboards and alert rules for Grafana and Prometheus; check your own.",
    no_args_is_help=True,
)

_NEXT_STEPS: Final = """next, in {folder}:
  cp .env.example .env     and write a password for Grafana into it
  docker compose up -d     then Grafana is at http://127.0.0.1:3000; its user is admin
with servers of your own:
  Grafana     import the JSON files of {folder}/dashboards/grafana
  Prometheus  add the rule files of {folder}/dashboards/prometheus: recording.yml, alerts-*.yml
after changes: forwardscope dashboards check {quoted}"""
_MAX_QUERY_CHARS: Final = 200
_LABEL_NAME: Final = re.compile(r"[A-Za-z_]\w*", re.ASCII)


def _label_name(text: str) -> str:
    if _LABEL_NAME.fullmatch(text):
        return text
    raise typer.BadParameter(f"{text!r} is not a label name; write one like cluster")


@dashboards.command()
def export(
    folder: Annotated[
        Path, typer.Argument(help="The folder; created if it does not exist.", metavar="DIR")
    ],
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite files that differ; save each as NAME~ first.")
    ] = False,
) -> None:
    """Write dashboards, alert rules and a Docker Compose stack into a folder.

    The stack runs Prometheus, Alertmanager, a Pushgateway, Jaeger and Grafana,
    which accept connections from this machine only; start it with `docker compose
    up` in the folder. The rules' tests and a runbook are included. Files are
    never deleted, and overwritten only with --force.
    """
    files = working_folder(version("forwardscope"))
    new, overwritten = write_tree(folder, files, force=force)
    terminal = Terminal()
    unchanged = len(files) - len(new) - len(overwritten)
    terminal.print(
        f"wrote {plural(len(files) - unchanged, 'file')} to {folder}"
        + (f"; {unchanged} unchanged" if unchanged else "")
    )
    for name in overwritten:
        terminal.print(f"  {name} is overwritten; its old content is in {name}{BACKUP_SUFFIX}")
    terminal.print(_NEXT_STEPS.format(folder=folder, quoted=shlex.quote(str(folder))))


@dashboards.command()
def check(
    path: Annotated[
        Path | None,
        typer.Argument(
            help="A dashboard (JSON), a rule file (YAML), or a folder of them. By default the "
            "files that forwardscope ships.",
            metavar="PATH",
            show_default=False,
        ),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(
            "--label",
            parser=_label_name,
            help="A label that your Prometheus adds to each series; repeat it for several.",
            metavar="NAME",
        ),
    ] = None,
) -> None:
    """Check that this version exports the metrics and labels that dashboards and rules use.

    Checks the queries of panels, annotations, variables and rules, and the labels
    in legends and alerts. Needs the extra `dashboards`.

    Exit status: 0 when everything is exported, 1 when something is not, 2 when a
    file cannot be read.
    """
    report, files = _check_files(path, label or ())
    terminal = Terminal()
    for finding in report.findings:
        terminal.print(_finding_lines(finding))
    terminal.print(_summary(report, files))
    if report.foreign:
        foreign = ", ".join(sorted(report.foreign))
        terminal.print(f"not checked, since other programs export them: {foreign}")
    raise typer.Exit(1 if report.findings else 0)


def _check_files(path: Path | None, labels: Iterable[str]) -> tuple[Report, int]:
    from forwardscope.dashboards import check, reading  # noqa: PLC0415 - of an extra

    def queries_of(files: Iterable[tuple[str, bytes]]) -> list[Query]:
        return [query for name, content in files for query in reading.queries_in(name, content)]

    shipped_queries = queries_of(
        file for file in shipped().items() if file[0].endswith((".json", ".yml"))
    )
    queries = shipped_queries if path is None else queries_of(reading.files_under(path))
    if not queries:
        raise UserError(f"{path} has no dashboard and no rule with a Prometheus query")
    report = check.check(
        queries, recorded=shipped_queries, added=labels, version=version("forwardscope")
    )
    return report, len({query.place.file for query in queries})


def _finding_lines(finding: Finding) -> str:
    query = " ".join(finding.query.text.split())
    if len(query) > _MAX_QUERY_CHARS:
        query = f"{query[:_MAX_QUERY_CHARS]}…"
    lines = (str(finding.query.place), f"  {finding.message}", f"  in: {query}")
    return "\n".join(shown(line, MAX_SENTENCE) for line in lines)


def _summary(report: Report, files: int) -> str:
    places = {query.place for query in report.queries}
    panels, rules = (sum(place.kind == kind for place in places) for kind in ("panel", "rule"))
    checked = (
        f"{plural(panels, 'panel')}, {plural(rules, 'rule')}, "
        f"{plural(len(report.queries), 'expression')} in {plural(files, 'file')}"
    )
    if report.findings:
        mistakes = plural(len(report.findings), "mistake")
        return f"{checked}: {mistakes}; for labels that your servers add, see --label"
    if not report.metrics and not report.recorded:
        return f"{checked}: no forwardscope metric is used"
    recorded = f", {len(report.recorded)} recorded by rules" if report.recorded else ""
    exported = f"{plural(len(report.metrics), 'metric')} exported by forwardscope"
    return f"{checked}: {exported} {version('forwardscope')}{recorded}; no mistakes"
