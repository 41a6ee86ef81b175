"""Spans of a run as they arrive on the wire, over HTTP and gRPC: one whole tree."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from .processes import parse
from .receivers import Receiver, attributes
from .runs import MODEL, NAME, Cli, Run, suite_with_trouble


@dataclass(frozen=True)
class Traced:
    """One run, and its spans as they arrived.

    Attributes:
        run: What it left behind.
        spans: By their ids.
        outcomes: What the run's endpoint said of its spans in the end, by name and outcome.
    """

    run: Run
    spans: dict[bytes, Span]
    outcomes: dict[tuple[str, str], float]

    def named(self, name: str) -> list[Span]:
        """The spans of a name, by time of start."""
        found = [one for one in self.spans.values() if one.name == name]
        return sorted(found, key=lambda one: one.start_time_unix_nano)

    def parent(self, span: Span) -> Span:
        """The span that another hangs under."""
        return self.spans[span.parent_span_id]

    def below(self, span: Span) -> list[Span]:
        """The spans that hang under another."""
        return [one for one in self.spans.values() if one.parent_span_id == span.span_id]


@pytest.fixture(scope="module", params=["http", "grpc"])
def traced(request: pytest.FixtureRequest, cli: Cli) -> Traced:
    receiver: Receiver = request.getfixturevalue(f"otlp_{request.param}")
    options = ("--otlp", receiver.url, "--metrics-port", 0, "--metrics-linger", 60)
    live = cli.start(suite_with_trouble(), *options)
    shown = parse(live.scrape_to_the_end())
    run = live.finish()
    spans = receiver.wait_for(run.result["trace_id"], run.spans_exported)
    outcomes = {
        (dict(labels)["span"], dict(labels)["outcome"]): value
        for (name, labels), value in shown.items()
        if name == "forwardscope_spans_total"
    }
    return Traced(run, {one.span_id: one for one in spans}, outcomes)


def test_one_tree_hangs_under_the_run(traced: Traced) -> None:
    """There is one root, each other span's parent arrived too, and is of the kind it should be."""
    (root,) = (one for one in traced.spans.values() if not one.parent_span_id)
    assert root.name == "suite.run"
    edges = {
        (traced.parent(one).name, one.name) for one in traced.spans.values() if one is not root
    }
    assert edges == {
        ("suite.run", "probe.run"),
        ("suite.run", "cache.lookup"),  # the check for finite values asks outside any probe
        ("probe.run", "cache.lookup_batch"),
        ("cache.lookup", "forward"),
        ("cache.lookup_batch", "cache.lookup"),
        ("cache.lookup_batch", "forward"),
    }


def test_ids_are_of_one_trace_and_unique(traced: Traced) -> None:
    """All spans carry the trace id of the result, and no two have one id."""
    assert {one.trace_id.hex() for one in traced.spans.values()} == {traced.run.result["trace_id"]}
    assert len(traced.spans) == traced.run.spans_exported
    assert {one.kind for one in traced.spans.values()} == {Span.SPAN_KIND_INTERNAL}


def test_no_span_sticks_out_of_its_parent(traced: Traced) -> None:
    """Each begins no earlier and ends no later than what it hangs under."""
    for one in traced.spans.values():
        assert one.start_time_unix_nano <= one.end_time_unix_nano
        if one.parent_span_id:
            parent = traced.parent(one)
            assert parent.start_time_unix_nano <= one.start_time_unix_nano
            assert one.end_time_unix_nano <= parent.end_time_unix_nano


def test_probes_are_told(traced: Traced) -> None:
    """One span a probe, in order, with name, kind, verdict and the totals of the result."""
    status = {"pass": "pass", "fail": "fail", "error": "fail"}
    for span, probe in zip(traced.named("probe.run"), traced.run.result["probes"], strict=True):
        told, stats = attributes(span), probe["stats"]
        assert told["test.case.name"] == probe["name"]
        assert told["forwardscope.probe.kind"] == probe["kind"]
        assert told["forwardscope.verdict"] == probe["verdict"]
        assert told["test.case.result.status"] == status[probe["verdict"]]
        assert _totals(told) == _totals_of(stats)
        assert told["forwardscope.lookups_elided"] == 0


def test_the_run_is_told(traced: Traced) -> None:
    """Suite, run id, model, how it ended and the totals are the result's."""
    (root,) = traced.named("suite.run")
    told, result = attributes(root), traced.run.result
    series = result["series"]
    assert told["test.suite.name"] == NAME
    assert told["test.suite.run.status"] == "failure"
    assert told["forwardscope.run.id"] == result["run_id"]
    assert told["gen_ai.request.model"] == MODEL
    summed = {kind: sum(one[kind] for one in series) for kind in series[0] if kind in COUNTED}
    assert _totals(told) == _totals_of(summed)


