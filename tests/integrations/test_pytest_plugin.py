"""The pytest plugin, in sessions of pytest with a scripted model."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from forwardscope import BackendInstrumentation, TraceReader
from forwardscope.analysis.run_data import read_result
from forwardscope.errors import AdapterError, UnsupportedViewError
from forwardscope.suite import SuiteSpec
from forwardscope.testing import ScriptedBackend, ScriptedView, pseudo_random_logits

pytest_plugins = ["pytester"]

_ROOT = Path(__file__).parents[2]
_PLUGIN = "forwardscope.integrations.pytest_plugin"
SUITE = """version: 1
model: {path: some-model, adapter: some-adapter}
probes:
  - {name: first, kind: delta_kl, prompts: [a, b], min_mean: 0.000001}
  - {name: second, kind: delta_kl, prompts: [b, PROMPT], min_mean: 0.000001}
"""
TEST = """
import pytest

@pytest.mark.forwardscope(ARGUMENTS)
def test_adapter():
    pass
"""
Run = Callable[..., pytest.RunResult]


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[SuiteSpec]:
    """Load scripted models from now on; the list collects their suites."""
    specs: list[SuiteSpec] = []

    def script(view: ScriptedView, prompt: str) -> object:
        if prompt == "raise":
            raise RuntimeError("the model is gone")
        if prompt == "exit":
            raise SystemExit(3)
        if prompt == "unsupported" and view.strength:
            raise UnsupportedViewError(view.id, "it has no LoRA")
        if specs[-1].model.path == "broken":
            return np.full(32, np.nan)
        shift = "x" if specs[-1].model.path == "other" else ""
        change = 0.0 if prompt == "same" else 0.5
        return pseudo_random_logits(view, prompt + shift, change=change)

    def load(spec: SuiteSpec, instrumentation: BackendInstrumentation) -> ScriptedBackend:
        specs.append(spec)
        if spec.model.adapter == "faulty":
            raise MemoryError("a secret")
        if spec.model.adapter == "gone":
            raise AdapterError("adapter folder gone does not exist")
        return ScriptedBackend(script, instrumentation=instrumentation, view_identity=str)

    monkeypatch.setattr("forwardscope.suite.backend.load_model", load)
    return specs


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, loaded: list[SuiteSpec]) -> Run:
    """Run pytest with this plugin alone, after the files that are given by name."""
    for name, value in {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "COLUMNS": "300"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("FORWARDSCOPE_STORE", raising=False)
    pytester.makefile(".ini", pytest="[pytest]")

    def call(*arguments: str, **files: str) -> pytest.RunResult:
        for name, text in files.items():
            suffix = ".yaml" if text.startswith("version:") else ".py"
            pytester.makefile(suffix, **{name: text})
        imported = "ignore::pytest.PytestAssertRewriteWarning"  # before this session
        return pytester.runpytest_inprocess(
            "-p", _PLUGIN, "--strict-markers", "-W", imported, *arguments
        )

    return call


def suite(prompt: str = "c", more: str = "") -> str:
    """The suite, with one prompt of its second probe, and more of it."""
    return SUITE.replace("PROMPT", prompt) + more


def marked(arguments: str = "suite='suite.yaml'", body: str = "pass") -> str:
    """A module with a marked test, which asks for the result if its body does."""
    asks = "forwardscope_result" if "forwardscope_result" in body else ""
    text = TEST.replace("ARGUMENTS", arguments).replace("()", f"({asks})")
    return text.replace("    pass", f"    {body}")


def test_the_entry_point_is_the_plugin() -> None:
    """An installed forwardscope is found by pytest."""
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    plugin = import_module(project["entry-points"]["pytest11"]["forwardscope"])
    assert (plugin.__name__, hasattr(plugin, "pytest_generate_tests")) == (_PLUGIN, True)


def test_a_session_without_marked_tests_loads_nothing_heavy(pytester: pytest.Pytester) -> None:
    """Neither at its start nor later."""
    pytester.makepyfile(test_plain="import sys\ndef test_plain(): print(sorted(sys.modules))")
    command = (sys.executable, "-m", "pytest", "-p", _PLUGIN, "-s", "-p", "no:cacheprovider")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"'{_PLUGIN}'" in ran.stdout
    heavy = ("numpy", "opentelemetry", "pydantic", "torch", "yaml", "forwardscope.suite")
    assert [name for name in heavy if f"'{name}'" in ran.stdout] == []


def test_each_probe_is_a_test(run: Run, loaded: list[SuiteSpec]) -> None:
    """And the suite is one; they are collected without a model."""
    collected = run("--collect-only", "-q", suite=suite(), test_it=marked())
    lines = [line for line in collected.outlines if "::" in line]
    assert lines == [f"test_it.py::test_adapter[{name}]" for name in ("first", "second", "suite")]
    assert loaded == []


def test_a_suite_runs_once(run: Run, loaded: list[SuiteSpec]) -> None:
    """For all tests of a session that ask for the same, whatever their limits."""
    ran = run(suite=suite(), test_one=marked(), test_two=marked("'suite.yaml', min_score=0.1"))
    ran.assert_outcomes(passed=6)
    assert len(loaded) == 1


def test_another_adapter_is_another_run(run: Run, loaded: list[SuiteSpec]) -> None:
    """Also for one suite."""
    other = marked("suite='suite.yaml', adapter='other-adapter'")
    run(suite=suite(), test_one=marked(), test_two=other).assert_outcomes(passed=6)
    assert [spec.model.adapter for spec in loaded] == ["some-adapter", "other-adapter"]


def test_the_body_gets_the_result(run: Run) -> None:
    """It runs after the verdict, and can assert more."""
    body = "assert (forwardscope_result.name, forwardscope_result.stats.lookups) == ('first', 4)"
    ran = run(suite=suite(), test_it=marked(body=body))
    ran.assert_outcomes(passed=1, failed=2)
    ran.stdout.fnmatch_lines(["*AssertionError: assert ('second', 4) == ('first', 4)"])
    ran.stdout.fnmatch_lines(["*AssertionError: assert ('suite', 10) == ('first', 4)"])


def test_a_failed_probe_fails(run: Run, tmp_path: Path) -> None:
    """With its message and values, without a traceback, before its body runs."""
    file = tmp_path / "junit.xml"
    body = "assert forwardscope_result.verdict == 'pass'"
    text = suite("same").replace("[b, same]", "[same]")
    ran = run(f"--junitxml={file}", suite=text, test_it=marked(body=body))
    ran.assert_outcomes(passed=2, failed=1)
    ran.stdout.fnmatch_lines(
        [
            "*test_adapter?second?*",
            "mean js 0.0000 nats, minimum 1e-06 (no baseline)",
            "raw 0, score 0.00",
            "FAILED test_it.py::test_adapter?second? - Failed: mean js 0.0000 nats, *",
        ]
    )
    assert not re.search(r"AssertionError|\.py:\d", ran.stdout.str())
    (failure,) = ET.parse(file).iter("failure")  # noqa: S314 - made by pytest
    assert (failure.text or "").startswith("mean js 0.0000 nats")


def test_a_coroutine_of_a_failed_probe_fails(run: Run) -> None:
    """Also where another plugin calls the function."""
    pytest.importorskip("anyio", reason="anyio is not installed")
    more = "pytestmark = pytest.mark.anyio\n@pytest.fixture\ndef anyio_backend(): return 'asyncio'"
    text = marked().replace("def test", "async def test") + more
    failing = suite("same").replace("[b, same]", "[same]")
    ran = run("-p", "anyio.pytest_plugin", suite=failing, test_it=text)
    ran.assert_outcomes(passed=2, failed=1)


def test_a_probe_with_an_error_is_an_error(run: Run, tmp_path: Path) -> None:
    """With the class of the exception; its message may have a prompt."""
    file = tmp_path / "junit.xml"
    ran = run(f"--junitxml={file}", suite=suite("raise"), test_it=marked())
    ran.assert_outcomes(passed=2, errors=1)
    ran.stdout.fnmatch_lines(["*ERROR at setup of test_adapter?second?*", "RuntimeError; *"])
    assert "the model is gone" not in ran.stdout.str()
    assert len(list(ET.parse(file).iter("error"))) == 1  # noqa: S314 - made by pytest


def test_a_skipped_probe_is_skipped(run: Run) -> None:
    """With the reason, at the place of the test."""
    ran = run("-rs", suite=suite("unsupported"), test_it=marked())
    ran.assert_outcomes(passed=2, skipped=1)
    ran.stdout.fnmatch_lines(
        ["SKIPPED ?1? test_it.py:3: second: view 'ft' is not available: it has no LoRA"]
    )


def test_the_check_before_the_probes(run: Run, loaded: list[SuiteSpec]) -> None:
    """If it fails, no probe has a result, and no test passes; the model is loaded once."""
    ran = run(suite=suite().replace("some-model", "broken"), test_it=marked())
    ran.assert_outcomes(errors=3)
    ran.stdout.fnmatch_lines(
        [
            "not run: the check before the probes failed: view 'base' gave NaN *",
            "*ERROR at setup of test_adapter?suite?*",
            "NonFiniteError: view 'base' gave NaN *",
        ]
    )
    assert len(loaded) == 1


def test_a_stored_value_that_is_wrong(run: Run) -> None:
    """It fails the test of the suite; the probes have the computed values."""
    more = "cache: {store: values.db, verify: 1.0}\n"
    run(suite=suite(more=more), test_it=marked()).assert_outcomes(passed=3)
    run(suite=suite(more=more)).assert_outcomes(passed=3)
    ran = run(suite=suite(more=more).replace("some-model", "other"))
    ran.assert_outcomes(passed=2, failed=1)
    ran.stdout.fnmatch_lines(["store *values.db: * did not agree with the computed one*"])


def test_the_score_of_the_suite(run: Run) -> None:
    """Below `min_score` the test of the suite fails."""
    text = suite("same").replace("[b, same]", "[same]")
    ran = run("-k", "suite", suite=text, test_it=marked("'suite.yaml', min_score=0.9"))
    ran.assert_outcomes(failed=1, deselected=2)
    ran.stdout.fnmatch_lines(["score 0.500 of the suite, minimum 0.9"])


def test_mistakes_of_the_suite(run: Run, loaded: list[SuiteSpec]) -> None:
    """All of them are errors of the collection, without a traceback."""
    text = suite().replace("adapter:", "adaptr:").replace("kind: delta_kl", "kind: delta")
    ran = run(suite=text, test_it=marked())
    ran.assert_outcomes(errors=1)
    ran.stdout.fnmatch_lines(
        [
            "test_adapter: suite.yaml:2: model.adaptr: unknown key; did you mean adapter?",
            "test_adapter: suite.yaml:4: probes?0?.kind: unknown probe kind 'delta'*",
        ]
    )
    assert not re.search(r"\.py:\d", ran.stdout.str())
    assert loaded == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "the marker needs suite=, the path of a suite file"),
        ("suite='none.yaml'", "suite file none.yaml does not exist; *"),
        ("'a\\0b.yaml'", "suite file a?x00b.yaml cannot be read: embedded null byte"),
        ("'\\ud800.yaml'", "suite file ?ud800.yaml cannot be read: *surrogates not allowed"),
        ("'-'", "suite file */- does not exist; *"),  # not standard input
        ("'suite.yaml', 'b'", "the marker takes the suite alone by position; *"),
        ("'suite.yaml', min_scor=1", "the marker has no argument 'min_scor'; did you mean *"),
        ("'suite.yaml', color=1", "the marker has no argument 'color'; it has suite, probes, *"),
        ("'suite.yaml', min_score=2", "min_score=2: Input should be less than or equal to 1"),
        ("'suite.yaml', probes=3", "probes=3: must be a list of names of probes"),
        ("'suite.yaml', probes='frst'", "probes: the suite has no probe 'frst'; did you mean *"),
        ("'suite.yaml', store=''", "store='': *"),
        ("'suite.yaml', trace='.'", "the trace cannot be written to *: it is a folder; *"),
        ("'suite.yaml', result='suite.yaml'", "the result would be written to * over the input *"),
    ],
)
def test_mistakes_of_the_marker(run: Run, arguments: str, message: str) -> None:
    """Each is one sentence, and an error of the collection."""
    ran = run(suite=suite(), test_it=marked(arguments))
    ran.assert_outcomes(errors=1)
    ran.stdout.fnmatch_lines([f"test_adapter: {message}"])


def test_two_markers_on_one_test(run: Run) -> None:
    """They are a mistake: a test has one suite; the marker of a function overrides its class's."""
    twice = marked().replace("@", "@pytest.mark.forwardscope('b.yaml')\n@", 1)
    run(suite=suite(), test_it=twice).assert_outcomes(errors=1)
    above = marked() + "pytestmark = pytest.mark.forwardscope('b.yaml')\n"
    run(suite=suite(), test_it=above).assert_outcomes(passed=3)


