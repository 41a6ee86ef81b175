"""The page of a run in a real browser."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from forwardscope import BackendInstrumentation, TraceReader
from forwardscope.analysis.report import report
from forwardscope.probes import (
    AdapterAblation,
    CompletionPreference,
    DeltaKL,
    NullAdapter,
    PerplexityShift,
    PromptCollapse,
)
from forwardscope.probes.completion_preference import Pair
from forwardscope.suite import SuiteSpec, run_suite
from forwardscope.suite.spec import ModelSpec, ReportSpec
from forwardscope.testing import ScriptedBackend

from .processes import program

_BROWSER = ("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000")
_AXE = Path(__file__).with_name("page")
_LISTENING = """<script>addEventListener("message", ({ data }) => {
    const at = document.createElement("pre");
    at.textContent = JSON.stringify(data);
    document.body.append(at);
});</script>"""
_PROMPTS = ["a", "<img src='http://127.0.0.1:9/b'>"]
_PROBES = (
    NullAdapter(name="null", runs=3),
    DeltaKL(name="<b>two</b>", prompts=_PROMPTS),
    AdapterAblation(name="scale", prompts=_PROMPTS),
    PromptCollapse(name="context", prompts=_PROMPTS, context_lengths=(0, 8, 16)),
    PerplexityShift(name="texts", texts=["one two three", "four five six"]),
    CompletionPreference(name="pairs", pairs=(Pair(prompt="a", wanted=" b", unwanted=" c"),)),
)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with all of its charts and with the texts of prompts."""
    folder = tmp_path_factory.mktemp("report")
    trace = folder / "t.jsonl"
    backend = ScriptedBackend(instrumentation=BackendInstrumentation(trace_path=trace))
    model, show = ModelSpec(path="m", adapter="a"), ReportSpec(prompts="show")
    spec = SuiteSpec(version=1, name="x" * 300, model=model, probes=_PROBES, report=show)
    result = run_suite(spec, backend)
    backend.close()
    path = folder / "report.html"
    path.write_text(report(result, list(TraceReader(trace))), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The source of axe-core, of the release that is named here."""
    folder = tmp_path_factory.mktemp("axe")
    for file in _AXE.iterdir():
        shutil.copy(file, folder)
    install = [program("npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    subprocess.run(install, cwd=folder, check=True, capture_output=True, timeout=300)
    return (folder / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")


def _browse(page: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [*_BROWSER, *options, page.as_uri()]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran


def _scheme(name: str) -> str:
    return f"--blink-settings=preferredColorScheme={0 if name == 'dark' else 1}"


def _evaluate(page: Path, script: str, *options: str, width: int = 1280) -> Any:
    """Return what a script in the page hands to `found`, which is plain JSON.

    The page is in a frame, since no window of the browser is as narrow as a phone.
    """
    source = f"const found = (it) => parent.postMessage(it, '*'); {script}"
    source = source.replace("</script", r"<\/script")
    inner = page.read_text(encoding="utf-8").replace("</body>", f"<script>{source}</script></body>")
    outer = page.with_suffix(".evaluated.html")
    frame = f'<iframe width="{width}" height="2000" srcdoc="{html.escape(inner)}"></iframe>'
    outer.write_text(f"{_LISTENING}<body>{frame}</body>", encoding="utf-8")
    dom = _browse(outer, "--hide-scrollbars", "--window-size=1400,2200", *options, "--dump-dom")
    (json_text,) = re.findall(r"<pre>(.*?)</pre>", dom.stdout, re.DOTALL)
    return json.loads(html.unescape(json_text))


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
    ran = _browse(page, _scheme(scheme), "--dump-dom", "--enable-logging=stderr")
    assert [line for line in ran.stderr.splitlines() if "CONSOLE" in line] == []
    for name in ("timeline", "durations", "curve"):
        assert re.search(rf'id="{name}"[^>]*><div class="uplot', ran.stdout), name
    assert "<b>two" not in re.sub(r"<script.*?</script>", "", ran.stdout, flags=re.DOTALL)


@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_the_window(page: Path, width: int) -> None:
    """Nothing but a table is wider than a phone, and every chart has a size."""
    script = """
    const drawings = [...document.querySelectorAll(".drawing")].map((one) => one.clientWidth);
    found([innerWidth, document.documentElement.scrollWidth, drawings]);
    """
    inner, whole, drawings = _evaluate(page, script, width=width)
    assert inner == whole == width
    assert len(drawings) == 8
    assert all(200 < one < width for one in drawings)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(page: Path, axe: str, scheme: str) -> None:
    """With all tables of data open."""
    script = f"""{axe};
    document.querySelectorAll("details").forEach((one) => {{ one.open = true; }});
    axe.run(document).then(({{ violations }}) => found(violations.map(
        ({{ id, impact, nodes }}) => [id, impact, nodes.map((one) => one.html.slice(0, 200))])));
    """
    found = _evaluate(page, script, _scheme(scheme), width=390)
    assert [one for one in found if one[1] in ("serious", "critical")] == []


def test_axe_is_heard(axe: str, tmp_path: Path) -> None:
    """So that silence means something."""
    bad = tmp_path / "bad.html"
    bad.write_text('<!DOCTYPE html><html lang="en"><body><svg role="img"></svg></body></html>')
    script = f"{axe}; axe.run(document).then((it) => found(it.violations.map((one) => one.id)));"
    assert "svg-img-alt" in _evaluate(bad, script)


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


def test_it_prints(page: Path, tmp_path: Path) -> None:
    """As a PDF of some pages."""
    paper = tmp_path / "page.pdf"
    _browse(page, f"--print-to-pdf={paper}", "--no-pdf-header-footer")
    assert paper.read_bytes().count(b"/Type /Page\n") >= 2
