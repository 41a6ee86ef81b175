"""The suite files of the package are valid, and the template has every key."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest
import yaml

from forwardscope.probes import PROBES
from forwardscope.suite import SuiteSpec
from forwardscope.suite.loading import parse_suite
from forwardscope.suite.spec import CacheSpec, Defaults, ModelSpec, TelemetrySpec
from forwardscope.suite.text_files import FILE_KEYS

_OPTION = re.compile(r"^( *)# ( *(?:- |# |\w+:(?: |$)))", re.MULTILINE)


def text_of(name: str) -> str:
    """Return a file of the package."""
    return (files("forwardscope.suite") / name).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "left_out"),
    [
        ("template.yaml", {"prompt_collapse", "completion_preference"}),
        ("demo.yaml", {"perplexity_shift", "completion_preference"}),
    ],
)
def test_the_file_is_a_suite_with_the_probes(name: str, left_out: set[str]) -> None:
    """The `null_adapter` is first, because it calibrates only later probes."""
    kinds = [probe.kind for probe in parse_suite(text_of(name), name).probes]
    assert sorted(kinds) == sorted(PROBES.keys() - left_out)
    assert kinds[0] == "null_adapter"


@pytest.mark.parametrize("name", ["template.yaml", "demo.yaml"])
def test_the_store_is_on(name: str) -> None:
    """It is the one in the user's cache folder, and a comment says how to go without."""
    text = text_of(name)
    assert parse_suite(text, name).cache.store == "default"
    assert "--no-store" in text.partition("store: default")[0].partition("defaults:")[2]


def with_options(replaced: str) -> SuiteSpec:
    """Return the template with all commented options enabled, and one of adapter and tuned."""
    text, count = _OPTION.subn(r"\1\2", text_of("template.yaml"))
    assert count >= 15
    text = re.sub(r"^[ #]*(prompts|texts|pairs)_file: .*\n", "", text, flags=re.MULTILINE)
    return parse_suite(re.sub(f"^  {replaced}: .*\n", "", text, flags=re.MULTILINE), "template")


@pytest.mark.parametrize("replaced", ["adapter", "tuned"])
def test_commented_options_are_valid(replaced: str) -> None:
    """The template is valid with all commented options enabled."""
    spec = with_options(replaced)
    assert (spec.name, spec.period, spec.cache.max_bytes) == ("my-suite", "1d", 268_435_456)


def test_every_key_is_in_the_template() -> None:
    """The template has each key of a suite, its sections and its probes."""
    content = yaml.safe_load(_OPTION.sub(r"\1\2", text_of("template.yaml")))
    probes = {probe["kind"]: set(probe) for probe in content["probes"]}
    shared = {"prompts", "top_k", "divergence", "weight"}  # only in the first probe that has them
    assert set(content) == set(SuiteSpec.model_fields)
    assert set(content["model"]) == set(ModelSpec.model_fields)
    assert set(content["defaults"]) == set(Defaults.model_fields)
    assert set(content["cache"]) == set(CacheSpec.model_fields)
    assert set(content["telemetry"]) == set(TelemetrySpec.model_fields)
    assert probes["delta_kl"] >= shared
    for kind, model in PROBES.items():
        files = {key for key, item in FILE_KEYS.items() if item in model.model_fields}
        assert probes[kind] - files | shared == set(model.model_fields) | shared


def test_template_values_are_the_defaults() -> None:
    """Each option in the template has its default value."""
    template = with_options("tuned")
    assert {probe.kind for probe in template.probes} == set(PROBES)
    own = {"name", "kind", "top_k", *FILE_KEYS.values()}
    for probe in template.probes:
        fields = type(probe).model_fields
        for key in set(fields) - own:
            assert getattr(probe, key) == fields[key].default, f"{probe.kind}.{key}"
    assert template.probes[1].top_k == Defaults().top_k
    assert template.defaults == Defaults()
    assert template.cache.max_entries == CacheSpec().max_entries
    assert template.cache.store_max_bytes == CacheSpec().store_max_bytes
    assert template.telemetry.span_budget == TelemetrySpec().span_budget
    assert template.telemetry.metrics_address == TelemetrySpec().metrics_address
    assert (template.exactness, template.model.device, template.model.dtype) == (
        "fast",
        "auto",
        "auto",
    )
