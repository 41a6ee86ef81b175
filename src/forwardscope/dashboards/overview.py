"""The dashboard Overview: the hit rate, and the forward passes and the time that hits save."""

from __future__ import annotations

from forwardscope.dashboards.alert_panels import alert_list, firing, number_firing
from forwardscope.dashboards.cache_panels import cache_size
from forwardscope.dashboards.frame import dashboard
from forwardscope.dashboards.panels import REACHED, Panel, bar_panel, line_panel, stat_panel
from forwardscope.dashboards.queries import (
    ESTIMATED,
    HITS,
    RANGE,
    hit_rate,
    increase,
    named_probes,
    rate,
    ratio,
    seconds_per_pass,
    series,
    total,
)
from forwardscope.dashboards.run_queries import (
    EXPECTED,
    RUN,
    WHOLE_RUNS,
    complete,
    counted,
    in_range,
    newest_finished,
    of_each_run,
    own_hits,
    reached_hit_rate,
    run_hit_rate,
    runs_and_services,
)
from forwardscope.dashboards.sdk import models
from forwardscope.dashboards.store_panels import store
from forwardscope.telemetry import names, run_names

__all__ = ["overview"]


def overview() -> models.Dashboard:
    """Return the dashboard Overview."""
    return dashboard(
        "forwardscope-overview",
        "forwardscope / Overview",
        "What does the cache save?",
        {
            "What does the cache save?": (
                total_hit_rate(),
                reached(),
                total_lookups(),
                total_passes(),
                passes_saved(),
                time_saved(),
                total_evictions(),
                number_firing(),
            ),
            "Is anything wrong?": (firing(), alert_list()),
            "Last run of each suite": (by_suite(), reached_by_suite(), evictions_by_suite()),
            "Over time": (hit_rate_over_time(), lookups(), passes(), time_saved_over_time()),
            "Hit rate by probe, view and op": (by_probe(), by_view(), by_op()),
            "Cache size and evictions": cache_size(),
            "What does the store save, and is it sound?": store(),
        },
    )


# -- what does the cache save? ---------------------------------------------------------------


def total_hit_rate() -> Panel:
    """Hit rate in the time range."""
    return stat_panel(
        "Hit rate",
        "Share of the lookups in the time range that needed no forward pass of their own: hits "
        f"and coalesced lookups. {WHOLE_RUNS}",
        ratio(_hits(), counted(run_names.RUN_LOOKUPS, names.LOOKUPS)),
        "percentunit",
        width=3,
    )


def reached() -> Panel:
    """Hits as a share of the attainable ones."""
    attainable = f"({series(run_names.RUN_EXPECTED_LOOKUPS)} - {EXPECTED})"
    planned = f"({own_hits()} and {attainable})"
    return stat_panel(
        "Of attainable",
        "Hits of the complete runs in the time range as a share of those that their suites attain "
        "if nothing is evicted, without hits of a store. It is above 100 % if a cache was not "
        "empty at the start. Backend and probe do not narrow it.",
        ratio(
            total(of_each_run(in_range(complete(planned)))),
            total(of_each_run(in_range(complete(attainable)))),
        ),
        "percentunit",
        thresholds=REACHED,
        width=3,
    )


def _hits() -> str:
    return counted(run_names.RUN_HITS, names.LOOKUPS, HITS)


def total_lookups() -> Panel:
    """Number of lookups."""
    return stat_panel(
        "Lookups",
        f"Lookups in the time range. {WHOLE_RUNS}",
        counted(run_names.RUN_LOOKUPS, names.LOOKUPS),
        "locale",
        width=3,
    )


def total_passes() -> Panel:
    """Number of forward passes."""
    return stat_panel(
        "Passes paid",
        f"Prompts that the model computed in the time range. {WHOLE_RUNS}",
        counted(run_names.RUN_FORWARD_PASSES, names.FORWARD_PASSES),
        "locale",
        width=3,
    )


def passes_saved() -> Panel:
    """Number of hits."""
    return stat_panel(
        "Passes saved",
        "Lookups in the time range that needed no forward pass of their own. " + WHOLE_RUNS,
        _hits(),
        "locale",
        width=3,
    )


def time_saved() -> Panel:
    """Time that hits saved."""
    by = "job, instance, backend, op"
    run = ratio(
        f"{series(run_names.RUN_HITS)} * {series(run_names.RUN_FORWARD_SECONDS)}",
        series(run_names.RUN_FORWARD_PASSES),
    )
    service = (
        f"sum by (job, instance) ({increase(names.LOOKUPS, HITS, by=by)} * {seconds_per_pass(by)})"
    )
    return stat_panel(
        "Time saved",
        "Hits of each run in the time range, times the mean duration of its forward passes; for "
        "services by op, as Prometheus estimates it from its scrapes. Backend and probe do not "
        "narrow the runs.",
        runs_and_services(run, service),
        "s",
        width=3,
    )


