"""Asks 100,000 questions with a span each, and prints what became of them; run as a program.

python many_lookups.py http://127.0.0.1:4318 threads seconds-to-close
"""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

from forwardscope import BackendInstrumentation
from forwardscope.cli.otlp import make_exporter
from forwardscope.cli.otlp_provider import make_provider
from forwardscope.cli.span_delivery import SpanDelivery
from forwardscope.cli.targets import OtlpTarget

LOOKUPS = 100_000
LOOK_EVERY = 500
DIFFERENT = 1_000  # questions; each is a miss once


def main(url: str, threads: int, close_s: float) -> None:
    """Ask from some threads, close, and print counts as JSON."""
    delivery = SpanDelivery(make_exporter(OtlpTarget(url, "http/protobuf", explicit=True)))
    provider = make_provider(delivery)
    inst = BackendInstrumentation(
        tracer_provider=provider, span_budget=None, cache_maxsize=DIFFERENT
    )
    inst.spans.delivery = delivery
    inst.cached("op", "base", "first", 0, int)
    before_kb = _resident_kb()
    peaks: list[tuple[int, int]] = []

    def ask(first: int) -> None:
        for number in range(first, LOOKUPS - 1, threads):
            inst.cached("op", "base", str(number % DIFFERENT), 0, int)
            if number % LOOK_EVERY == 0:
                peaks.append((len(inst.spans.queue), _resident_kb()))

    asking = [threading.Thread(target=ask, args=(first,)) for first in range(threads)]
    for one in asking:
        one.start()
    for one in asking:
        one.join()
    inst.spans.close(close_s)
    inst.close()
    delivery.close(close_s)
    queued, resident_kb = (max(column) for column in zip(*peaks, strict=True))
    spans = {"/".join(key): n for key, n in inst.spans.outcomes().items()}
    print(  # noqa: T201 - for the test that started it
        json.dumps(
            {
                "lookups": inst.stats.total_lookups,
                "spans": spans,
                "queued": queued,
                "grown_mb": (max(resident_kb, _resident_kb()) - before_kb) / 1024,
            }
        )
    )


def _resident_kb() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
