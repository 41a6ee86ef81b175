"""An adapter's config of unknown origin: settings of LoRA, or one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings
from peft import LoraConfig

from forwardscope.backends.hf.adapter_config import WITHOUT_EFFECT, read_config
from forwardscope.errors import AdapterError

_PLAIN = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "r": 4,
    "lora_alpha": 8,
    "target_modules": ["q_proj", "v_proj"],
}
_keys = st.sampled_from(sorted({*LoraConfig(**_PLAIN).to_dict(), "other"}))
_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["q_proj", "LORA", "all-linear", "eva", "pissa", "CAUSAL_LM", ".*", "("]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


def _write(folder: Path, content: Any) -> Path:
    (folder / "adapter_config.json").write_text(json.dumps(content))
    return folder


@pytest.mark.filterwarnings("ignore")
@settings(
    max_examples=400,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(changes=st.dictionaries(_keys, _values, max_size=4))
def test_any_values_are_a_config_or_one_sentence(tmp_path: Path, changes: dict[str, Any]) -> None:
    """No value of any setting raises anything but an error of one sentence."""
    try:
        config, _ = read_config(_write(tmp_path, {**_PLAIN, **changes}))
    except AdapterError as error:
        assert "\n" not in str(error)
    else:
        assert isinstance(config, LoraConfig)
        assert config.megatron_config is None


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(content=_values | st.binary(max_size=50))
def test_any_file_is_a_config_or_one_sentence(tmp_path: Path, content: Any) -> None:
    """A file that is no JSON, or no object, is one sentence."""
    path = tmp_path / "adapter_config.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    with pytest.raises(AdapterError):
        read_config(tmp_path)


def test_settings_without_effect_are_left_out(tmp_path: Path) -> None:
    """Training settings and names of code do not reach PEFT; the others do."""
    ignored = {"lora_dropout": 0.5, "megatron_core": "a.module", "loftq_config": {"bits": 4}}
    config, warnings = read_config(_write(tmp_path, {**_PLAIN, **ignored, "use_rslora": True}))
    assert (config.lora_dropout, config.megatron_core) == (0.0, "megatron.core")
    assert (config.r, config.lora_alpha, config.use_rslora) == (4, 8, True)
    assert warnings == []
    assert set(ignored) <= WITHOUT_EFFECT


def test_too_large_a_file(tmp_path: Path) -> None:
    """A config of many megabytes is not read."""
    (tmp_path / "adapter_config.json").write_bytes(b" " * (9 << 20))
    with pytest.raises(AdapterError, match="larger than 8388608 bytes"):
        read_config(tmp_path)
