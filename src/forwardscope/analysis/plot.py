"""The plot of a cache curve; needs the extra `plot`."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from forwardscope.analysis.curve import SHARES, Curve, CurvePoint
from forwardscope.errors import MissingExtraError, OutputError
from forwardscope.files import write_file

if importlib.util.find_spec("matplotlib") is None:
    raise MissingExtraError("matplotlib", "plot")

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["write_plot"]

_LRU, _OPTIMUM, _MARK = "#3574b2", "#c4632a", "#777777"
_INCHES: Final = (8.0, 4.5)


def write_plot(
    curve: Curve, optimum: Sequence[CurvePoint], path: Path, inputs: Sequence[Path] = ()
) -> None:
    """Plot hit rate over cache size; the file's suffix selects the format, such as svg.

    The plot of a trace without hits says so.

    Raises:
        OutputError: The file cannot be written or is one of `inputs`, or matplotlib does not
            support its suffix.
    """
    figure = Figure(figsize=_INCHES, layout="constrained")
    axes = figure.add_subplot()
    if curve.largest:
        _draw(axes, curve, optimum)
        figure.legend(loc="outside upper right", ncols=2, frameon=False)
    else:  # a logarithmic axis needs a size
        axes.set_axis_off()
        axes.text(0.5, 0.5, "no cache size gives a hit", ha="center", color=_MARK)
    drawn, suffix = io.BytesIO(), path.suffix.removeprefix(".") or "png"
    try:
        # a fixed salt makes equal data give equal files, and "none" keeps text selectable
        with rc_context({"svg.hashsalt": "forwardscope", "svg.fonttype": "none"}):
            metadata = {"Date": None} if suffix == "svg" else None
            figure.savefig(drawn, format=suffix, metadata=metadata)
    except ValueError as error:
        raise OutputError(f"the plot cannot be written to {path}: {error}") from error
    write_file("plot", path, drawn.getvalue(), inputs)


def _draw(axes: Axes, curve: Curve, optimum: Sequence[CurvePoint]) -> None:
    sizes = range(1, curve.largest + 1)
    rates = curve.hits[1:] / curve.total
    axes.step(sizes, rates, where="post", color=_LRU, label="least recently used")
    axes.plot(
        [point.size for point in optimum],
        [point.hits / curve.total for point in optimum],
        "o",
        color=_OPTIMUM,
        markersize=4,
        label="optimal policy",
    )
    for size in sorted({curve.smallest_size(share) for share in SHARES}):
        axes.axvline(size, color=_MARK, linewidth=0.8, linestyle=":")
        shares = ", ".join(f"{share:.0%}" for share in SHARES if curve.smallest_size(share) == size)
        axes.annotate(
            f"{size}: {shares}",
            (size, 0.02),
            xytext=(-3, 0),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="right",
            rotation=90,
            fontsize=8,
            color=_MARK,
        )
    axes.set(xlabel="cache size in entries", ylabel="hit rate", xscale="log", ylim=(0, None))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.grid(visible=True, alpha=0.25)
