"""The content of modules: what is in their identity, and what has none."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import partial, wraps
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from forwardscope.integrations.torch_module import calls_of, instrument
from forwardscope.integrations.torch_module_content import UnknownContentError
from forwardscope.integrations.torch_module_identity import ModuleIdentity

_SOURCE = """
from torch import nn

class Net(nn.Module):
    def factor(self):
        return 2

    def forward(self, x):
        return x * self.factor()
"""
_TYPED_IN = """
class Typed(Net):
    def factor(self):
        return {factor}
"""


class Holder(nn.Module):
    """Has one attribute."""

    def __init__(self, held: Any) -> None:
        super().__init__()
        self.held = held


@dataclass
class Settings:
    """A configuration."""

    eps: float
    parent: Any = None


def double(x: Any) -> Any:
    return x * 2


def triple(x: Any) -> Any:
    return x * 3


def _decorated() -> Any:
    factor = 2

    @wraps(double)
    def wrapper(x: Any) -> Any:
        return double(x) * factor

    return wrapper


def _identity(module: nn.Module) -> str:
    return ModuleIdentity(module, None).of(module)


def _looped() -> Settings:
    settings = Settings(1.0)
    settings.parent = settings
    return settings


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 2),
        (0.0, -0.0),
        ("a", "b"),
        ({"a": 1}, {"a": 2}),
        ({1, 2}, {1, 3}),
        (Settings(1e-5), Settings(1e-6)),
        (double, triple),
        (torch.relu, torch.tanh),
        (nn.ReLU, nn.Tanh),
        (torch.ones(2), torch.zeros(2)),
        (torch.float32, torch.float64),
        (_looped(), Settings(1.0)),
    ],
)
def test_attributes_are_in_the_identity(one: Any, other: Any) -> None:
    """Numbers, texts, configurations, functions and tensors are, each by its content."""
    assert _identity(Holder(one)) == _identity(Holder(one))
    assert _identity(Holder(one)) != _identity(Holder(other))


@pytest.mark.parametrize(
    "held",
    [
        *(lambda x: x, _decorated(), partial(double, 1), object()),
        *(nn.Linear(1, 1).forward, [nn.ReLU()], iter([1])),
    ],
    ids=["lambda", "decorated", "partial", "object", "method", "hidden module", "iterator"],
)
def test_a_module_with_unknown_attributes_has_no_identity(held: Any) -> None:
    """Its calls bypass the cache."""
    with pytest.raises(UnknownContentError, match="has no known content"):
        _identity(Holder(held))


def test_a_method_of_the_module_itself_is_in_the_identity() -> None:
    """As some wrappers keep one of what they wrap."""
    module = Holder(None)
    module.held = module.extra_repr
    assert _identity(module)
    module.held = module.get_submodule
    assert _identity(module) != _identity(Holder(None))


def test_instrumented_parts_have_the_identity_of_plain_ones() -> None:
    """Whether a module is instrumented changes nothing of what it computes."""
    module = nn.Sequential(Holder(1))
    before = _identity(module)
    instrument(module[0])
    assert _identity(instrument(module)) == before


def test_weights_made_in_inference_mode_have_no_identity() -> None:
    """Torch does not count their changes."""
    with torch.inference_mode():
        module = nn.Linear(2, 2)
    for text, reason in (("1", "not those"), (None, "made in inference mode")):
        with pytest.raises(UnknownContentError, match=reason):
            ModuleIdentity(module, text).of(module)


def _load(path: Path, source: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    path.write_text(source)
    spec = importlib.util.spec_from_file_location("net_of_a_test", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, spec.name, module)
    return module


def test_the_source_of_a_class_is_in_the_identity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a class that was edited and loaded again, nothing is found."""
    identities = []
    for source in (_SOURCE, _SOURCE.replace("2", "3")):
        module = _load(tmp_path / "net.py", source, monkeypatch)
        identities.append(_identity(module.Net()))
    assert identities[0] != identities[1]
    for factor in (2, 3):  # as at the prompt of `python -i`
        exec(_TYPED_IN.format(factor=factor), vars(module))  # noqa: S102
        identities.append(_identity(module.Typed()))
    assert identities[2] != identities[3]


