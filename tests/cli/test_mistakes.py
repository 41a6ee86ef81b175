"""A user's mistake is one sentence on stderr and exit status 2, before any model is loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from forwardscope.testing import ScriptedBackend

Invoke = Callable[..., Result]
Loaded = list[ScriptedBackend]


def sentence(ran: Result) -> str:
    """Return the one sentence of a command that was refused."""
    assert (ran.exit_code, ran.stdout) == (2, "")
    (line,) = ran.stderr.splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


def names_in(folder: Path) -> list[str]:
    """Return what is in a folder."""
    return sorted(path.name for path in folder.iterdir())


def test_a_missing_suite(invoke: Invoke, tmp_path: Path, loaded: Loaded) -> None:
    """The file is named, and the command that writes one."""
    said = sentence(invoke("run", tmp_path / "nope.yaml"))
    assert said == (
        f"suite file {tmp_path}/nope.yaml does not exist; "
        "`forwardscope init` writes one to start from"
    )
    assert loaded == []


@pytest.mark.parametrize("option", ["--otlp", "--pushgateway", "--metrics-file"])
def test_an_empty_option(invoke: Invoke, suite_file: Path, loaded: Loaded, option: str) -> None:
    """As a variable of the shell that is not set gives it: the option is named."""
    said = sentence(invoke("run", suite_file, option, ""))
    assert said.startswith(f"{option} '': ")
    assert said.endswith("; leave the option out, or give it a value")
    assert loaded == []


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("adapter:", "adaptor:", ":4: model.adaptor: unknown key; did you mean adapter?"),
        ("delta_kl", "delta_js", ":7: probes[0].kind: unknown probe kind 'delta_js'; known: "),
        ("[a, b]", "[]", ":8: probes[0].prompts: needs at least 1 item; got []"),
        ("0.000001", "'1'", ":9: probes[0].min_mean: must be a valid number; got '1'"),
        ("[b, c]", "[b, c", ": not valid YAML: "),
    ],
    ids=["typo", "unknown kind", "no prompts", "wrong type", "no YAML"],
)
def test_a_bad_suite(
    invoke: Invoke, suite_file: Path, loaded: Loaded, right: str, wrong: str, said: str
) -> None:
    """File, line and key are named, and neither trace nor result is begun."""
    suite_file.write_text(suite_file.read_text().replace(right, wrong, 1))
    trace, result = suite_file.with_name("t.jsonl"), suite_file.with_name("r.json")
    told = sentence(invoke("run", suite_file, "--trace", trace, "--json", result))
    assert told.startswith(str(suite_file))
    assert said in told
    assert names_in(suite_file.parent) == ["suite.yaml"]
    assert loaded == []


@pytest.mark.parametrize("option", ["--trace", "--json"])
@pytest.mark.parametrize(
    "path",
    ["/dev/null/x/out", "folder", "file/out", "/proc/nowhere/out", "o" * 300],
    ids=["below a device", "a folder", "below a file", "nowhere", "too long"],
)
def test_a_file_that_cannot_be_written(
    invoke: Invoke, suite_file: Path, loaded: Loaded, option: str, path: str
) -> None:
    """The path is named before the model is loaded, and nothing is left behind."""
    (suite_file.parent / "folder").mkdir()
    (suite_file.parent / "file").write_text("mine")
    before = names_in(suite_file.parent)
    target = suite_file.parent / path
    said = sentence(invoke("run", suite_file, option, target))
    assert f"cannot be written to {target}: " in said
    assert loaded == []
    assert names_in(suite_file.parent) == before
    assert (suite_file.parent / "file").read_text() == "mine"


def test_the_other_file_is_not_begun(invoke: Invoke, suite_file: Path, loaded: Loaded) -> None:
    """Where one of two files cannot be written, the other is not left behind empty."""
    good = suite_file.with_name("good")
    for options in (("--trace", good, "--json", "/dev/null/x"), ("--json", good, "--trace", "/")):
        sentence(invoke("run", suite_file, *options))
        assert names_in(suite_file.parent) == ["suite.yaml"]
    assert loaded == []


def test_one_file_cannot_be_both(invoke: Invoke, suite_file: Path, loaded: Loaded) -> None:
    """A result that would replace the trace of its own run is refused."""
    both = suite_file.with_name("both")
    assert str(both) in sentence(invoke("run", suite_file, "--trace", both, "--json", both))
    assert loaded == []


@pytest.mark.parametrize(
    "arguments",
    [("run",), ("run", "--bogus", "x"), ("bogus",), ("init", "a", "b"), ("demo", "x")],
    ids=" ".join,
)
def test_unknown_commands_and_options_exit_with_2(
    invoke: Invoke, arguments: tuple[str, ...]
) -> None:
    """The usage is told on stderr, and nothing runs."""
    ran = invoke(*arguments)
    assert (ran.exit_code, ran.stdout) == (2, "")
    assert "Usage: " in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("missing", ["model", "adapter"])
def test_a_model_that_is_not_there(invoke: Invoke, suite_file: Path, missing: str) -> None:
    """The real loader names the path, and the trace that was begun is taken away again."""
    adapter = suite_file.with_name("adapter")
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    (adapter / "adapter_model.safetensors").write_bytes(b"")
    text = suite_file.read_text().replace("some-model", "./nowhere")
    text = text.replace("some-adapter", "adapter" if missing == "model" else "./nowhere")
    suite_file.write_text(text)
    trace = suite_file.with_name("t.jsonl")
    said = sentence(invoke("run", suite_file, "--trace", trace))
    assert said.startswith(f"{missing} ")
    assert "./nowhere" in said
    assert names_in(suite_file.parent) == ["adapter", "suite.yaml"]


@pytest.mark.parametrize("option", ["--json", "--trace"])
def test_the_suite_is_not_overwritten(
    invoke: Invoke, suite_file: Path, loaded: Loaded, option: str
) -> None:
    """An output that is the suite file itself is refused, and the suite is as it was."""
    before = suite_file.read_bytes()
    result = invoke("run", suite_file, option, suite_file)
    assert result.exit_code == 2
    assert "would overwrite the suite" in result.stderr
    assert suite_file.read_bytes() == before
