"""KeyboardInterrupt at any moment of a view: its values are right afterwards, or refused."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import numpy as np
import pytest

from forwardscope import BackendInstrumentation
from forwardscope.backends.hf import HFBackend
from forwardscope.errors import ViewError

pytestmark = [pytest.mark.timeout(900), pytest.mark.no_cover]

_PROMPT = "the cat sat"
_VIEWS: dict[str, Callable[[HFBackend], AbstractContextManager[Any]]] = {
    "base": HFBackend.as_base,
    "ft": HFBackend.as_finetuned,
    "scaled": lambda backend: backend.as_scaled_adapter(3.0),
    "null": lambda backend: backend.as_null_adapter(1, init_scale=0.5),
}
#: Where a change of the weights is made and undone.
_FILES = ("weight_changes", "applied_change", "scorer", "views", "common", "contextlib")
#: After a function has begun, and where it has ended.
_EVENTS = ("call", "return")


def _backend(zoo: Any, adapter: str) -> HFBackend:
    return HFBackend(
        zoo.tuned(adapter),
        zoo.tokenizer(),
        exactness="strict",
        instrumentation=BackendInstrumentation(cache_enabled=False),
    )


def _value(backend: HFBackend, view: str) -> Any:
    with _VIEWS[view](backend) as opened:
        return opened.rolling_logprob(_PROMPT).logprobs


def _interrupted(look_up: Callable[[], object], moment: int) -> KeyboardInterrupt | None:
    """Interrupt a lookup at a call or return; None where it has fewer of them.

    The exception, with all frames of its traceback, stays alive while it is held.
    """
    left = moment

    def profile(frame: Any, event: str, _: object) -> None:
        nonlocal left
        if event not in _EVENTS or not any(name in frame.f_code.co_filename for name in _FILES):
            return
        left -= 1
        if left < 0:
            sys.setprofile(None)
            raise KeyboardInterrupt

    sys.setprofile(profile)
    try:
        look_up()
    except KeyboardInterrupt as error:
        return error
    finally:
        sys.setprofile(None)
    return None


def test_buffer_that_the_model_replaces_itself(zoo: Any) -> None:
    """Frequencies of a rotary embedding that follow the length of a prompt are no change."""
    model = zoo.tuned("llama_lora")
    backend = HFBackend(model, zoo.tokenizer(), exactness="strict")
    expected = _value(backend, "scaled")
    for module in model.modules():
        if hasattr(module, "inv_freq"):
            module.register_buffer("inv_freq", module.inv_freq.clone(), persistent=False)
    backend.instrumentation.cache.clear()
    assert np.array_equal(_value(backend, "scaled"), expected)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("view", ["scaled", "null", "base"])
@pytest.mark.parametrize("adapter", ["llama_lora", "llama_dora", "llama_head"])
def test_value_after_an_interrupt(zoo: Any, adapter: str, view: str) -> None:
    """Each view gives its own value after an interrupt of one, or says that it cannot."""
    expected = {name: _value(_backend(zoo, adapter), name) for name in _VIEWS}
    backend = _backend(zoo, adapter)
    answered, moment = 0, 0
    while (error := _interrupted(partial(_value, backend, view), moment)) is not None:
        for name in (view, *_VIEWS):
            try:
                value = _value(backend, name)
            except ViewError:
                backend = _backend(zoo, adapter)
                break
            assert np.array_equal(value, expected[name]), (moment, name)
            answered += 1
        del error
        moment += 3  # an odd step meets calls and returns
    assert answered > moment // 3