def test_a_class_without_a_file_is_no_other_class() -> None:
    """As one that a notebook defines again with the same name."""
    modules = []
    for _ in range(2):
        names: dict[str, Any] = {"__name__": "notebook"}
        exec(_SOURCE, names)  # noqa: S102 - as a notebook does
        modules.append(names["Net"]())
    assert _identity(modules[0]) == _identity(modules[0])
    assert _identity(modules[0]) != _identity(modules[1])


_LLAMA = """
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from forwardscope.integrations.torch_module_identity import ModuleIdentity

torch.manual_seed(0)
model = LlamaForCausalLM(LlamaConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=1,
    num_attention_heads=2, num_key_value_heads=2, vocab_size=32)).eval()
identity = ModuleIdentity(model, None).of(model)
"""


def test_processes_agree_on_the_identity_of_a_model() -> None:
    """Whatever seed Python has for its hashes."""
    names: dict[str, Any] = {}
    exec(_LLAMA, names)  # noqa: S102 - what the other process does too
    ran = subprocess.run(
        [sys.executable, "-c", f"{_LLAMA}print(identity)"],
        env={**os.environ, "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.strip() == names["identity"]


@torch.no_grad()
def test_a_peft_adapter_that_is_switched_off_is_another_identity() -> None:
    """Base, adapter and another scaling never answer for each other."""
    torch.manual_seed(0)
    config = LoraConfig(target_modules=["0"], init_lora_weights=False)
    net = get_peft_model(nn.Sequential(nn.Linear(4, 4)), config).eval()
    x = torch.ones(1, 4)
    instrument(net, identity="content", cache=True)
    tuned = net(x)
    with net.disable_adapter():
        base, again = net(x), net(x)
    net.base_model.model[0].scaling["default"] = 0.5
    scaled = net(x)
    net.base_model.model[0].scaling["default"] = 1.0
    assert torch.equal(net(x), tuned)
    assert torch.equal(base, again)
    assert len({tuple(one.flatten().tolist()) for one in (tuned, base, scaled)}) == 3
    stats = calls_of(net).instrumentation.stats
    assert (stats.cache_hits, stats.forward_passes) == (2, 3)
    assert calls_of(net).bypasses == {}


def test_a_forward_that_was_replaced_is_another_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    """As libraries do that bring faster kernels; one typed in is known to this process alone."""
    before = _identity(Holder(None))
    monkeypatch.setattr(Holder, "forward", double, raising=False)
    replaced = _identity(Holder(None))
    monkeypatch.setattr(Holder, "forward", lambda self, x: x)
    assert before != replaced
    with pytest.raises(UnknownContentError):
        _identity(Holder(None))


class _Box(dict[str, float]):
    """A dict that looks like a configuration."""

    def to_dict(self) -> dict[str, float]:
        return dict(self)


class _Boxed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.config = _Box(scale=2.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._shifted(x * self.config["scale"])

    def _shifted(self, x: torch.Tensor) -> torch.Tensor:
        return x


def test_a_dict_with_the_methods_of_a_configuration_has_no_known_content() -> None:
    """Its attributes are not what it holds."""
    with pytest.raises(UnknownContentError, match="_Box"):
        ModuleIdentity(_Boxed(), None).of(_Boxed())


def test_a_method_that_was_replaced_is_another_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that the forward calls."""
    module = _Boxed()
    module.config = None  # type: ignore[assignment]
    before = ModuleIdentity(module, None).of(module)
    monkeypatch.setattr(_Boxed, "_shifted", lambda _, x: x + 1)
    assert ModuleIdentity(module, None).of(module) != before


def test_a_forward_that_a_program_wraps_has_no_known_content(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`functools.wraps` hides what the wrapper does."""
    module, original = _Boxed(), _Boxed.forward
    module.config = None  # type: ignore[assignment]

    @wraps(original)
    def wrapper(*args: Any) -> Any:
        return original(*args) * 10

    monkeypatch.setattr(_Boxed, "forward", wrapper)
    with pytest.raises(UnknownContentError, match="wraps"):
        ModuleIdentity(module, None).of(module)
