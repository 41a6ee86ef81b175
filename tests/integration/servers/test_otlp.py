"""Spans of a run as they arrive on the wire, over HTTP and gRPC: one whole tree."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from forwardscope.telemetry.names import kind_of

from .processes import parse
from .receivers import Receiver, attributes
from .runs import MODEL, NAME, Cli, Run, suite_with_trouble


@dataclass(frozen=True)
class Traced:
    """One run, and its spans as they arrived.

    Attributes:
        run: What it left behind.
        spans: By their ids.
        outcomes: What the run's endpoint said of its spans in the end, by kind and outcome.
    """

    run: Run
    spans: dict[bytes, Span]
    outcomes: dict[tuple[str, str], float]

    def of_kind(self, kind: str) -> list[Span]:
        """The spans of a kind, by time of start."""
        found = [one for one in self.spans.values() if kind_of(one.name) == kind]
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
    assert root.name == f"suite {NAME}"
    edges = {
        (kind_of(traced.parent(one).name), kind_of(one.name))
        for one in traced.spans.values()
        if one is not root
    }
    assert edges == {
        ("suite", "probe"),
        ("probe", "lookup"),  # of the check for finite values
        ("probe", "batch"),
        ("lookup", "forward"),
        ("batch", "lookup"),
        ("batch", "forward"),
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
    check, *spans = traced.of_kind("probe")
    assert attributes(check)["test.case.result.status"] == "pass"
    for span, probe in zip(spans, traced.run.result["probes"], strict=True):
        told, stats = attributes(span), probe["stats"]
        assert told["test.case.name"] == probe["name"]
        assert told["forwardscope.probe.kind"] == probe["kind"]
        assert told["forwardscope.probe.verdict"] == probe["verdict"]
        assert told["test.case.result.status"] == status[probe["verdict"]]
        assert _totals(told) == _totals_of(stats)
        assert told["forwardscope.lookups_elided"] == 0


def test_the_run_is_told(traced: Traced) -> None:
    """Suite, run id, model, how it ended and the totals are the result's."""
    (root,) = traced.of_kind("suite")
    told, result = attributes(root), traced.run.result
    series = result["series"]
    assert told["test.suite.name"] == NAME
    assert told["test.suite.run.status"] == "failure"
    assert told["forwardscope.run.id"] == result["run_id"]
    assert told["forwardscope.model"] == MODEL
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
    for one in traced.of_kind("lookup"):
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
    """By kind, as many spans as the run says it exported; nothing was dropped."""
    arrived = Counter(kind_of(one.name) for one in traced.spans.values())
    assert traced.outcomes == {(kind, "exported"): n for kind, n in arrived.items()}
    assert traced.run.result["reconciliation"]["spans"] == {"exported": arrived["lookup"]}


def test_the_misses_of_a_batch_link_to_its_call(traced: Traced) -> None:
    """Those beside the forward span of a batch link to it; a single miss has it as a child."""
    sizes = []
    for forward in traced.of_kind("forward"):
        parent = traced.parent(forward)
        assert not forward.links
        if kind_of(parent.name) == "lookup":
            assert not parent.links
            continue
        beside = traced.below(parent)
        missed = [one for one in beside if _result_of(one) == "miss"]
        assert [[link.span_id for link in one.links] for one in missed] == [
            [forward.span_id]
        ] * len(missed)
        assert len(missed) == attributes(forward)["forwardscope.batch.size"]
        told = attributes(parent)
        assert told["forwardscope.batch.misses"] == len(missed)
        answered = [one for one in beside if _result_of(one) in ("hit", "coalesced")]
        assert told["forwardscope.batch.hits"] == len(answered)
        sizes.append(len(missed))
    stats = traced.run.result["backend_stats"]
    assert (len(sizes), sum(sizes)) == (stats["batches_sent"], stats["batched_prompts"])


def _result_of(span: Span) -> Any:
    return attributes(span).get("forwardscope.cache.result")


def test_forward_passes_tell_model_and_tokens(traced: Traced) -> None:
    """A forward span says what was asked of which model, and how long the prompts were."""
    for one in traced.of_kind("forward"):
        told = attributes(one)
        assert told["gen_ai.operation.name"] == "text_completion"
        assert told["gen_ai.request.model"].endswith(MODEL)
        assert told["forwardscope.op"] == "next_token_dist"
        assert told["gen_ai.usage.input_tokens"] > 0


def test_the_trace_file_leads_to_the_spans(traced: Traced) -> None:
    """Each record's trace is this one, and its parent a span that arrived and that has lookups."""
    parents = [traced.spans[bytes.fromhex(one["parent_id"])] for one in traced.run.records]
    assert {one["trace_id"] for one in traced.run.records} == {traced.run.result["trace_id"]}
    assert {one.name for one in parents} == {"probe finite_check", "lookup batch"}
    recorded = Counter(
        (one["parent_id"], one["view_id"], one["prompt_hash"]) for one in traced.run.records
    )
    seen = Counter(
        (
            one.parent_span_id.hex(),
            attributes(one)["forwardscope.view"],
            attributes(one)["forwardscope.prompt_hash"],
        )
        for one in traced.of_kind("lookup")
    )
    assert recorded == seen


def test_an_error_is_marked_without_its_message(traced: Traced) -> None:
    """Run, probe, batch, lookups and call that failed have status and class, and no word more."""
    failed = [one for one in traced.spans.values() if one.status.code == Status.STATUS_CODE_ERROR]
    kinds = Counter(kind_of(one.name) for one in failed)
    assert set(kinds) == {"suite", "probe", "batch", "lookup", "forward"}
    errors = sum(one["forward_errors"] for one in traced.run.result["series"])
    assert kinds["lookup"] == errors > 0
    assert {attributes(one)["error.type"] for one in failed} == {"RuntimeError", "probe_failed"}
    for one in traced.spans.values():
        assert not one.status.message
        assert not one.events
        assert ("error.type" in attributes(one)) == (one in failed)
        assert "no answer" not in str(one)