def total_evictions() -> Panel:
    """Number of evictions."""
    return stat_panel(
        "Evictions",
        "Entries removed in the time range to make room. The next lookup of such an entry needs "
        f"another forward pass. {WHOLE_RUNS}",
        counted(run_names.RUN_EVICTIONS, names.CACHE_EVICTIONS),
        "locale",
        thresholds=((None, "green"), (1, "yellow")),
        width=3,
    )


# -- last run of each suite ------------------------------------------------------------------

_LAST = (
    " of the last run of each suite that has ended in the time range; it stays until the next one "
    "has ended."
)


def by_suite() -> Panel:
    """Hit rate of each suite's last run."""
    return bar_panel(
        "Hit rate of the last run",
        f"Hit rate{_LAST}",
        newest_finished(run_hit_rate()),
        RUN,
        "percentunit",
    )


def reached_by_suite() -> Panel:
    """Hit rate of each suite's last run as a share of the attainable one."""
    return bar_panel(
        "Of the attainable hit rate",
        f"Hit rate, as a share of the one that the suite attains if nothing is evicted,{_LAST}",
        newest_finished(reached_hit_rate()),
        RUN,
        "percentunit",
        thresholds=REACHED,
    )


def evictions_by_suite() -> Panel:
    """Evictions of each suite's last run."""
    return bar_panel(
        "Evictions in the last run",
        f'Entries removed to make room,{_LAST} The column "Over expected" of the dashboard Runs '
        "has the forward passes that this cost.",
        newest_finished(series(run_names.RUN_EVICTIONS)),
        RUN,
        "locale",
        thresholds=((None, "green"), (1, "yellow")),
    )


# -- over time -------------------------------------------------------------------------------


def hit_rate_over_time() -> Panel:
    """Hit rate over time."""
    return line_panel(
        "Hit rate",
        "Share of lookups that needed no forward pass of their own. Without lookups there is no "
        "line.",
        {"hit rate": hit_rate()},
        "percentunit",
    )


def lookups() -> Panel:
    """Lookups per second, by result."""
    return line_panel(
        "Lookups per second, by result",
        "hit: from the cache. miss: computed by a forward pass. coalesced: answered by a forward "
        "pass that was already in flight.",
        {"{{result}}": rate(names.LOOKUPS, by="result")},
        "suffix:/s",
        stacked=True,
    )


def passes() -> Panel:
    """Forward passes per second, by view family."""
    return line_panel(
        "Forward passes per second, by view",
        "Prompts that the model computed, by view family: base, ft, scaled or null.",
        {"{{view}}": rate(names.FORWARD_PASSES, by="view")},
        "suffix:/s",
        stacked=True,
    )


def time_saved_over_time() -> Panel:
    """Time that hits saved, per second."""
    hits = rate(names.LOOKUPS, HITS, by="backend, op")
    return line_panel(
        "Time saved per second",
        "Hits of each op per second, times the mean duration of a forward pass of that op in the "
        "time range. 2 s means that the cache saves two seconds of computation every second.",
        {"{{backend}}": total(f"({hits} * {seconds_per_pass('backend, op')})", "backend")},
        "s",
        stacked=True,
    )


# -- hit rate by probe, view and op ---------------------------------------------------------


def _hit_rate_by(label: str, description: str) -> Panel:
    expr = hit_rate(by=label, window=RANGE)
    return bar_panel(
        f"Hit rate by {label}",
        f"Hit rate in the time range. {description} {ESTIMATED}",
        named_probes(expr) if label == "probe" else expr,
        f"{{{{{label}}}}}",
        "percentunit",
    )


def by_probe() -> Panel:
    """Hit rate of each probe."""
    return _hit_rate_by(
        "probe",
        "A probe has hits if an earlier probe looked up the same prompts.",
    )


def by_view() -> Panel:
    """Hit rate of each view family."""
    return _hit_rate_by(
        "view",
        "All probes use base, so it has the most hits. Each null seed "
        "and each scale is used once, so they have few.",
    )


def by_op() -> Panel:
    """Hit rate of each op."""
    return _hit_rate_by(
        "op",
        "By what is computed: next_token_dist, rolling_logprob or logprob_of.",
    )
