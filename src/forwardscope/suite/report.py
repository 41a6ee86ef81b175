"""Terminal report of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from forwardscope.probes import Verdict
from forwardscope.suite.result import (
    CacheUse,
    Delivery,
    ProbeResult,
    PromptTokens,
    Reconciliation,
    SeriesResult,
    StoreUse,
    SuiteResult,
)
from forwardscope.text import MAX_SENTENCE, plural, printable, shown

__all__ = ["format_z", "print_report"]

_STYLES = {
    Verdict.PASS: "bold green",
    Verdict.FAIL: "bold red",
    Verdict.ERROR: "bold red reverse",
    Verdict.SKIP: "dim",
}
_NO_VALUE = "–"


def print_report(result: SuiteResult, console: Console) -> None:
    """Print the probe and view tables, cache use, trace id, deliveries and reconciliation."""
    console.print()
    console.print(Text(shown(result.about, MAX_SENTENCE)), soft_wrap=True)
    console.print(_probe_table(result))
    console.print()
    for probe in result.probes:
        said = "; ".join(filter(None, (probe.message, probe.interval_note)))
        message = shown(said, MAX_SENTENCE)
        console.print(Text.assemble("  ", (shown(probe.name), "bold"), f": {message}"))
    for warning in result.warnings:
        line = f"warning: {shown(warning, MAX_SENTENCE)}"
        console.print(Text(line, style="bold yellow"), soft_wrap=True)
    console.print()
    console.print(_view_table(result.series, stored=result.store is not None))
    console.print()
    console.print(Text(_cache_line(result)))
    if result.store is not None:
        console.print(_store_line(result.store, result.demand), soft_wrap=True)
    if (tokens := result.prompt_tokens) is not None and tokens.reused:
        console.print(Text(_tokens_line(tokens)))
    if result.optimisations:
        states = "; ".join(f"{name}: {state}" for name, state in result.optimisations.items())
        console.print(Text(shown(states, MAX_SENTENCE)), soft_wrap=True)
    if (over_plan := _over_plan_line(result)) is not None:
        console.print(Text(over_plan, style="bold yellow"), soft_wrap=True)
    if result.trace_id is not None:
        url = result.trace_url
        where = "" if url is None else f": {printable(url)}"
        console.print(Text(f"trace {printable(result.trace_id)}{where}"), soft_wrap=True)
    for delivery in result.delivery:
        console.print(_delivery_line(delivery), soft_wrap=True)
    console.print(_reconciliation_line(result.reconciliation))


def format_z(z: float) -> str:
    """Format a z-score with three significant digits, or as a whole number from 100 on."""
    return f"{z:+.0f}" if abs(z) >= 100 else f"{z:+.3g}"


def _probe_table(result: SuiteResult) -> Table:
    """Return the table of the probes; 80 columns hold names of 12 characters."""
    table = _table(f"{shown(result.suite)}, {result.wall_s:.1f} s")
    table.add_column("probe", overflow="fold")
    table.add_column("verdict", no_wrap=True)
    for header in ("score", "raw", "z", "95 % CI", "time", "lookups", "hit\nrate"):
        table.add_column(header, justify="right", no_wrap=True)
    for probe in result.probes:
        table.add_row(*_probe_row(probe))
    return table


def _probe_row(probe: ProbeResult) -> Iterable[RenderableType]:
    yield Text(shown(probe.name))
    yield Text(probe.verdict.value, style=_STYLES[probe.verdict])
    yield _number(probe.score, ".2f")
    yield _number(probe.raw, ".4g")
    yield _NO_VALUE if probe.z_score is None else format_z(probe.z_score)
    yield _NO_VALUE if probe.ci_95 is None else f"{probe.ci_95[0]:.3g}…{probe.ci_95[1]:.3g}"
    yield f"{probe.duration_s:.1f} s"
    yield str(probe.stats.lookups)
    yield _percent(probe.stats.hit_rate) if probe.stats.lookups else _NO_VALUE


def _view_table(series: list[SeriesResult], *, stored: bool) -> Table:
    table = _table("views")
    table.add_column("view", overflow="fold")
    costs = ("from store", "passes") if stored else ("forward passes",)  # to fit 80 columns
    for header in ("lookups", "hits", *costs, "errors", "hit rate", "lookup time"):
        table.add_column(header, justify="right", no_wrap=True)
    for view_id in dict.fromkeys(counts.view_id for counts in series):
        of_view = [counts for counts in series if counts.view_id == view_id]
        lookups = sum(counts.lookups for counts in of_view)
        hits = sum(counts.cache_hits for counts in of_view)
        table.add_row(
            Text(shown(view_id)),
            str(lookups),
            str(hits),
            *([str(sum(counts.store_hits for counts in of_view))] if stored else []),
            str(sum(counts.forward_passes for counts in of_view)),
            str(sum(counts.forward_errors for counts in of_view)),
            _percent(hits / lookups),
            f"{sum(counts.scoring_wall_s for counts in of_view):.1f} s",
        )
    return table


def _cache_line(result: SuiteResult) -> str:
    stats = result.backend_stats
    lookups = int(stats["cache_hits"] + stats["cache_misses"])
    line = (
        f"cache: {stats['cache_hits']} of {plural(lookups, 'lookup')} "
        f"answered without a forward pass ({_percent(stats['hit_rate'])})"
    )
    if not result.cache.enabled:
        return f"{line}; the cache is off"
    if result.cache.evictions:
        line += f"; evictions: {result.cache.evictions} (max_entries {result.cache.max_entries})"
    return line


def _store_line(store: StoreUse, demand: int) -> Text:
    line = f"store: {store.hits} of {plural(demand, 'forward pass')} answered from "
    line += f"{store.tier} ({shown(store.name)}), {store.verified} verified"
    found = list(store.problems())
    style = "bold red" if store.mismatches else "bold yellow" if found else ""
    return Text("; ".join([line, *found]), style=style)


def _tokens_line(tokens: PromptTokens) -> str:
    share = _percent(tokens.reused / (tokens.computed + tokens.reused))
    return (
        f"prompt tokens: {tokens.computed} computed, {tokens.reused} reused from shared prefixes "
        f"({share})"
    )


def _over_plan_line(result: SuiteResult) -> str | None:
    """Describe needed forward passes beyond the plan and their cause; None if there are none."""
    expected, needed = result.expected_forward_passes, result.demand
    if expected is None or needed <= expected:
        return None
    stored = any(one.store_hits for one in result.series)
    line = f"{plural(needed, 'forward pass')}{' needed' * stored}, {expected} expected"
    counts = {"eviction": result.cache.evictions, "rejection": result.cache.rejections}
    causes = [plural(n, what) for what, n in counts.items() if n]
    if not causes:
        return line
    again = "needed again" if stored else "repeated"
    line += f": {needed - expected} {again} after {' and '.join(causes)}"
    if places := ", ".join(_repeated_passes(result.series)):
        line += f" in {places}"
    settings = " and ".join(_settings_to_raise(result.cache, expected))
    return f"{line}; raise {settings}" if settings else line


def _repeated_passes(series: Iterable[SeriesResult]) -> Iterable[str]:
    """Yield each probe and view that needed more passes than planned, and how many more."""
    more: Counter[tuple[str | None, str]] = Counter()
    for counts in series:
        if counts.expected_forward_passes is not None:
            more[counts.probe, counts.view_id] += counts.demand - counts.expected_forward_passes
    for (probe, view_id), passes in more.items():
        if passes > 0:
            place = "the check before the probes" if probe is None else shown(probe)
            yield f"{place} on {shown(view_id)} ({passes})"


def _settings_to_raise(cache: CacheUse, needed: int) -> Iterable[str]:
    """Yield the cache settings to raise so that `needed` entries fit."""
    too_few = cache.evictions > 0 and cache.max_entries < needed
    if too_few:
        yield f"cache.max_entries to at least {needed}"
    if cache.max_bytes is not None and (cache.rejections or not too_few):
        yield "cache.max_bytes"


def _delivery_line(delivery: Delivery) -> Text:
    line = f"{shown(delivery.to)}: {shown(delivery.what, MAX_SENTENCE)}"
    return Text(line, style="" if delivery.ok else "bold yellow")


def _reconciliation_line(reconciliation: Reconciliation) -> Text:
    sides = [plural(reconciliation.lookups, "lookup")]
    if reconciliation.trace_records is not None:
        sides.append(plural(reconciliation.trace_records, "trace record"))
        if reconciliation.trace_write_errors:
            sides[-1] += f" + {reconciliation.trace_write_errors} not written"
    if reconciliation.spans is not None:
        outcomes = [f"{n} {outcome}" for outcome, n in sorted(reconciliation.spans.items()) if n]
        sides.append(f"spans {' + '.join(outcomes) or 'none'}")
    if len(sides) == 1:
        return Text(f"reconciled: {sides[0]}; no trace or spans")
    if reconciliation.holds:
        return Text(f"reconciled: {' = '.join(sides)}", style="green")
    return Text(f"NOT reconciled: {'; '.join(sides)}", style="bold red")


def _table(title: str) -> Table:
    return Table(
        title=Text(title),
        title_justify="left",
        title_style="bold",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
    )


def _number(value: float | None, form: str) -> str:
    return _NO_VALUE if value is None else format(value, form)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