def test_what_the_marker_has_no_effect_on(run: Run) -> None:
    """A `unittest.TestCase` is an error, and not a test that measures nothing."""
    text = (
        "import pytest, unittest\n@pytest.mark.forwardscope('suite.yaml')\n"
        "class TestIt(unittest.TestCase):\n    def test_it(self): pass\n"
    )
    ran = run(suite=suite(), test_it=text)
    ran.assert_outcomes(errors=1)
    ran.stdout.fnmatch_lines(["the marker forwardscope has no effect here: *"])


def test_the_fixture_without_the_marker(run: Run) -> None:
    """The error says what is missing."""
    ran = run(test_it="def test_it(forwardscope_result): pass")
    ran.assert_outcomes(errors=1)
    ran.stdout.fnmatch_lines(["forwardscope_result needs @pytest.mark.forwardscope(suite=...)*"])


def test_a_model_that_cannot_be_loaded(run: Run, loaded: list[SuiteSpec]) -> None:
    """Each test is an error of one sentence; loading is not tried again."""
    ran = run(suite=suite(), test_it=marked("'suite.yaml', adapter='gone'"))
    ran.assert_outcomes(errors=3)
    messages = [line for line in ran.outlines if line.endswith("folder gone does not exist")]
    assert messages[:3] == [
        "adapter folder gone does not exist",
        *["not run: adapter folder gone does not exist"] * 2,
    ]
    assert len(loaded) == 1


