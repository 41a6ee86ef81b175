"""The section `model` of a suite for a model that a server holds."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from forwardscope.backends.dry_run import dry_run_backend
from forwardscope.errors import SpecError, UserError
from forwardscope.suite import SuiteSpec, load_suite, plan_suite
from forwardscope.suite.loading import parse_suite
from forwardscope.suite.schema import suite_schema
from forwardscope.suite.selection import local_model, replace_adapter
from forwardscope.suite.spec import ServedModelSpec

SUITE = """version: 1
model:
  server: http://127.0.0.1:8000/v1
  name: base
  adapter: ft
probes:
  - {name: change, kind: delta_kl, prompts: [a]}
  - {name: response, kind: adapter_ablation, prompts: [a]}
"""


def _parsed(text: str = SUITE) -> tuple[SuiteSpec, ServedModelSpec]:
    spec = parse_suite(text, "suite.yaml")
    assert isinstance(spec.model, ServedModelSpec)
    return spec, spec.model


def test_defaults() -> None:
    """Three keys are enough; the names are those of the server."""
    _, model = _parsed()
    assert (model.label, model.adapter_label) == ("base", "ft")
    assert (model.revision, model.adapter_dir, model.tokenizer) == (None, None, None)
    assert (model.timeout, model.concurrency) == (300.0, 4)


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("http://127", "127", "3: model.server: must be the URL of a server"),
        ("http://", "http://user:secret@", "3: model.server: must have no user and no password"),
        ("/v1", "/v1?key=secret", "3: model.server: must have no ? and no #"),
        ("name: base", "nme: base", "4: model.nme: unknown key; did you mean name?"),
        ("  name: base\n", "", "2: model.name: missing; add this key"),
        ("  adapter: ft\n", "", "2: model.adapter: missing; add this key"),
        ("name: base", "name: 3", "4: model.name: must be a valid string; got 3; put it in quotes"),
        (
            "name: base",
            "name: base\n  path: m",
            "5: model.path: unknown key here; it is for a model that this process loads",
        ),
        (
            "name: base",
            "name: base\n  device: cpu",
            "5: model.device: unknown key here; it is for a model that this process loads",
        ),
        ("adapter: ft", "adapter: ft\n  timeout: 0", "6: model.timeout: must be greater than 0"),
        ("adapter: ft", "adapter: ft\n  concurrency: 99", "6: model.concurrency: must be less"),
        ("probes:", "exactness: strict\nprobes:", "6: exactness: a server decides which prompts"),
        ("adapter: ft", "adapter: base", "2: model: has the same name and adapter"),
        ("  server: http://127.0.0.1:8000/v1\n", "", "2: model.path: missing; add this key"),
        ("server: http", "servr: http", "3: model.servr: unknown key; did you mean server?"),
    ],
)
def test_mistakes(right: str, wrong: str, message: str) -> None:
    """Each has its line and the fix, and none quotes a secret."""
    with pytest.raises(SpecError) as refused:
        parse_suite(SUITE.replace(right, wrong, 1), "suite.yaml")
    expected = f"suite.yaml:{message}"
    assert any(one.startswith(expected) for one in refused.value.sentences)
    assert "secret" not in str(refused.value)


def test_keys_of_a_server_without_one() -> None:
    """The error says whose key it is."""
    text = SUITE.replace("server: http://127.0.0.1:8000/v1", "path: m\n  tokenizer: t")
    with pytest.raises(SpecError, match="unknown key here; it is for a model of a server"):
        parse_suite(text, "suite.yaml")


def test_key_of_the_model_at_the_wrong_place() -> None:
    """The error names the section."""
    with pytest.raises(SpecError, match="server: unknown key; it belongs to model"):
        parse_suite(f"{SUITE}server: x\n", "suite.yaml")


def test_paths_start_at_the_file(tmp_path: Path) -> None:
    """Folders that exist beside the suite become absolute; names of the server stay."""
    for name in ("base", "ft", "files", "tokens"):
        (tmp_path / name).mkdir()
    more = "ft\n  adapter_dir: files\n  tokenizer: tokens\n  adapter_scratch: elsewhere\n"
    (tmp_path / "suite.yaml").write_text(SUITE.replace("ft\n", more, 1))
    model = load_suite(tmp_path / "suite.yaml").model
    assert isinstance(model, ServedModelSpec)
    assert (model.name, model.adapter) == ("base", "ft")
    assert (model.adapter_dir, model.tokenizer) == (
        str(tmp_path / "files"),
        str(tmp_path / "tokens"),
    )
    assert model.adapter_scratch == "elsewhere"


def test_folders_that_the_server_sees_stay_links(tmp_path: Path) -> None:
    """A server in a container may see the link alone."""
    (tmp_path / "disk" / "files").mkdir(parents=True)
    (tmp_path / "models").symlink_to(tmp_path / "disk")
    folder = tmp_path / "models" / "files"
    more = f"ft\n  adapter_dir: models/files\n  adapter_scratch: {folder}\n"
    (tmp_path / "suite.yaml").write_text(SUITE.replace("ft\n", more, 1))
    model = load_suite(tmp_path / "suite.yaml").model
    assert isinstance(model, ServedModelSpec)
    assert (model.adapter_dir, model.adapter_scratch) == (str(folder), str(folder))


def test_schema() -> None:
    """Editors accept a served model, and none with keys of the other kind."""
    schema, content = suite_schema(), yaml.safe_load(SUITE)
    jsonschema.validate(content, json.loads(json.dumps(schema)))
    content["model"]["device"] = "cpu"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content, schema)


def test_plan() -> None:
    """Without the adapter's files there are no scaled views, also before the server is asked."""
    spec, _ = _parsed()
    assert plan_suite(spec).forward_passes == 4
    with_files, _ = _parsed(SUITE.replace("ft\n", "ft\n  adapter_dir: files\n", 1))
    assert plan_suite(with_files).forward_passes == 4 + 4
    assert plan_suite(spec, dry_run_backend(None)).forward_passes == 4 + 4


def test_another_adapter() -> None:
    """It is another name of the server, unless the suite has the files of the adapter."""
    spec, _ = _parsed()
    assert replace_adapter(spec, "other").model.adapter_label == "other"
    with_files, _ = _parsed(SUITE.replace("ft\n", "ft\n  adapter_dir: files\n", 1))
    with pytest.raises(UserError, match=r"--adapter: .*model\.adapter_dir"):
        replace_adapter(with_files, "other")


def test_no_sweep() -> None:
    """A sweep loads adapters itself; the error says what to run instead."""
    spec, _ = _parsed()
    with pytest.raises(UserError, match="forwardscope run --adapter NAME"):
        local_model(spec)
