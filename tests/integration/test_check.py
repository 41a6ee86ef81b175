"""`forwardscope check`, on adapters as their users have them."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from forwardscope.cli.app import app
from forwardscope.suite import load_suite

from .conftest import Zoo

Check = Callable[..., Result]


@pytest.fixture
def check(user_cache: Path) -> Check:
    """Call `forwardscope check`; its store is in a folder of this test."""

    def call(*arguments: object) -> Result:
        return CliRunner().invoke(app, ["check", *map(str, arguments)])

    return call


def edited(source: Path, folder: Path, name: str, **settings: object) -> Path:
    """Copy a folder, with other settings in a JSON file of it."""
    shutil.copytree(source, folder)
    file = folder / name
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    return folder


@pytest.fixture
def model(zoo: Zoo, tmp_path: Path) -> Path:
    """A model whose context is long enough for a sentence."""
    return edited(zoo.path("llama"), tmp_path / "model", "config.json", max_position_embeddings=512)


@pytest.fixture
def adapter_on(zoo: Zoo, tmp_path: Path) -> Callable[[object], Path]:
    """Return a function that makes an adapter whose config names a base."""

    def make(base: object) -> Path:
        settings = {"base_model_name_or_path": base and str(base)}
        return edited(zoo.path("llama_lora"), tmp_path / "mine", "adapter_config.json", **settings)

    return make


@pytest.fixture
def adapter(adapter_on: Callable[[object], Path], model: Path) -> Path:
    """An adapter whose config names its base's folder."""
    return adapter_on(model)


def test_the_base_is_in_the_adapters_config(check: Check, adapter: Path) -> None:
    """An adapter alone is enough; the last line on stdout is the answer."""
    ran = check(adapter)
    assert ran.exit_code in (0, 1), ran.output
    assert f"{adapter} does " in ran.stdout.splitlines()[-1]
    assert "perplexity ratio" in ran.stdout
    assert "z: distance from random adapters" in ran.stdout
    assert "check" not in ran.stdout.split()


def test_the_next_check_takes_values_from_the_store(
    check: Check, adapter: Path, tmp_path: Path
) -> None:
    """A second check of an adapter computes nothing again but what it verifies."""
    for name in ("first", "second"):
        check(adapter, "--json", tmp_path / name)
    first, second = (json.loads((tmp_path / name).read_text()) for name in ("first", "second"))
    assert first["backend_stats"]["forward_passes"] > 300
    assert second["backend_stats"]["forward_passes"] == 0
    assert [one["raw"] for one in first["probes"]] == [one["raw"] for one in second["probes"]]


def test_what_did_not_go_well(check: Check, adapter: Path, user_cache: Path) -> None:
    """Spans that no server took and damaged values in the store are said, and the answer stays."""
    check(adapter, "-q")
    with closing(sqlite3.connect(user_cache / "store.db")) as store, store:
        store.execute("UPDATE contents SET content = zeroblob(length(content))")
    ran = check(adapter, "--otlp", "http://127.0.0.1:9")
    warnings = [line for line in ran.stdout.splitlines() if line.startswith("warning: ")]
    assert any("store: " in line and "computed again" in line for line in warnings)
    assert any("127.0.0.1:9" in line for line in warnings)
    assert f"{adapter} does " in ran.stdout.splitlines()[-1]


def test_the_saved_suite_is_what_was_run(check: Check, adapter: Path, tmp_path: Path) -> None:
    """The suite can be loaded from any folder, and is not overwritten."""
    suite = tmp_path / "suite.yaml"
    ran = check(adapter, "--save", suite, "--device", "cpu", "--json", tmp_path / "r.json")
    spec = load_suite(suite)
    assert (spec.model.adapter, spec.model.device) == (str(adapter), "cpu")
    result = json.loads((tmp_path / "r.json").read_text())
    assert [probe.name for probe in spec.probes] == [one["name"] for one in result["probes"]]
    assert "forwardscope report" in ran.stdout.splitlines()[-1]
    again = check(adapter, "--save", suite)
    assert (again.exit_code, "exists; choose another name" in again.stderr) == (2, True)


def test_any_name_of_a_folder(check: Check, adapter: Path, tmp_path: Path) -> None:
    """A folder's name can have characters that YAML or JSON escape."""
    named = adapter.rename(tmp_path / "\N{GRINNING FACE} '\"\\ #: $model")
    assert check(named, "--save", tmp_path / "suite.yaml").exit_code in (0, 1)
    assert load_suite(tmp_path / "suite.yaml").model.adapter == str(named)