def test_a_run_that_breaks_off(run: Run, loaded: list[SuiteSpec]) -> None:
    """The first test has the traceback, the others the class; the suite is not run again."""
    ran = run(suite=suite(), test_it=marked("'suite.yaml', adapter='faulty'"))
    ran.assert_outcomes(errors=3)
    broken = "not run: an earlier test of the suite ended with MemoryError"
    assert len([line for line in ran.outlines if re.match("E +MemoryError: a secret", line)]) == 1
    assert ran.outlines.count(broken) == 2
    assert len(loaded) == 1


def test_a_model_that_ends_the_process(run: Run, loaded: list[SuiteSpec]) -> None:
    """Its tests are errors, and those of other suites run."""
    other = marked("suite='other.yaml'")
    ran = run(suite=suite("exit"), test_a=marked(), other=suite(), test_b=other)
    ran.assert_outcomes(errors=3, passed=3)
    ran.stdout.fnmatch_lines(["the suite ended with SystemExit: 3"])
    assert len(loaded) == 2


def test_a_result_that_cannot_be_written(run: Run) -> None:
    """The probes have their verdicts; the test of the suite fails, and the summary says why."""
    ran = run(suite=suite(), test_it=marked("'suite.yaml', result='/dev/full'"))
    ran.assert_outcomes(passed=2, failed=1)
    said = [line for line in ran.outlines if line.startswith("the result cannot be written to")]
    assert len(said) == 2
    assert "shows each value" not in ran.stdout.str()


