"""Tiny models with adapters, made on the spot and saved as a user would have them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from forwardscope import BackendInstrumentation
from forwardscope.backends.hf import HFBackend, ModelSource, load_backend
from forwardscope.backends.hf.demo_model import demo_model
from forwardscope.backends.hf.loading import quiet_transformers

_SENTENCES = (
    "the cat sat on the mat and the other cats sat there",
    "hello there world, the weather is together",
)
_CONTEXT = 64

Build = Callable[[Any], PeftModel]


@dataclass(frozen=True)
class Zoo:
    """Folders with tiny models, and with adapters named `<model>_<kind>`.

    Attributes:
        folder: Where they are.
        vocab_size: Tokens that every model knows.
    """

    folder: Path
    vocab_size: int

    def path(self, name: str) -> Path:
        """Where a model or an adapter is saved."""
        return self.folder / name

    def source(self, adapter: str, **options: str) -> ModelSource:
        """An adapter on the model that it was made for."""
        model = adapter.partition("_")[0]
        return ModelSource(str(self.path(model)), str(self.path(adapter)), **options)

    def tokenizer(self) -> Any:
        """The tokenizer of all models."""
        return AutoTokenizer.from_pretrained(self.path("llama"))

    def base(self, model: str, kind: Any = AutoModelForCausalLM) -> Any:
        """A model as transformers loads it, far from any adapter."""
        with quiet_transformers():
            return kind.from_pretrained(self.path(model)).eval()

    def tuned(self, adapter: str, kind: Any = AutoModelForCausalLM) -> Any:
        """A model with its adapter, as PEFT loads it."""
        base = self.base(adapter.partition("_")[0], kind)
        with quiet_transformers():
            return PeftModel.from_pretrained(base, self.path(adapter)).eval()


class Reference:
    """Plain calls of a model: one prompt, no mask, no padding, float64 log-softmax."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._model = model
        self._tokenizer = tokenizer

    def ids(self, text: str) -> list[int]:
        return list(self._tokenizer(text)["input_ids"])

    def logprobs(self, text: str) -> npt.NDArray[np.float64]:
        """Log-probabilities of the token after each position, shape (tokens, vocabulary)."""
        with torch.no_grad():
            logits = self._model(torch.tensor([self.ids(text)])).logits[0]
        return logits.double().log_softmax(-1).numpy()

    def rolling(self, text: str) -> npt.NDArray[np.float64]:
        """Log-probability of each token but the first, given those before it."""
        ids = self.ids(text)
        return self.logprobs(text)[np.arange(len(ids) - 1), ids[1:]]


@pytest.fixture(scope="session", autouse=True)
def _small_and_offline() -> Iterator[None]:
    """No test waits for the hub, nor for threads that models this small have no work for."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def user_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache folder, for the length of a test; the real one is never touched."""
    folder = tmp_path / "user-cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "forwardscope"


@pytest.fixture(scope="session")
def demo_cache(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A user's cache folder for the demo's files, for XDG_CACHE_HOME; one for all processes."""
    folder = tmp_path_factory.getbasetemp()
    shared = (folder if worker_id == "master" else folder.parent) / "demo-cache"
    shared.mkdir(exist_ok=True)
    return shared


@pytest.fixture(scope="session")
def demo_model_folder(demo_cache: Path) -> Path:
    """The demo's model, SmolLM2-135M-Instruct."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(demo_cache))
        return demo_model(lambda *_: None)


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    folder = tmp_path_factory.mktemp("zoo")
    tokenizer = _tokenizer()
    vocab_size = len(tokenizer)
    llama, gpt2 = ["q_proj", "v_proj"], ["c_attn", "c_proj"]
    with quiet_transformers():
        for name, model in (("llama", _llama(vocab_size)), ("gpt2", _gpt2(vocab_size))):
            model.save_pretrained(folder / name)
            tokenizer.save_pretrained(folder / name)
        for name, build in {
            "llama_lora": _lora(llama),
            "llama_other": _lora(llama, seed=7),
            "llama_dora": _lora(llama, use_dora=True),
            "llama_head": _lora(llama, modules_to_save=["lm_head"]),
            "llama_tokens": _lora(llama, trainable_token_indices=[259, 268]),
            "llama_embeddings": _lora([*llama, "embed_tokens", "lm_head"]),
            "llama_bias": _lora(llama, bias="all"),
            "llama_pissa": _lora(llama, init_lora_weights="pissa"),
            "gpt2_lora": _lora(gpt2, fan_in_fan_out=True),
            "gpt2_tokens": _lora(gpt2, fan_in_fan_out=True, trainable_token_indices=[259, 268]),
            "gpt2_tied": _lora(
                gpt2, fan_in_fan_out=True, modules_to_save=["wte"], ensure_weight_tying=True
            ),
        }.items():
            base = _llama(vocab_size) if name.startswith("llama") else _gpt2(vocab_size)
            build(base).save_pretrained(folder / name)
    return Zoo(folder, vocab_size)


@pytest.fixture
def open_backend(zoo: Zoo) -> Iterator[Callable[..., HFBackend]]:
    """Load an adapter of the zoo on its model; what was opened is closed after the test."""
    opened: list[HFBackend] = []

    def load(
        adapter: str = "llama_lora", *, exactness: Any = "fast", **instrumentation: Any
    ) -> HFBackend:
        backend = load_backend(
            zoo.source(adapter),
            exactness=exactness,
            instrumentation=BackendInstrumentation(**instrumentation),
        )
        opened.append(backend)
        return backend

    yield load
    for backend in opened:
        backend.close()


@pytest.fixture
def reference(zoo: Zoo) -> Callable[..., Reference]:
    """Plain calls of an adapter's model: tuned, or the base where that is asked for."""

    def make(adapter: str, *, tuned: bool = True, kind: Any = AutoModelForCausalLM) -> Reference:
        model = zoo.tuned(adapter, kind) if tuned else zoo.base(adapter.partition("_")[0], kind)
        return Reference(model, zoo.tokenizer())

    return make


@pytest.fixture
def copy_of(zoo: Zoo, tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a model's or an adapter's folder, to be damaged."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(zoo.path(name), tmp_path / "copies" / name))

    return copy


def _tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE that merges over the border of prompt and completion."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<pad>", "<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_SENTENCES * 20, trainer)
    special = {"pad_token": "<pad>", "eos_token": "<eos>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def _llama(vocab_size: int) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=_CONTEXT,
            initializer_range=0.3,
            pad_token_id=0,
            bos_token_id=None,
            eos_token_id=1,
        )
    )


def _gpt2(vocab_size: int) -> GPT2LMHeadModel:
    """Its positions are learned, so a wrong one shows in the values."""
    torch.manual_seed(0)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=vocab_size,
            n_positions=_CONTEXT,
            n_embd=32,
            n_layer=2,
            n_head=4,
            initializer_range=0.3,
            bos_token_id=1,
            eos_token_id=1,
        )
    )


def _lora(targets: list[str], *, seed: int = 1, **options: Any) -> Build:
    """Build an adapter all of whose parts differ from the base's."""

    def build(base: Any) -> PeftModel:
        torch.manual_seed(seed)
        config = LoraConfig(
            **{"r": 4, "lora_alpha": 8, "init_lora_weights": False, **options},
            target_modules=targets,
            task_type="CAUSAL_LM",
        )
        model = get_peft_model(base, config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.requires_grad and "lora_A" not in name and "lora_B" not in name:
                    parameter.mul_(1.3).add_(torch.randn(parameter.shape) * 0.05)
        return model

    return build