@pytest.mark.parametrize(
    ("base", "said"),
    [
        (None, "names no base model; add --base MODEL"),
        ("/home/else/model", "was trained on /home/else/model, which is not on this machine"),
    ],
)
def test_a_base_that_is_not_here(
    check: Check,
    adapter_on: Callable[[object], Path],
    model: Path,
    base: str | None,
    said: str,
) -> None:
    """One sentence says what is missing; with --base the adapter is checked."""
    adapter = adapter_on(base)
    ran = check(adapter)
    assert (ran.exit_code, len(ran.stderr.splitlines())) == (2, 1)
    assert said in ran.stderr
    assert check(adapter, "--base", model, "-q").exit_code in (0, 1)


def test_a_whole_model(check: Check, model: Path) -> None:
    """A folder without an adapter is a fully fine-tuned model, which equals its base here."""
    ran = check(model, "--base", model)
    assert ran.exit_code == 1, ran.output
    assert ran.stdout.count("The adapter has no effect") == 1


def test_a_whole_model_of_the_hub(
    check: Check, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hub id of a whole model is one too; this one is in the hub's cache."""
    cached = tmp_path / "models--owner--tuned"
    shutil.copytree(model, cached / "snapshots" / ("c" * 40))
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("c" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    ran = check("owner/tuned", "--base", model)
    assert ran.stdout.count("The adapter has no effect") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("MODEL",), "is a whole model, not an adapter; add --base MODEL, the model before"),
        (("",), "ADAPTER is empty; give a folder or a hub id"),
        (("MODEL", "--base", " "), "--base is empty; give a folder or a hub id"),
    ],
)
def test_paths_that_are_not_given(
    check: Check, model: Path, arguments: tuple[str, ...], said: str
) -> None:
    """A whole model without its base, or a variable of the shell that is not set."""
    ran = check(*(model if one == "MODEL" else one for one in arguments))
    assert (ran.exit_code, len(ran.stderr.splitlines()), said in ran.stderr) == (2, 1, True)


def test_folders_that_cannot_be_read(check: Check, adapter: Path, tmp_path: Path) -> None:
    """One sentence says so of an adapter and of a model; here their files have too long names."""
    folder = tmp_path
    while (left := 4085 - len(str(folder))) > 1:
        folder /= "x" * min(200, left - 1)
    folder.mkdir(parents=True)
    for arguments in ((folder,), (adapter, "--base", folder)):
        ran = check(*arguments)
        assert (ran.exit_code, len(ran.stderr.splitlines())) == (2, 1)
        assert ran.stderr.endswith(" cannot be read: File name too long\n")


def test_prompts_of_ones_own(check: Check, adapter: Path, tmp_path: Path) -> None:
    """They are in the saved suite too; a file that is missing is said before the model loads."""
    (tmp_path / "own.txt").write_text("the cat sat\nhello there\n")
    options = ("--prompts", tmp_path / "own.txt", "--save", tmp_path / "s.yaml")
    assert check(adapter, *options, "--json", tmp_path / "r.json").exit_code in (0, 1)
    assert load_suite(tmp_path / "s.yaml").probes[1].prompts == ("the cat sat", "hello there")
    assert json.loads((tmp_path / "r.json").read_text())["probes"][1]["n"] == 2
    ran = check(adapter, "--prompts", tmp_path / "none.txt")
    assert ran.exit_code == 2
    assert ran.stderr.startswith(f"error: --prompts: {tmp_path}/none.txt cannot be read")


def test_a_chat_model(check: Check, adapter: Path, model: Path, tmp_path: Path) -> None:
    """With --chat the template renders each prompt; a model without one is told so."""
    ran = check(adapter, "--chat")
    assert (ran.exit_code, "chat template" in ran.stdout) == (1, True)
    (model / "chat_template.jinja").write_text(
        "{% for message in messages %}<pad>{{ message.content }}{% endfor %}"
    )
    results = [tmp_path / "plain.json", tmp_path / "chat.json"]
    check(adapter, "--json", results[0])
    assert check(adapter, "--chat", "--json", results[1]).exit_code in (0, 1)
    plain, chat = (json.loads(result.read_text())["probes"] for result in results)
    assert plain[1]["raw"] != chat[1]["raw"]
    assert plain[2]["raw"] == chat[2]["raw"]  # texts are never chats


@pytest.mark.parametrize("adapter", ["nowhere", "/nowhere", "a\0b", "~nobody/x", ""])
def test_an_adapter_that_does_not_exist(check: Check, adapter: str) -> None:
    """One sentence, and exit status 2."""
    ran = check(adapter, "--base", adapter)
    assert (ran.exit_code, len(ran.stderr.splitlines())) == (2, 1)
    assert ran.stderr.startswith("error: ")


def test_what_is_no_adapter(check: Check, adapter: Path, model: Path) -> None:
    """A file of an adapter and a whole model without its base have their own sentences."""
    ran = check(adapter / "adapter_model.safetensors")
    assert ran.exit_code == 2
    assert f"is a file, and a folder is expected; give {adapter}" in ran.stderr
    ran = check(model)
    assert ran.exit_code == 2
    assert f"{model} is a whole model, not an adapter; add --base MODEL" in ran.stderr
