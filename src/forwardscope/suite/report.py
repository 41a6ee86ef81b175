"""Terminal report of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from shlex import quote
from typing import Final

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from forwardscope.probes import Verdict
from forwardscope.suite.formats import format_percent
from forwardscope.suite.report_tables import probe_table, task_table, view_table
from forwardscope.suite.result import (
    CacheUse,
    Delivery,
    PromptTokens,
    Reconciliation,
    SeriesResult,
    ServerUse,
    StoreUse,
    SuiteResult,
)
from forwardscope.text import MAX_SENTENCE, listed, plural, printable, shown

__all__ = ["print_line", "print_report", "print_tool_report"]

#: What the columns of the probes mean.
_LEGEND: Final = (
    "score: 0.5 at the threshold, 1 at best; raw: what the probe measures, with its unit below; "
    "z: distance from random adapters, in standard deviations"
)


def print_report(result: SuiteResult, console: Console, *, saved: Path | None = None) -> None:
    """Print what was measured, what it cost, what was delivered, and what to do next.

    Args:
        result: The result.
        console: Where to print; sentences are wrapped on a terminal alone.
        saved: The file that has the result, if any.
    """
    _print_measurements(result, console)
    console.print(view_table(result.series, stored=result.store is not None))
    console.print()
    _print_counts(result, console)
    _print_delivery(result, console)
    if (step := _next_step(result, saved)) is not None:
        print_line(console, Text(step, style="bold"))


def print_tool_report(result: SuiteResult, what: str, console: Console) -> None:
    """Print what the run of another tool cost, by task or probe, and what was delivered.

    `what` is the tool's word for them.
    """
    console.print()
    if result.series:
        stored = result.store is not None
        console.print(task_table(result.series, what, stored=stored))
        console.print()
    _print_counts(result, console)
    _print_delivery(result, console)


def _print_delivery(result: SuiteResult, console: Console) -> None:
    if result.trace_id is not None:
        url = result.trace_url
        where = "" if url is None else f": {printable(url)}"
        print_line(console, Text(f"trace {printable(result.trace_id)}{where}"))
    for delivery in result.delivery:
        print_line(console, _delivery_line(delivery))
    console.print(_reconciliation_line(result.reconciliation))


def print_line(console: Console, line: Text) -> None:
    """Print a line; a terminal breaks it between words, if no path in it is longer than a line."""
    fits = all(cell_len(word) <= console.width for word in line.plain.split())
    console.print(line, soft_wrap=not (console.is_terminal and fits))


def _print_measurements(result: SuiteResult, console: Console) -> None:
    console.print()
    print_line(console, Text(shown(result.about, MAX_SENTENCE)))
    console.print(probe_table(result))
    print_line(console, Text(_LEGEND, style="dim"))
    console.print()
    said: dict[str, list[str]] = {}  # a lost server has one message for all later probes
    for probe in result.probes:
        sentence = "; ".join(filter(None, (probe.message, probe.interval_note)))
        said.setdefault(sentence, []).append(shown(probe.name))
    for sentence, names in said.items():
        line = Text.assemble("  ", (listed(names), "bold"), f": {shown(sentence, MAX_SENTENCE)}")
        print_line(console, line)
    for warning in result.warnings:
        line = Text(f"warning: {shown(warning, MAX_SENTENCE)}", style="bold yellow")
        print_line(console, line)
    console.print()


def _print_counts(result: SuiteResult, console: Console) -> None:
    console.print(Text(_cache_line(result)))
    if result.store is not None:
        print_line(console, _store_line(result.store, result.demand))
    if result.server is not None:
        print_line(console, _server_line(result.server))
    if (tokens := result.prompt_tokens) is not None and tokens.reused:
        console.print(Text(_tokens_line(tokens)))
    if result.optimisations:
        states = "; ".join(f"{name}: {state}" for name, state in result.optimisations.items())
        print_line(console, Text(shown(states, MAX_SENTENCE)))
    if (over_plan := _over_plan_line(result)) is not None:
        print_line(console, Text(over_plan, style="bold yellow"))


def _cache_line(result: SuiteResult) -> str:
    stats = result.backend_stats
    lookups = int(stats["cache_hits"] + stats["cache_misses"])
    line = (
        f"cache: {stats['cache_hits']} of {plural(lookups, 'lookup')} "
        f"answered without a forward pass ({format_percent(stats['hit_rate'])})"
    )
    if bypasses := sum(one.bypasses for one in result.series):
        line += f"; {bypasses} bypassed it"
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


def _server_line(server: ServerUse) -> Text:
    return Text(server.sentence, style="bold yellow" if server.failed or server.throttled else "")


def _tokens_line(tokens: PromptTokens) -> str:
    share = format_percent(tokens.reused / (tokens.computed + tokens.reused))
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
    enough = result.enough_entries or expected  # each distinct lookup is always enough
    settings = " and ".join(_settings_to_raise(result.cache, enough))
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


def _next_step(result: SuiteResult, saved: Path | None) -> str | None:
    """Return what to do where probes did not pass; None where all did."""
    names = {
        verdict: listed([shown(one.name) for one in result.probes if one.verdict is verdict], 5)
        for verdict in (Verdict.ERROR, Verdict.FAIL)
    }
    if names[Verdict.ERROR]:
        return f"next: fix what is said above of {names[Verdict.ERROR]}, and run again"
    if not names[Verdict.FAIL]:
        return None
    first = "run again with --json result.json, then " if saved is None else ""
    file = "result.json" if saved is None else printable(quote(str(saved)))
    return (
        f"next: {first}forwardscope report {file} -o report.html shows the values behind "
        f"{names[Verdict.FAIL]}; docs/probes.md says what they mean"
    )


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
