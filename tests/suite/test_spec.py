"""What a suite may say, and what it says where it is silent."""

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
    """The period is given in seconds whatever its unit."""
    assert make_spec(ONE, period=period).period_s == seconds


def test_period_may_be_left_out(make_spec: MakeSpec) -> None:
    """A suite that is run by hand has none."""
    assert make_spec(ONE).period_s is None


@pytest.mark.parametrize(
    "period", ["", "0d", "01d", "d", "1", "1y", "1.5h", "-1d", "1 d", "1d\n", "١d", "1000000s", 5]
)
def test_other_periods_are_refused(make_spec: MakeSpec, period: object) -> None:
    """No zero, no fraction, no other unit, no other digits, and nothing after the unit."""
    with pytest.raises(ValidationError) as caught:
        make_spec(ONE, period=period)
    assert caught.value.errors()[0]["loc"] == ("period",)


def test_what_is_left_out_has_its_default(make_spec: MakeSpec) -> None:
    """The defaults are those that the template shows."""
    spec = make_spec(ONE)
    assert spec.defaults == Defaults(seed=0, top_k=256)
    assert spec.cache == CacheSpec(enabled=True, max_entries=256, max_bytes=None)
    assert (spec.model.device, spec.model.dtype) == ("auto", "auto")
    assert spec.exactness == "fast"


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
    """No type is guessed, no bound is empty, and no key is unknown."""
    with pytest.raises(ValidationError):
        section(**wrong)


def test_names_differ(make_spec: MakeSpec) -> None:
    """Two probes of one name are refused by that name."""
    two = DeltaKL(name="two", prompts=["a"])
    assert len(make_spec(ONE, two).probes) == 2
    with pytest.raises(ValidationError, match="two probes are named 'one'"):
        make_spec(ONE, two, DeltaKL(name="one", prompts=["b"]))
