"""Kept results of torch calls: copies, and bytes of a store."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.modeling_outputs import BaseModelOutput, CausalLMOutputWithPast

from forwardscope import BackendInstrumentation
from forwardscope.integrations.torch_module import calls_of, instrument, uninstrument
from forwardscope.integrations.torch_module_values import Kept, keep
from forwardscope.store.agreement import agree
from forwardscope.store.codec import CorruptValueError, UnknownValueError, decode, encode
from forwardscope.testing import MemoryStore

_DIGEST = bytes(32)
_DTYPES = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn),
    *(torch.complex64, torch.int64, torch.int8, torch.uint8, torch.bool),
)


class _OwnOutput(BaseModelOutput):
    """An output that transformers does not have."""


def _through_store(result: Any) -> Any:
    return decode(encode(keep(result, []), _DIGEST), _DIGEST).copy()


def _bits(tensor: Tensor) -> list[int]:
    return tensor.contiguous().flatten().view(torch.uint8).tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("dtype", _DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3)], ids=str)
def test_tensors_keep_their_bits(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """Dtype, shape and every bit come back from a store, NaN and infinities among them."""
    tensor = torch.full(shape, float("nan")).to(dtype)
    if tensor.numel() > 1:
        tensor[0, 0], tensor[0, 1] = 1, 0
    found = _through_store(tensor)
    assert (found.dtype, found.shape, _bits(found)) == (dtype, tensor.shape, _bits(tensor))


def test_strides_come_back() -> None:
    """A transposed result has the layout that it was computed with."""
    tensor = torch.arange(6.0).reshape(2, 3).T
    found = _through_store((tensor, tensor.T.clone()))
    assert [one.stride() for one in found] == [(1, 3), (3, 1)]
    assert torch.equal(found[0], tensor)


def test_nested_results_come_back() -> None:
    """Types, order, plain values and what is shared are as they were."""
    one = torch.ones(2)
    result = ([one, (one,)], {"b": 1, 2: None}, -0.0, "\ud800", True, 10**30)
    found = _through_store(result)
    assert repr(found) == repr(result)
    assert found[0][0] is found[0][1][0]


def test_outputs_of_transformers_come_back() -> None:
    """Their class and their fields do; those without a value stay so."""
    output = CausalLMOutputWithPast(logits=torch.ones(1, 2), hidden_states=(torch.zeros(1),))
    found = _through_store(output)
    assert type(found) is CausalLMOutputWithPast
    assert list(found) == ["logits", "hidden_states"]
    assert torch.equal(found.logits, output.logits)


def test_other_outputs_are_copied_and_not_stored() -> None:
    """A class of another package is kept in memory alone."""
    kept = keep(_OwnOutput(last_hidden_state=torch.ones(1)), [])
    assert type(kept.copy()) is _OwnOutput
    with pytest.raises(UnknownValueError, match="none of transformers' own"):
        encode(kept, _DIGEST)


def test_a_result_that_is_not_kept_is_not_stored() -> None:
    """Its place in the cache has the reason alone."""
    with pytest.raises(UnknownValueError, match="draws"):
        encode(Kept(reason="it draws random numbers"), _DIGEST)


def test_a_stored_template_of_other_tensors_is_corrupt() -> None:
    """It is found when the value is read, not when it is handed out."""
    for template in ('{"tensor": 0}', '{"output": 0, "items": []}', '{"other": 1}', "{"):
        data = encode(Kept(template), _DIGEST)
        with pytest.raises(CorruptValueError):
            decode(data, _DIGEST)


def test_results_agree_when_they_are_equal_bit_for_bit() -> None:
    """Verification takes no other value for the stored one; NaN equals itself."""
    one = keep(torch.tensor([1.0, float("nan")]), [])
    assert agree(one, keep(torch.tensor([1.0, float("nan")]), []), 0.0)
    assert not agree(one, keep(torch.tensor([1.0 + 2**-23, float("nan")]), []), 0.0)
    assert not agree(one, keep(torch.tensor([[1.0, float("nan")]]), []), 0.0)


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    config = LlamaConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        vocab_size=32,
    )
    torch.manual_seed(0)
    return LlamaForCausalLM(config).eval()


@torch.no_grad()
def test_a_model_of_transformers_is_cached_without_its_cache_of_keys(
    model: LlamaForCausalLM,
) -> None:
    """The store answers a second instrumentation; results with past keys bypass the cache."""
    ids, store = torch.arange(1, 7)[None], MemoryStore()
    expected = model(ids, use_cache=False).logits
    for counts in ((0, 1), (1, 0)):
        instrumentation = BackendInstrumentation(store=store)
        instrument(model, identity="content", cache=True, instrumentation=instrumentation)
        output = model(input_ids=ids, use_cache=False)
        assert type(output) is CausalLMOutputWithPast
        assert torch.equal(output.logits, expected)
        stats = instrumentation.stats
        assert (stats.cache_hits, stats.forward_passes) == counts
        uninstrument(model)
    instrument(model, identity="content", cache=True)
    first = model.generate(ids, max_new_tokens=3, do_sample=False)
    assert torch.equal(model.generate(ids, max_new_tokens=3, do_sample=False), first)
    (reason,) = calls_of(model).bypasses
    assert reason == "transformers.cache_utils.DynamicCache has no known content"
    assert calls_of(model).instrumentation.stats.cache_hits == 0
    uninstrument(model)
