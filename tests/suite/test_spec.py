"""The schema of a suite: valid values and defaults."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pydantic import ValidationError

from forwardscope.probes import DeltaKL
from forwardscope.suite import SuiteSpec
from forwardscope.suite.spec import CacheSpec, Defaults, ModelSpec

ONE = DeltaKL(name="one", prompts=["a"])
MakeSpec = Callable[..., SuiteSpec]


@pytest.mark.parametrize(
    ("period", "seconds"),
    [
        ("1s", 1),
        ("30m", 1800),
        ("6h", 21_600),
        ("1d", 86_400),
        ("2w", 1_209_600),
        ("999999w", 604_799_395_200),
    ],
)
def test_period_is_a_number_and_a_unit(make_spec: MakeSpec, period: str, seconds: int) -> None:
    """`period_s` is the period in seconds for every unit."""
    assert make_spec(ONE, period=period).period_s == seconds


@pytest.mark.parametrize(
    "period", ["", "0d", "01d", "d", "1", "1y", "1.5h", "-1d", "1 d", "1d\n", "١d", "1000000s", 5]
)
def test_invalid_periods(make_spec: MakeSpec, period: object) -> None:
    """Zero, fractions, other units, other digits and text after the unit are errors."""
    with pytest.raises(ValidationError) as caught:
        make_spec(ONE, period=period)
    assert caught.value.errors()[0]["loc"] == ("period",)


def test_defaults(make_spec: MakeSpec) -> None:
    """Settings that a suite omits have their defaults."""
    spec = make_spec(ONE)
    assert spec.defaults == Defaults(seed=0, top_k=256)
    assert spec.cache == CacheSpec(enabled=True, max_entries=4096, max_bytes=None)
    assert (spec.model.device, spec.model.dtype) == ("auto", "auto")
    assert (spec.exactness, spec.period_s) == ("fast", None)


@pytest.mark.parametrize(
    ("section", "wrong"),
    [
        (Defaults, {"seed": -1}),
        (Defaults, {"seed": "0"}),
        (Defaults, {"top_k": 0}),
        (Defaults, {"top_k": True}),
        (CacheSpec, {"enabled": "yes"}),
        (CacheSpec, {"enabled": 1}),
        (CacheSpec, {"max_entries": 0}),
        (CacheSpec, {"max_bytes": 0}),
        (CacheSpec, {"max_bytes": 1.5}),
        (ModelSpec, {"path": "", "adapter": "a"}),
        (ModelSpec, {"path": "m", "adapter": ""}),
        (ModelSpec, {"path": "m", "adapter": "a", "dtype": "int8"}),
        (ModelSpec, {"path": "m", "adapter": "a", "device": ""}),
        (ModelSpec, {"path": "m", "adapter": "a", "trust_remote_code": True}),
    ],
)
def test_sections_are_strict(
    section: type[Defaults | CacheSpec | ModelSpec], wrong: dict[str, object]
) -> None:
    """Wrong types, values out of range and unknown keys are errors."""
    with pytest.raises(ValidationError):
        section(**wrong)


@pytest.mark.parametrize("key", ["max_bytes", "store_max_bytes"])
@pytest.mark.parametrize(
    ("size", "number"),
    [
        (1 << 20, 1 << 20),
        ("1048576", 1 << 20),
        ("1MiB", 1 << 20),
        ("1.5 gib", 3 << 29),
        ("20m", 20_000_000),
        ("2GB", 2_000_000_000),
        ("7EiB", 7 << 60),
    ],
)
def test_sizes_have_units(key: str, size: object, number: int) -> None:
    """A size is a number of bytes, or one with a unit of 1000 or 1024, in any case."""
    assert getattr(CacheSpec(**{key: size}), key) == number


@pytest.mark.parametrize("key", ["max_bytes", "store_max_bytes"])
@pytest.mark.parametrize(
    "size",
    [0, -1, "0", "-1MiB", "", "MiB", "1e9", "1 XB", 1.5, True, "8EiB", "1,000 MiB", "1.5.3 GiB"],
)
def test_invalid_sizes(key: str, size: object) -> None:
    """Nothing, less than nothing, other units, and what no result could hold are errors."""
    with pytest.raises(ValidationError):
        CacheSpec(**{key: size})