COUNTED = ("lookups", "cache_hits", "forward_passes", "forward_errors")


def _totals(told: dict[str, Any]) -> list[int]:
    return [told[f"forwardscope.{kind}"] for kind in COUNTED]


def _totals_of(counts: dict[str, Any]) -> list[int]:
    return [counts[kind] for kind in COUNTED]


def test_lookups_are_those_of_the_result(traced: Traced) -> None:
    """Counted by result, view and op, spans of lookups are the result's numbers."""
    seen: Counter[tuple[str, str, str]] = Counter()
    for one in traced.named("cache.lookup"):
        told = attributes(one)
        view, op = told["forwardscope.view"], told["forwardscope.op"]
        seen[view, op, told["forwardscope.cache.result"]] += 1
    expected: Counter[tuple[str, str, str]] = Counter()
    for one in traced.run.result["series"]:
        series = one["view_id"], one["op"]
        expected[*series, "hit"] += one["cache_hits"] - one["coalesced"]
        expected[*series, "coalesced"] += one["coalesced"]
        expected[*series, "miss"] += one["cache_misses"]
    assert seen == +expected
    assert {result for _, _, result in seen} == {"hit", "miss", "coalesced"}


def test_what_arrived_is_what_was_counted(traced: Traced) -> None:
    """By name, as many spans as the run says it exported; nothing was dropped."""
    arrived = Counter(one.name for one in traced.spans.values())
    assert traced.outcomes == {(name, "exported"): n for name, n in arrived.items()}
    assert traced.run.result["reconciliation"]["spans"] == {"exported": arrived["cache.lookup"]}


def test_a_batch_links_to_what_it_computed(traced: Traced) -> None:
    """The forward span of a batch links to the misses beside it; that of one lookup to nothing."""
    sizes = []
    for forward in traced.named("forward"):
        parent = traced.parent(forward)
        links = [link.span_id for link in forward.links]
        if parent.name == "cache.lookup":
            assert not links
            continue
        beside = traced.below(parent)
        missed = [one.span_id for one in beside if _result_of(one) == "miss"]
        assert sorted(links) == sorted(missed)
        assert len(links) == attributes(forward)["forwardscope.batch.size"]
        told = attributes(parent)
        assert told["forwardscope.batch.misses"] == len(missed)
        answered = [one for one in beside if _result_of(one) in ("hit", "coalesced")]
        assert told["forwardscope.batch.hits"] == len(answered)
        sizes.append(len(links))
    stats = traced.run.result["backend_stats"]
    assert (len(sizes), sum(sizes)) == (stats["batches_sent"], stats["batched_prompts"])


def _result_of(span: Span) -> Any:
    return attributes(span).get("forwardscope.cache.result")


def test_forward_passes_tell_model_and_tokens(traced: Traced) -> None:
    """A forward span says what was asked of which model, and how long the prompts were."""
    for one in traced.named("forward"):
        told = attributes(one)
        assert told["gen_ai.operation.name"] == "score"
        assert told["gen_ai.request.model"] == MODEL
        assert told["forwardscope.op"] == "next_token_dist"
        assert told["gen_ai.usage.input_tokens"] > 0


def test_the_trace_file_leads_to_the_spans(traced: Traced) -> None:
    """Each record's trace is this one, and its parent a span that arrived and that has lookups."""
    parents = [traced.spans[bytes.fromhex(one["parent_id"])] for one in traced.run.records]
    assert {one["trace_id"] for one in traced.run.records} == {traced.run.result["trace_id"]}
    assert {one.name for one in parents} == {"suite.run", "cache.lookup_batch"}
    recorded = Counter(
        (one["parent_id"], one["view_id"], one["prompt_hash"]) for one in traced.run.records
    )
    seen = Counter(
        (
            one.parent_span_id.hex(),
            attributes(one)["forwardscope.view"],
            attributes(one)["forwardscope.prompt_hash"],
        )
        for one in traced.named("cache.lookup")
    )
    assert recorded == seen


def test_an_error_is_marked_without_its_message(traced: Traced) -> None:
    """Probe, batch, lookups and pass that failed have status and class, and no word more."""
    failed = [one for one in traced.spans.values() if one.status.code == Status.STATUS_CODE_ERROR]
    names = Counter(one.name for one in failed)
    assert set(names) == {"probe.run", "cache.lookup_batch", "cache.lookup", "forward"}
    errors = sum(one["forward_errors"] for one in traced.run.result["series"])
    assert names["cache.lookup"] == errors > 0
    assert {attributes(one)["error.type"] for one in failed} == {"RuntimeError"}
    for one in traced.spans.values():
        assert not one.status.message
        assert not one.events
        assert ("error.type" in attributes(one)) == (one in failed)
        assert "no answer" not in str(one)
