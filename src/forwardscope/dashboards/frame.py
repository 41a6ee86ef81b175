"""Build a dashboard with the parts that all share: variables, links, time range, crosshair."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from forwardscope.dashboards.links import JAEGER_URL
from forwardscope.dashboards.panels import SOURCE, Panel
from forwardscope.dashboards.queries import series
from forwardscope.dashboards.run_queries import BY_RUN
from forwardscope.dashboards.sdk import Builder, Dataquery, builders, models
from forwardscope.telemetry import names, run_names, sweep_names
from forwardscope.telemetry.names import Metric

__all__ = ["TAG", "Rows", "dashboard", "trace_variables"]

#: Tag of all dashboards, by which the links between them select them.
TAG: Final = "forwardscope"
#: Panels by the title of their row.
Rows = Mapping[str, Iterable[Panel]]


def _any_of(*metrics: Metric) -> str:
    return f'__name__=~"{"|".join(metric.name for metric in metrics)}"'


_INFO: Final = _any_of(names.BUILD_INFO, run_names.RUN_INFO)
_OF_SUITE: Final = _any_of(run_names.RUN_INFO, sweep_names.SWEEP_INFO)
_WITH_PROBE: Final = _any_of(names.LOOKUPS, run_names.PROBE_VERDICT)
#: Label matchers that select the chosen jobs and instances.
_TARGET: Final = 'job=~"$job", instance=~"$instance"'
#: Selectors of the series that supply the values of each variable.
_SELECTORS: Final = {
    "job": f"{{{_INFO}}}",
    "instance": f'{{{_INFO}, job=~"$job"}}',
    "suite": f"{{{_OF_SUITE}, {_TARGET}}}",
    "model": f'{{{_OF_SUITE}, {_TARGET}, suite=~"$suite"}}',
    "backend": f"{names.LOOKUPS.name}{{{_TARGET}}}",
    "probe": f"{{{_WITH_PROBE}, {_TARGET}}}",
}
#: Value of a variable for "All"; it also matches series without the label.
_ALL_VALUE: Final = ".*"


def dashboard(
    uid: str,
    title: str,
    question: str,
    content: Rows,
    *,
    since: str = "now-6h",
    more_variables: Iterable[Builder[models.VariableModel]] = (),
) -> models.Dashboard:
    """Return a dashboard; the ids of its panels count from 1.

    Args:
        uid: Id of the dashboard in links.
        title: Title of the dashboard.
        question: Description of the dashboard; its first row answers the question.
        content: Rows of the dashboard.
        since: Start of the time range.
        more_variables: Variables in addition to those of all dashboards, after the filters.
    """
    page = (
        builders.Dashboard(title)
        .uid(uid)
        .description(question)
        .tags([TAG])
        .readonly()
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .time(since, "now")
        .refresh("30s")
        .link(_links())
    )
    for variable in (_source(), *map(_variable, _SELECTORS), *more_variables):
        page.with_variable(variable)
    for query in (_started(), _ended()):
        page.annotation(query)
    for heading, panels in content.items():
        page.with_row(builders.Row(heading))
        for panel in panels:
            page.with_panel(panel)
    built = page.build()
    for number, placed in enumerate(built.panels or (), start=1):
        placed.id_val = number
    return built


def trace_variables() -> list[Builder[models.VariableModel]]:
    """Return the data sources of traces, of which one is enough, and Jaeger's own page.

    A variable for data sources has one type.
    """
    return [
        builders.DatasourceVariable("jaeger").label("Traces in Jaeger").type("jaeger"),
        builders.DatasourceVariable("tempo").label("Traces in Tempo").type("tempo"),
        builders.TextBoxVariable("jaeger_url")
        .label("Jaeger's page")
        .default_value(JAEGER_URL)
        .current(models.VariableOption(text=JAEGER_URL, value=JAEGER_URL)),
    ]


def _started() -> builders.AnnotationQuery:
    return _annotation("Run start", f"{series(run_names.RUN_START)} * 1000", "blue")


def _ended() -> builders.AnnotationQuery:
    return _annotation("Run end", f"{series(run_names.RUN_END)} * 1000", "purple")


def _annotation(name: str, expr: str, color: str) -> builders.AnnotationQuery:
    """Return an annotation at each value of a query, in milliseconds since the epoch."""
    return (
        builders.AnnotationQuery()
        .name(name)
        .datasource(SOURCE)
        .enable(True)
        .expr(expr)
        .use_value_for_time(True)
        .title_format(name)
        .text_format(BY_RUN)
        .tag_keys("suite,model")
        .icon_color(color)
        .target(Dataquery().datasource(SOURCE).ref_id("Anno").expr(expr).range())
    )


def _links() -> builders.DashboardLink:
    return (
        builders.DashboardLink("forwardscope")
        .type(models.DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .tooltip("The other dashboards, with the same time range and variables")
        .keep_time(True)
        .include_vars(True)
    )


def _source() -> builders.DatasourceVariable:
    return builders.DatasourceVariable("datasource").label("Data source").type("prometheus")


def _variable(label: str) -> builders.QueryVariable:
    everything = models.VariableOption(text="All", value="$__all", selected=True)
    query = f"label_values({_SELECTORS[label]}, {label})"
    return (
        builders.QueryVariable(label)
        .label(label.capitalize())
        .datasource(SOURCE)
        .query({"query": query, "refId": label})
        .definition(query)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(_ALL_VALUE)
        .current(everything)
    )
