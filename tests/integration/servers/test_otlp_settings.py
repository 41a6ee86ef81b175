"""Where spans go, and which of them: the options and the standard variables."""

from __future__ import annotations

from typing import Any

import pytest

from forwardscope.telemetry.names import kind_of

from .receivers import Receiver, attributes
from .runs import NAME, Cli, Run, suite

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture(params=["http", "grpc"])
def receiver(request: pytest.FixtureRequest) -> Receiver:
    """Both receivers, one after the other."""
    found: Receiver = request.getfixturevalue(f"otlp_{request.param}")
    return found


def crowded() -> dict[str, Any]:
    """A suite with a probe that asks one question so often that the default budget is too small."""
    whole = suite()
    whole["probes"][1]["prompts"] = ["a"] * 1102
    return whole


def assert_sent_nothing(cli: Cli, receiver: Receiver, run: Run, before: int) -> None:
    """Nothing arrived but the spans of one more run, and the first does not say it sent any."""
    assert all(
        one["what"] == "0 spans exported" for one in run.result["delivery"] if "OTLP" in one["to"]
    )
    assert run.result["reconciliation"]["holds"]
    after = cli.run(suite(), "--otlp", receiver.url)
    receiver.wait_for(after.result["trace_id"], after.spans_exported)
    assert len(receiver.spans()) == before + after.spans_exported


def test_a_trace_goes_on(cli: Cli, receiver: Receiver) -> None:
    """A run that is started under TRACEPARENT is part of that trace."""
    run = cli.run(suite(), "--otlp", receiver.url, TRACEPARENT=f"00-{TRACE_ID}-{SPAN_ID}-01")
    assert run.result["trace_id"] == TRACE_ID
    outside = bytes.fromhex(SPAN_ID)
    spans = receiver.wait_for(TRACE_ID, run.spans_exported)
    own = {one.span_id for one in spans}
    (root,) = (one for one in spans if one.parent_span_id not in own)
    assert (root.name, root.parent_span_id) == (f"suite {NAME}", outside)
    assert {one["trace_id"] for one in run.records} == {TRACE_ID}


def test_a_malformed_traceparent_begins_a_trace(cli: Cli, receiver: Receiver) -> None:
    """What cannot be read is as good as nothing."""
    run = cli.run(suite(), "--otlp", receiver.url, TRACEPARENT="00-nonsense-01")
    spans = receiver.wait_for(run.result["trace_id"], run.spans_exported)
    assert [one.name for one in spans if not one.parent_span_id] == [f"suite {NAME}"]


def test_an_unsampled_parent_is_obeyed(cli: Cli, receiver: Receiver) -> None:
    """Where the caller does not sample its trace, the run sends nothing and says elided."""
    before = len(receiver.spans())
    parent = f"00-{TRACE_ID}-{SPAN_ID}-00"
    run = cli.run(suite(), "--otlp", receiver.url, TRACEPARENT=parent)
    assert_sent_nothing(cli, receiver, run, before)
    assert run.result["reconciliation"]["spans"] == {"elided": run.lookups}


def test_the_standard_variable_is_enough(cli: Cli, receiver: Receiver) -> None:
    """OTEL_EXPORTER_OTLP_ENDPOINT names the receiver, and its protocol variable how to speak."""
    protocol = "grpc" if receiver.url.startswith("grpc") else "http/protobuf"
    run = cli.run(
        suite(),
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url.replace("grpc://", "http://"),
        OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
    )
    spans = receiver.wait_for(run.result["trace_id"], run.spans_exported)
    assert len(spans) > run.lookups
    assert run.delivery("OTLP")["ok"]


def test_the_traces_variable_comes_first(cli: Cli, otlp_http: Receiver, refused: str) -> None:
    """The endpoint for traces is taken as it is, before the one for all signals."""
    run = cli.run(
        suite(),
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{refused}",
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"{otlp_http.url}/v1/traces",
    )
    otlp_http.wait_for(run.result["trace_id"], run.spans_exported)


def test_the_option_comes_before_the_variables(cli: Cli, receiver: Receiver, refused: str) -> None:
    """`--otlp` is where spans go, whatever the endpoint of the environment."""
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{refused}"}
    run = cli.run(suite(), "--otlp", receiver.url, **endpoint)
    receiver.wait_for(run.result["trace_id"], run.spans_exported)


