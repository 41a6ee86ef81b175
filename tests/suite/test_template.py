"""The files that come with the package are suites, and the template shows every key."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest
import yaml

from forwardscope.probes import PROBES
from forwardscope.suite import SuiteSpec
from forwardscope.suite.loading import parse_suite
from forwardscope.suite.spec import CacheSpec, Defaults, ModelSpec, TelemetrySpec

_OPTION = re.compile(r"^( *)# (\w+: )", re.MULTILINE)


def text_of(name: str) -> str:
    """Return a file of the package."""
    return (files("forwardscope.suite") / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["template.yaml", "demo.yaml"])
def test_it_is_a_suite_with_all_four_probes(name: str) -> None:
    """It is read without a complaint and has one probe of each kind."""
    spec = parse_suite(text_of(name), name)
    assert sorted(probe.kind for probe in spec.probes) == sorted(PROBES)


@pytest.mark.parametrize("name", ["template.yaml", "demo.yaml"])
def test_the_baseline_stands_before_what_it_calibrates(name: str) -> None:
    """A `null_adapter` reaches later probes alone, so it comes first."""
    assert parse_suite(text_of(name), name).probes[0].kind == "null_adapter"


def test_commented_options_are_real() -> None:
    """Each option that the template comments out can be taken in, all of them together."""
    whole, count = _OPTION.subn(r"\1\2", text_of("template.yaml"))
    assert count >= 15
    spec = parse_suite(whole, "template.yaml")
    assert (spec.name, spec.period, spec.cache.max_bytes) == ("my-suite", "1d", 268_435_456)


def test_every_key_is_shown() -> None:
    """No key of a suite, a section or a probe is missing from the template."""
    content = yaml.safe_load(_OPTION.sub(r"\1\2", text_of("template.yaml")))
    probes = {probe["kind"]: set(probe) for probe in content["probes"]}
    shared = {"top_k", "divergence"}  # shown at the first probe that has them
    assert set(content) == set(SuiteSpec.model_fields)
    assert set(content["model"]) == set(ModelSpec.model_fields)
    assert set(content["defaults"]) == set(Defaults.model_fields)
    assert set(content["cache"]) == set(CacheSpec.model_fields)
    assert set(content["telemetry"]) == set(TelemetrySpec.model_fields)
    assert probes["delta_kl"] >= shared
    for kind, model in PROBES.items():
        assert probes[kind] | shared == set(model.model_fields) | shared


def test_shown_values_are_the_defaults() -> None:
    """What the template shows for an option is what holds without it."""
    shown = parse_suite(_OPTION.sub(r"\1\2", text_of("template.yaml")), "template.yaml")
    own = {"name", "kind", "prompts", "sentinel_prompts", "top_k"}
    for probe in shown.probes:
        fields = type(probe).model_fields
        for key in set(fields) - own:
            assert getattr(probe, key) == fields[key].default, f"{probe.kind}.{key}"
    assert shown.probes[1].top_k == Defaults().top_k
    assert shown.defaults == Defaults()
    assert shown.cache.max_entries == CacheSpec().max_entries
    assert shown.telemetry.span_budget == TelemetrySpec().span_budget
    assert shown.telemetry.metrics_address == TelemetrySpec().metrics_address
    assert (shown.exactness, shown.model.device, shown.model.dtype) == ("fast", "auto", "auto")