def test_paths(run: Run, pytester: pytest.Pytester, loaded: list[SuiteSpec]) -> None:
    """What is read is beside the test or in the root, what is written in the root."""
    arguments = "'s.yaml', adapter='mine', store='values.db', trace='t.jsonl', result='r.json'"
    for folder in ("one", "two"):
        (pytester.mkdir(folder) / f"test_{folder}.py").write_text(marked(arguments))
    for folder in (Path("one"), Path()):
        (pytester.path / folder / "s.yaml").write_text(suite())
    mine = pytester.mkdir("mine")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(pytester.path / "one")
        run("..").assert_outcomes(passed=6)
    assert [spec.name for spec in loaded] == ["s", "s"]  # one of each folder
    assert [(spec.model.adapter, spec.model.adapter_label) for spec in loaded] == [
        (str(mine), "mine")
    ] * 2
    assert read_result(pytester.path / "r.json").store is not None
    assert (pytester.path / "values.db").exists()
    assert len(list(TraceReader(pytester.path / "t.jsonl"))) == 20


def test_a_suite_in_the_working_directory(run: Run, pytester: pytest.Pytester) -> None:
    """It is not used where it is neither beside the test nor in the root."""
    elsewhere = pytester.mkdir("elsewhere")
    (elsewhere / "only.yaml").write_text(suite())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(elsewhere)
        run("..", test_it=marked("'only.yaml'")).assert_outcomes(errors=1)


