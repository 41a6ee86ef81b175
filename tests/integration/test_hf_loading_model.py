"""A model that cannot be had is one clear sentence, whatever is wrong with it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from forwardscope.backends.hf import ModelSource, load_backend
from forwardscope.errors import ModelError

Copy = Callable[[str], Path]


def _message(source: ModelSource) -> str:
    """What is said of a model that cannot be loaded: one line, with the cause kept for a log."""
    with pytest.raises(ModelError) as raised:
        load_backend(source)
    message = str(raised.value)
    assert message.strip()
    assert "\n" not in message
    return message


@pytest.fixture
def with_model(zoo: Any) -> Callable[..., ModelSource]:
    """A sound adapter, and a model to be found wanting."""

    def source(path: Path | str, **options: str) -> ModelSource:
        return replace(zoo.source("llama_lora"), path=str(path), **options)

    return source


Source = Callable[..., ModelSource]


def test_local_folder_loads(zoo: Any) -> None:
    """A folder of a model and one of an adapter give a backend that answers."""
    backend = load_backend(zoo.source("llama_lora"))
    with backend.as_finetuned() as view:
        assert view.next_token_dist("the cat", top_k=3).vocab_size == zoo.vocab_size


def test_loading_reports_its_steps(zoo: Any) -> None:
    """Each step is named when it begins, in the order of the work."""
    steps: list[tuple[str, int, int]] = []
    load_backend(zoo.source("llama_lora"), report=lambda *step: steps.append(step)).close()
    assert steps == [
        ("loading torch", 0, 0),
        ("loading the model", 0, 0),
        ("attaching the adapter", 0, 0),
        ("checking the model", 0, 0),
    ]


def test_home_is_expanded(zoo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path may begin with the user's home."""
    monkeypatch.setenv("HOME", str(zoo.folder))
    load_backend(ModelSource("~/llama", "~/llama_lora")).close()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "auto"])
def test_dtype_is_as_asked(zoo: Any, dtype: str) -> None:
    """The weights are held in the dtype asked for; on the CPU `auto` is float32."""
    backend = load_backend(zoo.source("llama_lora", dtype=dtype, device="cpu"))
    expected = torch.float32 if dtype == "auto" else getattr(torch, dtype)
    assert backend.dtype == str(expected).removeprefix("torch.")
    with backend.as_finetuned() as view:
        assert view.next_token_dist("the cat").logprobs.dtype == "float32"


def test_missing_folder(with_model: Source, tmp_path: Path) -> None:
    """A path that is not there is named."""
    missing = tmp_path / "missing"
    assert f"model path {missing} is not a folder" in _message(with_model(missing))


def test_url_for_a_folder(with_model: Source) -> None:
    """The key of a server's URL is named."""
    said = _message(with_model("http://127.0.0.1:8000/v1"))
    assert "the model of a server is model.server" in said


def test_file_for_a_folder(with_model: Source, zoo: Any) -> None:
    """A file where a folder belongs is named, with what would do."""
    path = zoo.path("llama") / "model.safetensors"
    assert "give a folder, a .gguf file or a hub id" in _message(with_model(path))


def test_folder_without_a_model(with_model: Source, tmp_path: Path) -> None:
    """A folder without a config.json is no model."""
    assert "has no config.json" in _message(with_model(tmp_path))


@pytest.mark.parametrize("name", ["x" * 5000, "~nobody-of-that-name/model", "/model\0"])
def test_path_that_no_file_system_takes(with_model: Source, name: str) -> None:
    """A path too long, of an unknown user or with a NUL is said to be wrong, and not at length."""
    assert len(_message(with_model(name))) < 600


@pytest.mark.parametrize("config", ["", "{", "[]", '"text"', "null", "{}", '{"model_type": "no"}'])
def test_malformed_config(with_model: Source, copy_of: Copy, config: str) -> None:
    """A config that is no JSON, or none of a model, is named by its folder."""
    folder = copy_of("llama")
    (folder / "config.json").write_text(config)
    assert f"model {folder} cannot be " in _message(with_model(folder))


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_missing_file(with_model: Source, copy_of: Copy, name: str) -> None:
    """A model folder without weights, or without a tokenizer, is named."""
    folder = copy_of("llama")
    (folder / name).unlink()
    assert f"model {folder} cannot be loaded" in _message(with_model(folder))


@pytest.mark.parametrize("keep", [0, 7, 100, 0.5])
def test_truncated_weights(with_model: Source, copy_of: Copy, keep: float) -> None:
    """Weights that end early, as after a full disk, are named by their folder."""
    folder = copy_of("llama")
    weights = folder / "model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[: int(keep * len(data)) if keep < 1 else int(keep)])
    assert f"model {folder} cannot be loaded" in _message(with_model(folder))


def test_weights_in_pickle_are_not_read(with_model: Source, copy_of: Copy) -> None:
    """A model that has its weights in a pickle alone is refused, sound as they may be."""
    folder = copy_of("llama")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    message = _message(with_model(folder))
    assert f"model {folder} cannot be loaded: its weights in pytorch_model.bin" in message
    assert "save it again with save_pretrained()" in message


def _change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("name", ["lm_head.weight", "model.layers.1.mlp.up_proj.weight"])
def test_missing_weights(with_model: Source, copy_of: Copy, name: str) -> None:
    """A checkpoint without a weight, which would be random, is refused with its name."""
    folder = copy_of("llama")
    _change_weights(folder, lambda tensors: tensors.pop(name))
    message = _message(with_model(folder))
    assert f"lacks 1 of its weights ({name})" in message
    assert "Save it again as LlamaForCausalLM" in message


