"""The drill: a run pays too much, somebody is told, and told again when it is mended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from forwardscope.dashboards.rules import RUNBOOK

from .observing import listen, run_stack
from .processes import until
from .runs import MODEL, NAME, Cli, Run, suite

_CHECKOUT = Path(__file__).parents[3]
_ALERT = "ForwardPassRegression"
#: Rules wait for half a minute and a minute more.
_PATIENCE_S = 150.0
_LARGE, _SMALL = {"max_entries": 64}, {"max_entries": 4}


@pytest.mark.timeout(900)
def test_a_cache_that_is_too_small_is_told_of_until_it_is_mended(cli: Cli, tmp_path: Path) -> None:
    """A good run is silent, one with too small a cache reaches a person, a good one ends it."""
    with (
        listen() as person,
        run_stack(_CHECKOUT, tmp_path, webhook=person.url, alerts_held="10s") as stack,
    ):

        def run(cache: dict[str, int]) -> Run:
            ran = cli.run(suite(cache=cache), "--pushgateway", stack.gateway.url)
            assert ran.status == 0, ran.stderr
            known = f'run:forwardscope_run_forward_passes_needed:finished{{run_id="{ran.run_id}"}}'
            until(lambda: stack.prometheus.query(known), "the run is recorded", _PATIENCE_S)
            return ran

        def told(status: str) -> list[dict[str, Any]]:
            named = [one for one in person.told if one["labels"]["alertname"] == _ALERT]
            return [one for one in named if one["status"] == status]

        good = run(_LARGE)
        assert good.paid == good.planned
        assert not stack.prometheus.query(f'ALERTS{{alertname="{_ALERT}"}}')

        bad = run(_SMALL)
        assert bad.planned == good.planned < bad.paid
        alert = until(lambda: told("firing"), "somebody is told", _PATIENCE_S)[0]
        assert alert["labels"] == {
            "alertname": _ALERT,
            "severity": "warning",
            "suite": NAME,
            "model": MODEL,
        }
        assert (
            f"needed {bad.paid - bad.planned} forward passes more"
            in (alert["annotations"]["description"])
        )
        assert alert["annotations"]["runbook_url"] == f"{RUNBOOK}#forwardpassregression"

        assert not told("resolved")
        run(_LARGE)
        until(lambda: told("resolved"), "somebody is told that it is over", _PATIENCE_S)
        assert {one["labels"]["alertname"] for one in person.told} <= {_ALERT, "CacheHitRateDrop"}
