"""Read adapter_config.json, and refuse what no view can be made of.

The file is data of unknown origin. PEFT would import a module that it names, search
names for ever with a pattern, or allocate a rank of any size. So PEFT gets only the
settings below, of their types, and patterns and ranks that were checked first.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import torch
from peft import LoraConfig
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from forwardscope.backends.hf import compat
from forwardscope.backends.hf.load_errors import errors_as, some
from forwardscope.errors import AdapterError

__all__ = ["WITHOUT_EFFECT", "check_config", "check_patterns", "check_ranks", "read_config"]

#: Values of `init_lora_weights` that do not change the base; PiSSA, OLoRA, LoftQ and others do.
_INITS_WITHOUT_BASE_CHANGE: Final = ("eva", "gaussian", "mica", "orthogonal")
#: Tasks whose adapters train another head or another kind of model.
_OTHER_TASKS: Final = ("QUESTION_ANS", "SEQ_2_SEQ_LM", "SEQ_CLS", "TOKEN_CLS")
#: Settings that do not change the values of a trained adapter, or that name code. PEFT gets
#: none of them.
WITHOUT_EFFECT: Final = frozenset(
    (
        "arrow_config",
        "auto_mapping",
        "corda_config",
        "eva_config",
        "inference_mode",
        "loftq_config",
        "lora_dropout",
        "lora_ga_config",
        "megatron_config",
        "megatron_core",
        "peft_version",
        "runtime_config",
    )
)
#: Those of them with which the adapter cannot be computed as it was trained.
_REFUSED: Final = ("arrow_config", "megatron_config")
#: Dimension of each kind of factor that is its rank.
_RANK_DIMENSIONS: Final = {
    "lora_A": 0,
    "lora_B": 1,
    "lora_embedding_A": 0,
    "lora_embedding_B": 1,
}
_MAX_COUNT: Final = 1 << 16
_MAX_BYTES: Final = 8 << 20
PATTERN_TIME_S: Final = 10.0
_MANY_PATTERNS: Final = 1000
#: Characters with which a pattern can take longer than its text is long.
_REPEATS: Final = frozenset("*+{?|")

_Count = Annotated[int, Field(ge=0, le=_MAX_COUNT)]
_Number = Annotated[float, Field(allow_inf_nan=False)]
_Options = dict[str, bool | _Count | _Number | str | list[str] | None]


class _Settings(BaseModel):
    """The settings that PEFT gets, with the types that it expects."""

    model_config = ConfigDict(strict=True, extra="allow")

    peft_type: str
    task_type: str | None = None
    base_model_name_or_path: str | None = None
    revision: str | None = None
    r: Annotated[int, Field(ge=1)] = 8
    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    lora_alpha: int | _Number = 8
    fan_in_fan_out: bool = False
    bias: str = "none"
    use_rslora: bool = False
    modules_to_save: list[str] | None = None
    init_lora_weights: bool | str | None = True
    layers_to_transform: list[_Count] | _Count | None = None
    layers_pattern: list[str] | str | None = None
    rank_pattern: dict[str, Annotated[int, Field(ge=1)]] | None = None
    alpha_pattern: dict[str, int | _Number] | None = None
    trainable_token_indices: list[int] | dict[str, list[int]] | None = None
    use_dora: bool = False
    velora_config: _Options | None = None
    alora_invocation_tokens: list[Annotated[int, Field(ge=0)]] | None = None
    use_qalora: bool = False
    qalora_group_size: _Count = 16
    monteclora_config: _Options | None = None
    layer_replication: Any = None
    lora_bias: bool = False
    target_parameters: list[str] | None = None
    use_bdlora: _Options | None = None
    kasa_config: Any = None
    ensure_weight_tying: bool = False


def read_config(folder: Path) -> tuple[LoraConfig, list[str]]:
    """Return the config of an adapter, and warnings about settings that are ignored.

    Raises:
        AdapterError: The config cannot be read, or no view can be made of such an adapter.
    """
    name = f"adapter {folder}"
    raw = _read(folder / "adapter_config.json", name)
    _check_type(raw, name)
    try:
        settings = _Settings.model_validate(
            {key: value for key, value in raw.items() if value is not None}
        )
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"][:1]))
        raise AdapterError(
            f"{name} has a bad value of {where} in adapter_config.json: {first['msg']}"
        ) from error
    for key in _REFUSED:
        if raw.get(key):
            raise AdapterError(f"{name} has {key} in its adapter_config.json; it is not supported")
    given = settings.model_dump(include=set(_Settings.model_fields), exclude_unset=True)
    unknown = [
        key
        for key, value in (settings.model_extra or {}).items()
        if value and key not in WITHOUT_EFFECT
    ]
    with errors_as(AdapterError, f"{name} has a config that PEFT refuses"):
        config = LoraConfig(**given)
    check_config(config, name)
    if not unknown:
        return config, []
    return config, [
        f"the adapter's config has settings that are not known and ignored: {some(unknown)}"
    ]


def _read(path: Path, name: str) -> dict[str, Any]:
    with errors_as(AdapterError, f"adapter_config.json of {name} cannot be read"):
        if path.stat().st_size > _MAX_BYTES:
            raise AdapterError(f"adapter_config.json of {name} is larger than {_MAX_BYTES} bytes")
        raw = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(raw, dict):
        raise AdapterError(f"adapter_config.json of {name} is not a JSON object")
    return raw


def _check_type(raw: Mapping[str, Any], name: str) -> None:
    kind = raw.get("peft_type")
    if kind != "LORA":
        raise AdapterError(
            f"{name} is of type {kind!r}; only LoRA adapters are supported"
            if kind
            else f"{name} has no peft_type in adapter_config.json; save it with save_pretrained()"
        )


def check_config(config: Any, name: str = "the adapter") -> None:
    """Check that an adapter is LoRA and leaves the base's own weights as they are.

    Raises:
        AdapterError: It is of another type or for another task, or changes the base itself.
    """
    if config.peft_type != "LORA":
        raise AdapterError(
            f"{name} is of type {config.peft_type.value!r}; only LoRA adapters are supported"
        )
    if (task := config.task_type) in _OTHER_TASKS:
        raise AdapterError(
            f"{name} is for the task {getattr(task, 'value', task)}, whose models predict no next "
            "token; give an adapter of a causal language model (task_type='CAUSAL_LM')"
        )
    if compat.lora_setting(config, "bias") not in (None, "none"):
        raise AdapterError(
            f"{name} trains biases of the base (bias={config.bias!r}), which cannot be "
            "undone; train it with bias='none'"
        )
    if compat.lora_setting(config, "layer_replication"):
        raise AdapterError(
            f"{name} repeats layers of the base (layer_replication), which cannot be undone; save "
            "a base with the repeated layers and train the adapter on it"
        )
    init = compat.lora_setting(config, "init_lora_weights")
    changes_base = isinstance(init, str) and init.lower() not in _INITS_WITHOUT_BASE_CHANGE
    if changes_base or compat.lora_setting(config, "kasa_config"):
        raise AdapterError(
            f"{name}'s initialisation ({init!r}) changes the base's own weights, which cannot "
            "be undone; convert it to plain LoRA with save_pretrained's "
            "path_initial_model_for_weight_conversion"
        )


def check_ranks(config: LoraConfig, tensors: Mapping[str, torch.Tensor], name: str) -> None:
    """Check that no rank is larger than those of the adapter's factors.

    PEFT allocates the factors before it compares them with the file's.

    Raises:
        AdapterError: A rank is.
    """
    ranks = [
        tensor.shape[dimension]
        for key, tensor in tensors.items()
        for name, dimension in _RANK_DIMENSIONS.items()
        if name in key and tensor.dim() > dimension
    ]
    largest = max(ranks, default=0)
    rank = max(config.r, *(config.rank_pattern or {}).values(), 0)
    if rank > largest:
        raise AdapterError(
            f"{name} has rank {rank} in adapter_config.json, and no factor of that size; was the "
            "config saved with these weights?"
        )


def check_patterns(config: LoraConfig, base: Any, name: str) -> None:
    """Check that the config's patterns match the names of a model in a bounded time.

    A pattern of a few characters can need years for one name, and Python cannot stop a
    search. So patterns that repeat are first tried in another process.

    Raises:
        AdapterError: A pattern is not valid or takes too long.
    """
    patterns = list(_patterns(config))
    if len(patterns) <= _MANY_PATTERNS and not any(_REPEATS & set(one) for one, *_ in patterns):
        return
    names = [module for module, _ in base.named_modules()]
    names += [parameter for parameter, _ in base.named_parameters()]
    try:
        tried = subprocess.run(  # noqa: S603 - our own text; the patterns are its input
            [sys.executable, "-I", "-c", _TRY_PATTERNS],
            input=json.dumps([patterns, names]),
            capture_output=True,
            text=True,
            timeout=PATTERN_TIME_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise AdapterError(
            f"{name} has patterns that search the model's names for over {PATTERN_TIME_S:.0f} s "
            f"({some([one for one, *_ in patterns], 1)}); write the names of the modules as a list"
        ) from error
    if tried.returncode:
        raise AdapterError(f"{name} has a pattern that is not valid: {tried.stdout.strip()}")


#: Matches each expression with each name; prints the first error.
_TRY_PATTERNS: Final = """
import json, re, sys
patterns, names = json.load(sys.stdin)
try:
    for _, expression, whole in patterns:
        found = re.compile(expression)
        match = found.fullmatch if whole else found.match
        for name in names:
            match(name)
except Exception as error:
    print(error)
    sys.exit(1)
"""


def _patterns(config: LoraConfig) -> Iterator[tuple[str, str, bool]]:
    """Yield each pattern, the expression that PEFT makes of it, and whether it matches whole."""
    for targets in (config.target_modules, config.exclude_modules):
        if isinstance(targets, str):
            yield targets, targets, True
        else:
            yield from ((one, rf"(^|.*\.){one}($|\..*)", False) for one in targets or ())
    for module in config.modules_to_save or ():
        yield module, rf"(^|.*\.){module}($|\..*)", False
    layers = config.layers_pattern or []
    for layer in [layers] if isinstance(layers, str) else layers:
        yield layer, rf"(?:^|.*?\.){layer}\.(?P<idx>\d+)\.", False
    for key in (*(config.rank_pattern or ()), *(config.alpha_pattern or ())):
        yield key, rf"(.*\.)?({key})$", False