@pytest.mark.parametrize("option", [True, False], ids=["option", "variable"])
def test_a_disabled_sdk_sends_nothing(cli: Cli, otlp_grpc: Receiver, option: bool) -> None:
    """OTEL_SDK_DISABLED is obeyed, whoever names the receiver."""
    before = len(otlp_grpc.spans())
    endpoint = otlp_grpc.url.replace("grpc://", "http://")
    named = ("--otlp", otlp_grpc.url) if option else ()
    environment = {} if option else {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
    run = cli.run(suite(), *named, OTEL_SDK_DISABLED="true", **environment)
    assert_sent_nothing(cli, otlp_grpc, run, before)
    assert run.result["trace_id"] is None
    assert run.result["reconciliation"]["spans"] is None
    assert not any("trace_id" in one or "parent_id" in one for one in run.records)
    assert run.status == 0


def test_what_is_not_sampled_is_elided(cli: Cli, receiver: Receiver) -> None:
    """OTEL_TRACES_SAMPLER=always_off sends nothing, and all lookups reconcile as elided."""
    before = len(receiver.spans())
    run = cli.run(suite(), "--otlp", receiver.url, OTEL_TRACES_SAMPLER="always_off")
    assert_sent_nothing(cli, receiver, run, before)
    assert run.result["trace_id"] is None
    assert run.result["reconciliation"]["spans"] == {"elided": run.lookups}


def test_records_of_what_is_not_sampled_lead_nowhere(cli: Cli, otlp_http: Receiver) -> None:
    """Where no span is recorded, no record names a trace or a parent."""
    run = cli.run(suite(), "--otlp", otlp_http.url, OTEL_TRACES_SAMPLER="always_off")
    assert not any("trace_id" in one or "parent_id" in one for one in run.records)


@pytest.mark.parametrize("budget", [0, 3])
def test_records_beyond_the_budget_lead_to_a_span(
    cli: Cli, receiver: Receiver, budget: int
) -> None:
    """A lookup without a span of its own still tells which span of the run it was made in."""
    run = cli.run(crowded(), "--otlp", receiver.url, "--span-budget", budget)
    spans = receiver.wait_for(run.result["trace_id"], run.spans_exported)
    names = {one.span_id.hex(): one.name for one in spans}
    parents = {kind_of(names[one["parent_id"]]) for one in run.records}
    assert parents == {"probe", "batch"}


def test_a_budget_of_hits_is_kept(cli: Cli, receiver: Receiver) -> None:
    """No probe has more hit spans, all misses are there, and the rest is counted."""
    run = cli.run(crowded(), "--otlp", receiver.url, "--span-budget", 3)
    spans = receiver.wait_for(run.result["trace_id"], run.spans_exported)
    lookups = [one for one in spans if kind_of(one.name) == "lookup"]
    results = [attributes(one)["forwardscope.cache.result"] for one in lookups]
    assert results.count("miss") == run.result["backend_stats"]["cache_misses"]
    hits = {p["name"]: p["stats"]["cache_hits"] for p in run.result["probes"]}
    elided = {
        attributes(one)["test.case.name"]: attributes(one)["forwardscope.lookups_elided"]
        for one in spans
        if one.name.startswith("probe ") and one.name != "probe finite_check"
    }
    assert elided == {name: max(0, n - 3) for name, n in hits.items()}
    reconciled = run.result["reconciliation"]
    assert reconciled["spans"] == {"exported": len(lookups), "elided": sum(elided.values())}
    assert reconciled["holds"]


@pytest.mark.parametrize(("budget", "elided"), [((), 202), (("--span-budget", "all"), 0)])
def test_all_hits_are_spans_where_all_are_wanted(
    cli: Cli, receiver: Receiver, budget: tuple[str, ...], elided: int
) -> None:
    """A probe with 2,202 hits loses 202 spans to the default budget, and none to `all`."""
    run = cli.run(crowded(), "--otlp", receiver.url, *budget)
    spans = receiver.wait_for(run.result["trace_id"], run.spans_exported)
    lookups = [one for one in spans if kind_of(one.name) == "lookup"]
    assert len(lookups) == run.lookups - elided
    outcomes = {"exported": len(lookups)} | ({"elided": elided} if elided else {})
    assert run.result["reconciliation"]["spans"] == outcomes


def test_the_source_of_spans_is_told(cli: Cli, otlp_grpc: Receiver) -> None:
    """The service is forwardscope, unless the standard variables name another."""
    cli.run(suite(), "--otlp", otlp_grpc.url)
    assert otlp_grpc.resources[-1]["service.name"] == "forwardscope"
    cli.run(suite(), "--otlp", otlp_grpc.url, OTEL_SERVICE_NAME="mine")
    assert otlp_grpc.resources[-1]["service.name"] == "mine"
