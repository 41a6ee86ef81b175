"""Plugin of pytest: the probes of a suite as tests.

Nothing heavy is imported before a test is marked, and no torch before one runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest

from forwardscope.text import MAX_SENTENCE, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from forwardscope.errors import UserError
    from forwardscope.integrations.pytest_suites import Case, Suites
    from forwardscope.suite import ProbeResult

__all__: list[str] = []

_MARKER: Final = "forwardscope"
_RESULT: Final = f"{_MARKER}_result"
_SUITES: Final[pytest.StashKey[Suites]] = pytest.StashKey()
_FAILURE: Final = pytest.StashKey[str]()
#: Summaries by suite, and by worker of pytest-xdist.
_SUMMARIES: Final[pytest.StashKey[dict[str, dict[str, list[str]]]]] = pytest.StashKey()


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.stash[_SUMMARIES] = {}
    config.addinivalue_line(
        "markers",
        f"{_MARKER}(suite, probes, adapter, store, trace, result, min_score): run a suite of "
        "forwardscope, and the test once for each of its probes and once for the whole suite.",
    )


@pytest.hookimpl(trylast=True)  # its id follows those of other parameters
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test for each probe of a marked test's suite, and one for the suite."""
    marker = metafunc.definition.get_closest_marker(_MARKER)
    if marker is None:
        return
    from forwardscope.errors import UserError  # noqa: PLC0415 - not at startup
    from forwardscope.integrations.pytest_marker import read_marker  # noqa: PLC0415
    from forwardscope.integrations.pytest_suites import SUITE, Suites  # noqa: PLC0415

    config, definition = metafunc.config, metafunc.definition
    own = [one for one in definition.own_markers if one.name == _MARKER]
    suites = config.stash.setdefault(_SUITES, Suites(config.rootpath))
    try:
        if len(own) > 1:
            raise UserError("a test has one marker forwardscope; write a test for each suite")
        found = read_marker(marker.args, marker.kwargs, definition.path.parent, config.rootpath)
        cases = suites.cases(found)
    except UserError as error:
        lines = [f"{definition.name}: {sentence}" for sentence in _sentences(error)]
        raise pytest.Collector.CollectError("\n".join(lines)) from None
    if _RESULT not in metafunc.fixturenames:
        metafunc.fixturenames.append(_RESULT)
    ids = [case.probe or SUITE for case in cases]
    metafunc.parametrize(_RESULT, cases, indirect=True, ids=ids)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Give a marked test its fixture, which its function need not name."""
    if _has_case(item):
        names: list[str] = item.fixturenames  # type: ignore[attr-defined]
        if _RESULT not in names:  # pytest leaves out what the function does not name
            names.append(_RESULT)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Fail a test on which the marker has no effect."""
    if item.get_closest_marker(_MARKER) is not None and not _has_case(item):
        message = (
            f"the marker {_MARKER} has no effect here: it is for functions, and for methods of "
            "classes that are no unittest.TestCase"
        )
        pytest.fail(message, pytrace=False)


@pytest.fixture
def forwardscope_result(request: pytest.FixtureRequest) -> ProbeResult:
    """The result of the test's probe, as a `forwardscope.suite.ProbeResult`.

    The test of the suite itself has one of the kind `suite`, with the suite's score and counts.
    """
    case = getattr(request, "param", None)
    if case is None:
        pytest.fail(f"{_RESULT} needs @pytest.mark.{_MARKER}(suite=...) on the test", pytrace=False)
    from forwardscope.integrations.pytest_suites import finding  # noqa: PLC0415 - not at startup

    result = _outcome(request.config.stash[_SUITES], case)
    if result.verdict == "skip":
        pytest.skip(f"{shown(result.name)}: {finding(result)}")
    if result.verdict == "error":
        pytest.fail(finding(result), pytrace=False)
    if result.verdict == "fail":
        request.node.stash[_FAILURE] = finding(result)
    return result


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """Fail a test whose probe failed; the body of another test runs."""
    failure = item.stash.get(_FAILURE, None)
    if failure is not None:
        pytest.fail(failure, pytrace=False)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Keep the summaries of the suites that ran here; a worker of pytest-xdist sends them."""
    config = session.config
    suites = config.stash.get(_SUITES, None)
    summaries = [] if suites is None else list(suites.summaries())
    output: dict[str, Any] | None = getattr(config, "workeroutput", None)
    if output is not None:
        output[_MARKER] = summaries
    else:
        _keep(config, "", summaries)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Keep the summaries of a worker of pytest-xdist; one that crashed has none."""
    output = getattr(node, "workeroutput", {})
    _keep(node.config, node.gateway.id, output.get(_MARKER, ()))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print what each suite cost."""
    for name, by_worker in config.stash[_SUMMARIES].items():
        terminalreporter.section(f"forwardscope {name}")
        for worker, lines in sorted(by_worker.items()):
            for line in lines:
                terminalreporter.line(f"{worker}: {line}" if worker else line)
        if len(by_worker) > 1:
            terminalreporter.line(
                f"ran in {len(by_worker)} workers, each with a model of its own; "
                "--dist loadfile runs it in one"
            )


def _keep(config: pytest.Config, worker: str, summaries: Sequence[tuple[str, list[str]]]) -> None:
    for name, lines in summaries:
        kept = config.stash[_SUMMARIES].setdefault(name, {})
        kept[worker] = kept.get(worker, []) + lines


def _has_case(item: pytest.Item) -> bool:
    """Return whether a test has a probe of a suite, or a suite."""
    callspec = getattr(item, "callspec", None)
    return callspec is not None and _RESULT in callspec.params


def _outcome(suites: Suites, case: Case) -> ProbeResult:
    """Return the result of a case; a mistake of the user is an error without a traceback.

    So is the end of the process that a model's code asks for: pytest has no place for one in
    the setup of a test.
    """
    from forwardscope.errors import UserError  # noqa: PLC0415 - not at startup

    try:
        return suites.outcome(case)
    except UserError as error:
        message = "\n".join(_sentences(error))
    except SystemExit as ended:
        message = shown(f"the suite ended with SystemExit: {ended.code}", MAX_SENTENCE)
    pytest.fail(message, pytrace=False)


def _sentences(error: UserError) -> list[str]:
    return [shown(" ".join(sentence.split()), MAX_SENTENCE) for sentence in error.sentences]
