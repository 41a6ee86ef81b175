"""Metrics of a run at an OTLP receiver of spans and metrics, over HTTP and gRPC."""

from __future__ import annotations

from math import isnan

import pytest

from forwardscope.telemetry.names import METRICS

from .processes import Samples, key, parse, until
from .receivers import Receiver
from .runs import Cli, suite_with_trouble

_HISTOGRAMS = tuple(one.name for one in METRICS if one.kind == "histogram")


def numbers(scraped: str) -> Samples:
    """The counters and gauges of a run's scrape; Prometheus has no label without a value."""
    return {
        key(name, **{label: value for label, value in labels if value}): value
        for (name, labels), value in parse(scraped).items()
        if not name.startswith((*_HISTOGRAMS, "process_"))
        or name == "forwardscope_batch_prompts_max"
    }


def comparable(samples: Samples) -> dict[object, float | str]:
    """The samples with NaN, which a probe without a value has, as a text that equals itself."""
    return {key: "NaN" if isnan(value) else value for key, value in samples.items()}


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_otlp_and_scrape_agree(request: pytest.FixtureRequest, cli: Cli, protocol: str) -> None:
    """After the run the receiver has the names, labels and values of the last scrape."""
    receiver: Receiver = request.getfixturevalue(f"otlp_{protocol}")
    sent = ("--otlp", receiver.url, "--otlp-metrics", receiver.url)
    live = cli.start(suite_with_trouble(), *sent, "--metrics-port", 0, "--metrics-linger", 60)
    scraped = numbers(live.scrape_to_the_end())
    delivered = [(one["to"], one["ok"]) for one in live.finish().result["delivery"]]
    places = [f"OTLP {receiver.url}", f"OTLP metrics {receiver.url}", live.metrics_url]
    assert delivered == [(place, True) for place in places]
    until(
        lambda: comparable(receiver.numbers()) == comparable(scraped),
        "the values of the last scrape arrive",
    )
