"""Changes of weights that a cached module must see, and what its cache must not prevent."""

from __future__ import annotations

import gc
import warnings
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from forwardscope.integrations.torch_module import calls_of, instrument

_X = torch.linspace(-1.0, 1.0, 24).reshape(3, 8)


class Plain(nn.Module):
    """Has a tensor that is neither parameter nor buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = torch.ones(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor


class Nested(nn.Module):
    """Has a tensor in a dict in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.scales: list[Any] = [{"scale": torch.ones(8)}]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scales[0]["scale"]


@pytest.fixture(autouse=True)
def _no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


def _cached(module: nn.Module, identity: str = "content") -> Any:
    return instrument(module.eval(), identity=identity, cache=True)


def _quantised() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch itself
        return torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(8, 8)), {nn.Linear})


@pytest.mark.parametrize("identity", ["content", "1"])
@pytest.mark.parametrize(
    "settings", [{"fused": True}, {"foreach": True}, {"foreach": False}], ids=str
)
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_a_step_of_an_optimizer_is_a_change(
    kind: Any, settings: dict[str, bool], identity: str
) -> None:
    """Also one of a fused kernel, which torch does not count."""
    net = _cached(nn.Linear(8, 8), identity)
    before = net(_X)
    optimizer = kind(net.parameters(), lr=0.1, **settings)
    with torch.enable_grad():
        net(_X).sum().backward()
    optimizer.step()
    expected = nn.functional.linear(_X, net.weight, net.bias)
    assert not torch.equal(before, expected)
    assert torch.equal(net(_X), expected)


def test_a_step_on_other_weights_is_no_change() -> None:
    """A teacher stays cached while its student is trained."""
    teacher, student = _cached(nn.Linear(8, 8), "1"), nn.Linear(8, 8)
    teacher(_X)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1, fused=True)
    with torch.enable_grad():
        student(_X).sum().backward()
    optimizer.step()
    teacher(_X)
    assert calls_of(teacher).instrumentation.stats.cache_hits == 1
    assert calls_of(teacher).bypasses == {}


def test_a_compiled_step_is_a_change() -> None:
    """Of a fused kernel as well."""
    net = _cached(nn.Linear(8, 8))
    net(_X)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, fused=True)
    with torch.enable_grad():
        net(_X).sum().backward()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch itself
        torch.compile(optimizer.step, backend="eager")()
    assert torch.equal(net(_X), nn.functional.linear(_X, net.weight, net.bias))


def test_a_text_holds_until_any_tensor_of_the_module_changes() -> None:
    """Tensors that are plain attributes, and packed weights, are weights too."""
    plain, packed = _cached(Plain(), "1"), _cached(_quantised(), "1")
    before = plain(_X), packed(_X), packed(_X)
    assert torch.equal(before[1], before[2])
    plain.factor.mul_(3)
    ones = torch.quantize_per_tensor(torch.ones(8, 8), 0.1, 0, torch.qint8)
    packed[0].set_weight_bias(ones, None)
    assert torch.equal(plain(_X), _X * 3)
    assert not torch.equal(packed(_X), before[1])
    assert calls_of(packed).instrumentation.stats.cache_hits == 1


@pytest.mark.parametrize("identity", ["content", "1"])
def test_tensors_in_lists_and_dicts_are_weights(identity: str) -> None:
    """A change of one is seen."""
    nested = Nested()
    _cached(nested, identity)
    assert torch.equal(nested(_X), _X)
    nested.scales[0]["scale"].mul_(3)
    assert torch.equal(nested(_X), _X * 3)
    nested.scales[0]["scale"] = torch.full((8,), 5.0)
    assert torch.equal(nested(_X), _X * 5)


def test_a_list_may_be_in_itself() -> None:
    """Its tensors are seen once."""
    nested = Nested()
    nested.scales.append(nested.scales)
    _cached(nested, "1")
    assert torch.equal(nested(_X), nested(_X))
    assert calls_of(nested).instrumentation.stats.cache_hits == 1


def test_quantised_weights_have_no_known_content() -> None:
    """Such a module needs a text."""
    net = _cached(_quantised())
    net(_X)
    assert list(calls_of(net).bypasses) == ["torch.ScriptObject has no known content"]


def test_sparse_weights_have_no_known_changes() -> None:
    """Each call is computed, whatever the identity says."""
    net = Plain()
    net.factor = torch.eye(8).to_sparse()
    net = _cached(net, "1")
    assert torch.equal(net(torch.eye(8)).to_dense(), torch.eye(8))
    assert list(calls_of(net).bypasses) == ["the weights are not those that the identity is of"]


@pytest.mark.parametrize("identity", ["content", "1"])
def test_weights_can_be_swapped(identity: str) -> None:
    """Torch swaps a tensor only if nothing refers to it weakly."""
    net = _cached(nn.Linear(8, 8), identity)
    net(_X)
    torch.utils.swap_tensors(net.weight, nn.Parameter(torch.ones(8, 8)))
    assert torch.equal(net(_X), nn.functional.linear(_X, torch.ones(8, 8), net.bias))


def test_weights_that_were_replaced_are_freed() -> None:
    """The state of a module does not keep them."""
    net = _cached(nn.Linear(8, 8))
    net(_X)
    before = weakref.ref(net.weight.untyped_storage())
    net.weight = nn.Parameter(torch.ones(8, 8))
    gc.collect()
    assert before() is None


def test_a_lazy_module_is_instrumented_after_its_first_call() -> None:
    """It gets another class then, which would end its instrumentation in silence."""
    net = nn.LazyLinear(8)
    with pytest.raises(ValueError, match="call it once before"):
        instrument(net)
    net(_X)
    net = _cached(net)
    assert torch.equal(net(_X), net(_X))
    assert calls_of(net).instrumentation.stats.cache_hits == 1
