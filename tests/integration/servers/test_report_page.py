"""The page of a run in a real browser."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from forwardscope import BackendInstrumentation, TraceReader
from forwardscope.analysis.report import report
from forwardscope.probes import DeltaKL
from forwardscope.suite import SuiteSpec, run_suite
from forwardscope.suite.spec import ModelSpec
from forwardscope.testing import ScriptedBackend

_BROWSER = ("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with all of its charts."""
    folder = tmp_path_factory.mktemp("report")
    trace = folder / "t.jsonl"
    backend = ScriptedBackend(instrumentation=BackendInstrumentation(trace_path=trace))
    probes = [DeltaKL(name=name, prompts=["a", "b"]) for name in ("one", "<b>two</b>")]
    spec = SuiteSpec(version=1, model=ModelSpec(path="m", adapter="a"), probes=probes)
    result = run_suite(spec, backend)
    backend.close()
    path = folder / "report.html"
    path.write_text(report(result, list(TraceReader(trace))), encoding="utf-8")
    return path


def _browse(page: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [*_BROWSER, *options, page.as_uri()]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran


def _asked_for(page: Path) -> set[str]:
    """What the page asked the network for; the browser's own requests have no origin."""
    log = page.with_suffix(".net.json")
    _browse(page, f"--log-net-log={log}", "--dump-dom")
    begun = [line for line in log.read_text(errors="replace").splitlines() if '"initiator"' in line]
    of_page = [line for line in begun if '"initiator":"not an origin"' not in line]
    return {url for line in of_page for url in re.findall(r'"url":"([^"]*)"', line)}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_charts_are_drawn(page: Path, scheme: str) -> None:
    """Without a word on the console: no error, and nothing that the page's policy refused."""
    dark = f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}"
    ran = _browse(page, dark, "--dump-dom", "--enable-logging=stderr")
    assert [line for line in ran.stderr.splitlines() if "CONSOLE" in line] == []
    for name in ("timeline", "durations", "curve"):
        assert re.search(rf'id="{name}"[^>]*><div class="uplot', ran.stdout), name
    assert "<b>two" not in re.sub(r"<script.*?</script>", "", ran.stdout, flags=re.DOTALL)


def test_the_console_is_heard(tmp_path: Path) -> None:
    """So that silence means something."""
    loud = tmp_path / "loud.html"
    loud.write_text("<script>nothing.like.this()</script>")
    assert "CONSOLE" in _browse(loud, "--dump-dom", "--enable-logging=stderr").stderr


def test_no_request_leaves_the_page(page: Path, tmp_path: Path) -> None:
    """The browser's log of its network has none; one that asks for a picture would be seen."""
    asking = tmp_path / "asking.html"
    asking.write_text("<!DOCTYPE html><img src='http://127.0.0.1:9/pixel'>")
    assert _asked_for(asking) == {"http://127.0.0.1:9/pixel"}
    assert _asked_for(page) == set()


def test_it_can_be_pictured(page: Path, tmp_path: Path) -> None:
    """A picture of it is no blank sheet."""
    picture = tmp_path / "page.png"
    _browse(page, f"--screenshot={picture}", "--window-size=1200,2200")
    assert picture.stat().st_size > 50_000
