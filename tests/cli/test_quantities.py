"""Sizes and ages on the command line."""

from __future__ import annotations

from datetime import timedelta

import pytest
import typer

from forwardscope.cli.quantities import age, shown_size, size


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [("0", 0), ("512", 512), ("512MiB", 2**29), ("1.5 GiB", 3 * 2**29), ("5GB", 5 * 10**9)],
)
def test_sizes(text: str, nbytes: int) -> None:
    """A size is a number of bytes, or has a binary or decimal unit."""
    assert size(text) == nbytes


@pytest.mark.parametrize("text", ["", "x", "-1", "5x", "1MiB2", "nan", "inf", "5 Mi B", "1,000MB"])
def test_what_is_no_size(text: str) -> None:
    """The message quotes it and gives examples."""
    with pytest.raises(typer.BadParameter, match=r"is no size; write one like 512MiB or 5GiB"):
        size(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30m", timedelta(minutes=30)),
        ("12h", timedelta(hours=12)),
        ("30d", timedelta(days=30)),
        ("8w", timedelta(weeks=8)),
        ("0d", timedelta()),
        ("999999w", timedelta(weeks=999_999)),
    ],
)
def test_ages(text: str, expected: timedelta) -> None:
    """An age is a whole number and a unit."""
    assert age(text) == expected


@pytest.mark.parametrize("text", ["", "5", "d", "-1d", "1.5d", "30 d", "30D", "٣d", "9999999w"])
def test_what_is_no_age(text: str) -> None:
    """The message gives examples and the units."""
    with pytest.raises(typer.BadParameter, match=r"is no age; .*12h or 30d.* m \(minutes\)"):
        age(text)


def test_shown_sizes() -> None:
    """A size is shown in the unit that fits."""
    assert [shown_size(n) for n in (0, 1023, 3 * 2**19)] == ["0 B", "1023 B", "1.5 MiB"]
