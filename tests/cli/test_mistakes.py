"""User errors: one line on stderr and exit status 2, before a model is loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from forwardscope.cli.app import app
from forwardscope.testing import ScriptedBackend

Invoke = Callable[..., Result]
ErrorOf = Callable[..., str]
Loaded = list[ScriptedBackend]


def names_in(folder: Path) -> list[str]:
    """Return the names of the files in a folder."""
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("option", ["--otlp", "--pushgateway", "--metrics-file"])
def test_an_empty_option(error_of: ErrorOf, suite_file: Path, loaded: Loaded, option: str) -> None:
    """An unset shell variable gives an empty value; the message names the option."""
    error = error_of("run", suite_file, option, "")
    assert error.startswith(f"{option} '': ")
    assert error.endswith("; leave the option out, or give it a value")
    assert loaded == []


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("adapter:", "adaptor:", ":4: model.adaptor: unknown key; did you mean adapter?"),
        ("delta_kl", "delta_js", ":7: probes[0].kind: unknown probe kind 'delta_js'; did you"),
        ("[a, b]", "[]", ":8: probes[0].prompts: needs at least 1 item; got []"),
        ("0.000001", "'1'", ":9: probes[0].min_mean: must be a valid number; got '1'"),
        ("[b, c]", "[b, c", ": [ is not closed; add ], or a comma"),
    ],
    ids=["typo", "unknown kind", "no prompts", "wrong type", "no YAML"],
)
def test_a_bad_suite(
    error_of: ErrorOf, suite_file: Path, loaded: Loaded, right: str, wrong: str, message: str
) -> None:
    """The message names file, line and key; neither trace nor result is created."""
    suite_file.write_text(suite_file.read_text().replace(right, wrong, 1))
    trace, result = suite_file.with_name("t.jsonl"), suite_file.with_name("r.json")
    error = error_of("run", suite_file, "--trace", trace, "--json", result)
    assert error.startswith(str(suite_file))
    assert message in error
    assert names_in(suite_file.parent) == ["suite.yaml"]
    assert loaded == []


def test_all_mistakes_of_a_suite(invoke: Invoke, suite_file: Path, loaded: Loaded) -> None:
    """Each is a line on stderr."""
    text = suite_file.read_text().replace("adapter:", "adaptor:").replace("[a, b]", "[]")
    suite_file.write_text(text)
    ran = invoke("run", suite_file)
    assert (ran.exit_code, ran.stdout, loaded) == (2, "", [])
    assert [line.partition(": ")[0] for line in ran.stderr.splitlines()] == ["error", "error"]


@pytest.mark.parametrize("option", ["--trace", "--json"])
@pytest.mark.parametrize(
    "path",
    ["/dev/null/x/out", "folder", "file/out", "/proc/nowhere/out", "o" * 300],
    ids=["below a device", "a folder", "below a file", "nowhere", "too long"],
)
def test_a_file_that_cannot_be_written(
    error_of: ErrorOf, suite_file: Path, loaded: Loaded, option: str, path: str
) -> None:
    """The message names the path, and no file remains."""
    (suite_file.parent / "folder").mkdir()
    (suite_file.parent / "file").write_text("mine")
    before = names_in(suite_file.parent)
    target = suite_file.parent / path
    error = error_of("run", suite_file, option, target)
    assert f"cannot be written to {target}: " in error
    assert loaded == []
    assert names_in(suite_file.parent) == before
    assert (suite_file.parent / "file").read_text() == "mine"


def test_the_other_output_file_is_not_created(
    error_of: ErrorOf, suite_file: Path, loaded: Loaded
) -> None:
    """If one of two files cannot be written, the other does not remain empty."""
    good = suite_file.with_name("good")
    for options in (("--trace", good, "--json", "/dev/null/x"), ("--json", good, "--trace", "/")):
        error_of("run", suite_file, *options)
        assert names_in(suite_file.parent) == ["suite.yaml"]
    assert loaded == []


def test_one_file_for_trace_and_result(error_of: ErrorOf, suite_file: Path, loaded: Loaded) -> None:
    """The result would replace the trace."""
    both = suite_file.with_name("both")
    assert str(both) in error_of("run", suite_file, "--trace", both, "--json", both)
    assert loaded == []


@pytest.mark.parametrize(
    "arguments",
    [("run",), ("run", "--bogus", "x"), ("bogus",), ("init", "a", "b"), ("demo", "x")],
    ids=" ".join,
)
def test_unknown_commands_and_options_exit_with_2(
    invoke: Invoke, arguments: tuple[str, ...]
) -> None:
    """The usage is printed on stderr."""
    ran = invoke(*arguments)
    assert (ran.exit_code, ran.stdout) == (2, "")
    assert "Usage: " in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("missing", ["model", "adapter"])
def test_a_missing_model(error_of: ErrorOf, suite_file: Path, missing: str) -> None:
    """The real loader names the path, and the new trace file is removed."""
    adapter = suite_file.with_name("adapter")
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    (adapter / "adapter_model.safetensors").write_bytes(b"")
    text = suite_file.read_text().replace("some-model", "./nowhere")
    text = text.replace("some-adapter", "adapter" if missing == "model" else "./nowhere")
    suite_file.write_text(text)
    trace = suite_file.with_name("t.jsonl")
    error = error_of("run", suite_file, "--trace", trace)
    assert error.startswith(f"{missing} ")
    assert "./nowhere" in error
    assert names_in(suite_file.parent) == ["adapter", "suite.yaml"]


@pytest.mark.parametrize("option", ["--json", "--trace"])
def test_the_suite_is_not_overwritten(
    error_of: ErrorOf, suite_file: Path, loaded: Loaded, option: str
) -> None:
    """An output file that is the suite file is refused."""
    before = suite_file.read_bytes()
    assert "over the input" in error_of("run", suite_file, option, suite_file)
    assert suite_file.read_bytes() == before


@pytest.mark.parametrize("path", ["x" * 5000, "a/" * 3000], ids=["long", "deep"])
@pytest.mark.parametrize(
    "command",
    [
        "run PATH",
        "plan PATH",
        "report PATH",
        "gate PATH PATH",
        "trace summary PATH",
        "trace curve PATH",
        "trace why PATH --miss 1",
        "trace export PATH --otlp http://127.0.0.1:1",
        "init PATH",
        "dashboards check PATH",
        "dashboards export PATH",
    ],
)
def test_a_path_that_no_file_can_have(error_of: ErrorOf, command: str, path: str) -> None:
    """It is one sentence, and a long path is shown in part."""
    error = error_of(*(path if word == "PATH" else word for word in command.split()))
    assert "…" in error
    assert len(error) < 2200


@pytest.mark.parametrize(
    "command",
    [
        "run r.json",
        "plan t.jsonl",
        "report s.yaml",
        "report t.jsonl",
        "gate s.yaml s.yaml",
        "trace summary s.yaml",
        "trace curve r.json",
        "trace summary folder",
        "report folder",
        "run folder",
        "gate . .",
        "report r.json --trace folder -o o.html",
    ],
)
def test_one_kind_of_file_in_place_of_another(
    invoke: Invoke,
    error_of: ErrorOf,
    suite_file: Path,
    loaded: Loaded,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    """The message names the file, and nothing is written."""
    monkeypatch.chdir(suite_file.parent)
    Path("folder").mkdir()
    suite_file.rename("s.yaml")
    invoke("run", "s.yaml", "--json", "r.json", "--trace", "t.jsonl")
    before = names_in(Path())
    assert any(name in error_of(*command.split()) for name in command.split())
    assert names_in(Path()) == before


@pytest.mark.parametrize("address", ["a\0b", " ", "a b", "x" * 5000, "256.1.1.1", "ü.." * 30])
def test_an_address_that_is_none(
    error_of: ErrorOf, suite_file: Path, loaded: Loaded, address: str
) -> None:
    """The message names the option."""
    options = ("--metrics-port", 0, "--metrics-address", address)
    error = error_of("run", suite_file, *options)
    assert error.startswith("metrics cannot be served on ")
    assert error.endswith("choose another --metrics-address, an address of this machine")
    assert loaded == []


def test_outputs_that_are_a_loop_of_links(
    error_of: ErrorOf, suite_file: Path, loaded: Loaded
) -> None:
    """They are refused."""
    first, second = suite_file.with_name("first"), suite_file.with_name("second")
    first.symlink_to(second)
    second.symlink_to(first)
    error_of("run", suite_file, "--json", first, "--trace", second)


@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_suite_from_standard_input(
    suite_file: Path, loaded: Loaded, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is `-`."""
    monkeypatch.delenv("FORWARDSCOPE_STORE", raising=False)
    ran = CliRunner().invoke(app, [command, "-"], input=suite_file.read_text())
    assert ran.exit_code == 0
    assert "second" in ran.stdout