def test_some_of_the_probes(run: Run) -> None:
    """`probes` leaves others out of the run; `-k` and node ids choose tests of the whole run."""
    text = marked("'suite.yaml', probes=['second']")
    run(suite=suite(), test_it=text).assert_outcomes(passed=2)
    run("-k", "second", test_it=marked()).assert_outcomes(passed=1, deselected=2)
    ran = run("test_it.py::test_adapter[second]", test_it=marked())
    ran.assert_outcomes(passed=1)
    ran.stdout.fnmatch_lines(["2 of 2 probes passed*"])


def test_other_parameters(run: Run, loaded: list[SuiteSpec]) -> None:
    """A marked test can have parameters of its own."""
    text = marked().replace("@", "@pytest.mark.parametrize('n', [1, 2])\n@", 1)
    ran = run("-v", suite=suite(), test_it=text.replace("()", "(n)"))
    ran.assert_outcomes(passed=6)
    ran.stdout.fnmatch_lines(["test_it.py::test_adapter?1-first? PASSED*"])
    assert len(loaded) == 1


def test_the_summary(run: Run) -> None:
    """It has what the run measured and cost, its store, its file, and what has no effect here."""
    more = "telemetry: {pushgateway: 'http://127.0.0.1:9'}\n"
    arguments = "'suite.yaml', store='values.db', result='r.json'"
    ran = run("-q", suite=suite(more=more), test_it=marked(arguments))
    ran.stdout.fnmatch_lines(
        [
            "*= forwardscope suite, some-adapter =*",
            "2 of 2 probes passed, score 1.00, * s",
            "8 forward passes paid; 2 of 10 lookups were hits (20 %)",
            "store *values.db: answered 0 of 8 forward passes, 0 verified",
            "its telemetry section is not used here, but by forwardscope run",
            "forwardscope report *r.json -o report.html shows each value",
        ]
    )
    assert "= forwardscope" not in run("-q", test_it="def test_it(): pass").stdout.str()


def test_the_example_of_the_page(run: Run, block: Callable[[str, str], str]) -> None:
    """It runs as it is written, where the suite has the probes that it expects."""
    ran = run(suite=suite(), test_adapter=block("pytest", "py").replace("> 0.1", "> 0.0001"))
    ran.assert_outcomes(passed=3)


def test_workers_of_xdist(run: Run, pytester: pytest.Pytester) -> None:
    """Each worker that has tests of a suite runs it once, and the summary says so."""
    pytest.importorskip("xdist", reason="pytest-xdist is not installed")
    pytester.makeconftest(
        "import forwardscope.suite.backend as backend\n"
        "from forwardscope.testing import ScriptedBackend\n"
        "def load(spec, instrumentation):\n"
        "    return ScriptedBackend(instrumentation=instrumentation)\n"
        "backend.load_model = load\n"
    )
    arguments = ("-p", "xdist", "-n", "2", "--dist")
    each = run(*arguments, "each", suite=suite(), test_it=marked())
    each.assert_outcomes(passed=6)
    each.stdout.fnmatch_lines(["gw0: 2 of 2 probes passed*", "gw1: 2 of 2 probes passed*"])
    each.stdout.fnmatch_lines(["ran in 2 workers, each with a model of its own; --dist loadfile*"])
    lone = run(*arguments, "loadfile")
    lone.assert_outcomes(passed=3)
    assert len([line for line in lone.outlines if "2 of 2 probes passed" in line]) == 1
