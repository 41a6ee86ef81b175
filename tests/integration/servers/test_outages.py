"""Servers that are down, silent or dying: the run's values, status and time stay its own."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from forwardscope.telemetry.names import kind_of

from .processes import Pushgateway, get, key, parse, until
from .receivers import Receiver
from .runs import NAME, Cli, LiveRun, Run, suite, suite_with_trouble

CLOSE_S, MARGIN_S = 5.0, 15.0  # what all ways out may take together, and a slow machine's share
OTLP = pytest.mark.parametrize("protocol", ["http", "grpc"])


@pytest.fixture(scope="module")
def plain(cli: Cli) -> Run:
    """A run without telemetry."""
    return cli.run(suite())


@pytest.fixture
def server(request: pytest.FixtureRequest) -> str:
    """Host and port of a server that is not there, or that never answers."""
    return str(request.getfixturevalue(request.param))


BROKEN = pytest.mark.parametrize("server", ["refused", "hanging"], indirect=True)


def assert_same(run: Run, plain: Run) -> None:
    """Nothing of a run but its telemetry differs from that of a run without any."""
    assert run.measured == plain.measured
    assert run.status == plain.status
    assert len(run.records) == plain.lookups
    assert run.result["reconciliation"]["holds"]
    assert [line for line in run.stderr.splitlines() if not line.startswith("metrics: ")] == []
    assert run.seconds < plain.seconds + CLOSE_S + MARGIN_S


def assert_told(run: Run, to: str) -> str:
    """The report says in one line that a way out failed, as the result does."""
    told = run.delivery(to)
    assert not told["ok"]
    *lines, reconciled = [line.rstrip() for line in run.stdout.rstrip().splitlines()]
    assert f"{told['to']}: {told['what']}" in lines
    assert reconciled.startswith("reconciled: ")
    return str(told["what"])


def spans_of(run: Run) -> dict[str, int]:
    """Lookup spans by outcome; as many as lookups, and none left open."""
    spans: dict[str, int] = run.result["reconciliation"]["spans"]
    assert sum(spans.values()) == run.lookups
    assert spans.get("pending", 0) == 0
    return spans


def options(protocol: str, host: str) -> tuple[str, ...]:
    """The options for an OTLP receiver."""
    return ("--otlp", f"http://{host}", "--otlp-protocol", PROTOCOLS[protocol])


PROTOCOLS = {"http": "http/protobuf", "grpc": "grpc"}


@OTLP
@BROKEN
def test_no_receiver(cli: Cli, plain: Run, protocol: str, server: str) -> None:
    """Where no receiver answers, all spans are counted as dropped, and the report says so."""
    run = cli.run(suite(), *options(protocol, server))
    assert_same(run, plain)
    what = assert_told(run, "OTLP")
    assert what.startswith("0 spans exported, ")
    assert spans_of(run) == {"dropped": run.lookups}


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_refusal_is_named(cli: Cli, refused: str, protocol: str) -> None:
    """The report says why: nobody listens there."""
    run = cli.run(suite(), *options(protocol, refused))
    assert assert_told(run, "OTLP").endswith(" dropped: Connection refused")


def test_a_refusal_by_a_gateway_is_named(cli: Cli, refused: str) -> None:
    """The report says why: nobody listens there."""
    run = cli.run(suite(), "--pushgateway", f"http://{refused}")
    assert assert_told(run, "Pushgateway").endswith("not pushed: Connection refused")


def all_is_sent(live: LiveRun, receiver: Receiver) -> bool:
    """Whether the run says of each lookup so far that it was exported, and it has arrived."""
    shown = parse(get(live.metrics_url))
    asked = sum(n for (name, _), n in shown.items() if name == "forwardscope_cache_lookups_total")
    labels = {"backend": NAME, "span": "lookup", "outcome": "exported"}
    exported = shown.get(key("forwardscope_spans_total", **labels))
    arrived = sum(kind_of(one.name) == "lookup" for one in receiver.spans())
    return 0 < asked == exported == arrived


@OTLP
def test_a_receiver_that_dies(
    cli: Cli, plain: Run, dying: Callable[[str], Receiver], protocol: str
) -> None:
    """Spans sent before a receiver dies are exported, those after it dropped."""
    receiver = dying(protocol)
    live = cli.start(suite(), "--otlp", receiver.url, "--metrics-port", 0, hold=True).until_held()
    until(lambda: all_is_sent(live, receiver), "the spans of all lookups so far arrive")
    receiver.stop()
    live.release()
    run = live.finish()
    assert_same(run, plain)
    assert "dropped: " in assert_told(run, "OTLP")
    spans = spans_of(run)
    arrived = [one for one in receiver.spans() if kind_of(one.name) == "lookup"]
    assert spans["exported"] == len(arrived) > 0
    assert spans["dropped"] > 0


@BROKEN
def test_no_pushgateway(cli: Cli, plain: Run, server: str) -> None:
    """Where no Pushgateway answers, the report says that the end was not pushed."""
    run = cli.run(suite(), "--pushgateway", f"http://{server}")
    assert_same(run, plain)
    assert assert_told(run, "Pushgateway").startswith("the run's end was not pushed: ")


@pytest.mark.parametrize("how", ["stop", "freeze"])
def test_a_pushgateway_that_dies(cli: Cli, plain: Run, pushgateway: Pushgateway, how: str) -> None:
    """A gateway that took pushes, and then is gone or silent, is named too."""
    live = cli.start(suite(), "--pushgateway", pushgateway.url, hold=True).until_held()
    until(pushgateway.samples, "the run is pushed")
    getattr(pushgateway, how)()
    live.release()
    run = live.finish()
    assert_same(run, plain)
    assert assert_told(run, "Pushgateway").startswith("the run's end was not pushed: ")


@BROKEN
def test_everything_at_once(cli: Cli, plain: Run, server: str) -> None:
    """Ways out that fail together take no longer than one, and each is named."""
    pushed = ("--otlp-metrics", f"http://{server}", "--pushgateway", f"http://{server}")
    scraped = ("--metrics-port", 0, "--metrics-linger", 0)
    run = cli.run(suite(), *options("grpc", server), *pushed, *scraped)
    assert_same(run, plain)
    failed = [one["to"].split(" http")[0] for one in run.result["delivery"] if not one["ok"]]
    assert failed == ["OTLP", "OTLP metrics", "Pushgateway"]
    assert all(f"{one['to']}: {one['what']}" in run.stdout for one in run.result["delivery"])


def test_probes_that_fail_fail_alike(cli: Cli, refused: str) -> None:
    """Errors and verdicts of a run with trouble are the same with telemetry that goes nowhere."""
    plain = cli.run(suite_with_trouble())
    ways = ("--pushgateway", f"http://{refused}", "--metrics-port", 0)
    run = cli.run(suite_with_trouble(), *options("http", refused), *ways)
    assert run.status == 1
    assert_same(run, plain)


def test_a_receiver_that_works_changes_nothing(
    cli: Cli, plain: Run, otlp_http: Receiver, pushgateway: Pushgateway
) -> None:
    """With everything up and running the values are those of a run without telemetry."""
    ways = ("--otlp", otlp_http.url, "--pushgateway", pushgateway.url, "--metrics-port", 0)
    run = cli.run(suite(), *ways)
    assert_same(run, plain)
    assert all(one["ok"] for one in run.result["delivery"])