def test_weights_of_another_class(with_model: Source, copy_of: Copy) -> None:
    """A classifier's checkpoint is refused with the weights that are missing and unexpected."""
    folder = copy_of("llama")
    _change_weights(
        folder, lambda tensors: tensors.update({"score.weight": tensors.pop("lm_head.weight")})
    )
    message = _message(with_model(folder))
    assert "(lm_head.weight), and has 1 other (score.weight)" in message


@pytest.mark.parametrize(
    "name", ["model.layers.2.mlp.up_proj.weight", "model.layers.0.self_attn.q_proj.bias"]
)
def test_weights_that_the_config_leaves_out(with_model: Source, copy_of: Copy, name: str) -> None:
    """A checkpoint with more layers or parts of layers than its config has is refused."""
    folder = copy_of("llama")
    _change_weights(folder, lambda tensors: tensors.update({name: torch.zeros(32)}))
    message = _message(with_model(folder))
    assert f"has 1 weight in its layers that LlamaForCausalLM does not have ({name})" in message


@pytest.mark.parametrize(
    "name", ["self_attn.bias", "self_attn.masked_bias", "self_attn.rotary_emb.inv_freq"]
)
def test_constants_of_older_releases(
    with_model: Source, copy_of: Copy, zoo: Any, name: str
) -> None:
    """A mask or frequencies that were saved with the weights are a warning."""
    folder = copy_of("llama")
    weights = load_file(folder / "model.safetensors")
    key = f"model.layers.0.{name}"
    save_file({**weights, key: torch.zeros(3)}, folder / "model.safetensors", {"format": "pt"})
    warnings = load_backend(with_model(folder)).warnings
    assert all(key in warning for warning in warnings)


def test_weights_of_another_part(with_model: Source, copy_of: Copy) -> None:
    """Weights beside the text model, such as a classifier's head, are a warning."""
    folder = copy_of("llama")
    _change_weights(folder, lambda tensors: tensors.update({"score.weight": torch.zeros(32)}))
    [warning] = load_backend(with_model(folder)).warnings
    assert warning == (f"LlamaForCausalLM does not use 1 weight of model {folder}: score.weight")


def test_tied_weights_are_not_missing(zoo: Any) -> None:
    """A model that ties its output layer to its embeddings loads without a warning."""
    assert "lm_head.weight" not in load_file(zoo.path("gpt2") / "model.safetensors")
    assert load_backend(zoo.source("gpt2_lora")).warnings == []


def test_adapter_as_model(with_model: Source, zoo: Any) -> None:
    """An adapter's folder in place of a model's is refused with how to merge it."""
    message = _message(with_model(zoo.path("llama_lora")))
    assert "it is an adapter; merge it into its base with merge_and_unload()" in message


def test_model_with_an_adapter_in_its_folder(with_model: Source, zoo: Any, copy_of: Copy) -> None:
    """A folder whose adapter transformers would load into the base is refused."""
    folder = copy_of("llama")
    for file in zoo.path("llama_lora").glob("adapter_*"):
        shutil.copy(file, folder)
    assert "has an adapter in its folder" in _message(with_model(folder))


def test_code_of_the_repository_is_not_run(
    with_model: Source, copy_of: Copy, tmp_path: Path
) -> None:
    """A model that brings its own code is refused, and the code not run."""
    folder, marker = copy_of("llama"), tmp_path / "ran"
    config = json.loads((folder / "config.json").read_text())
    config["model_type"] = "own"
    config["auto_map"] = {
        "AutoConfig": "own.OwnConfig",
        "AutoModelForCausalLM": "own.OwnModel",
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(f"open({str(marker)!r}, 'w')\n")
    assert f"model {folder} cannot be loaded" in _message(with_model(folder))
    assert not marker.exists()


def test_missing_gguf(with_model: Source, tmp_path: Path) -> None:
    """A GGUF file that is not there is named."""
    missing = tmp_path / "model.gguf"
    assert _message(with_model(missing)) == f"model file {missing} does not exist"


@pytest.mark.parametrize("data", [b"", b"GGUF", b"GGUF\3\0\0\0" + b"\xff" * 16, b"no model" * 99])
def test_malformed_gguf(with_model: Source, tmp_path: Path, data: bytes) -> None:
    """A GGUF file that is cut off, or is something else, is named."""
    path = tmp_path / "model.gguf"
    path.write_bytes(data)
    assert f"model {path} cannot be loaded" in _message(with_model(path))


def test_hub_id_that_cannot_be_fetched(with_model: Source) -> None:
    """A hub id out of reach is named (the hub is off in these tests)."""
    name = "forwardscope-tests/no-such-model"
    assert f"model {name} is neither a folder nor in the hub's cache" in _message(with_model(name))


def test_device_without_values(zoo: Any) -> None:
    """The device `meta`, which holds no numbers, is refused."""
    assert "device 'meta' computes nothing" in _message(zoo.source("llama_lora", device="meta"))


def test_unknown_dtype(zoo: Any) -> None:
    """A dtype that is none is refused with those that are."""
    message = _message(zoo.source("llama_lora", dtype="int3"))
    assert message == "dtype 'int3' is unknown; use auto or one of float32, float16, bfloat16"


def test_unknown_device(zoo: Any) -> None:
    """A device that is none is named."""
    assert "device 'toaster' is unknown to torch" in _message(
        zoo.source("llama_lora", device="toaster")
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="the device must be missing")
def test_missing_device(zoo: Any) -> None:
    """A device that this machine lacks is named."""
    assert "cannot be moved to device cuda" in _message(zoo.source("llama_lora", device="cuda"))
