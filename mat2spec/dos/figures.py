"""The style of all figures: legible at the width of a README, and for readers who are color-blind."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mat2spec.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE_WIDTH = 8.3
"""Width of a README or a page of the site [inch, at 100 pixels each]: no figure is wider, so that none is shrunk."""

SERIES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9")
"""Colors of curves that are compared (Okabe and Ito, 2008: distinguishable with any common color blindness)."""

MARKERS = ("o", "s", "^", "D", "v")
"""Marker of each of these curves, for those who print in gray."""

PREDICTED = "#D55E00"
COMPUTED = "0.8"
GAP = "#56B4E9"
GUIDE = "0.6"
"""Color of lines that lead the eye."""

STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "figure.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.framealpha": 0.7,
    "legend.edgecolor": "none",
    "legend.handlelength": 1.2,
    "legend.loc": "upper right",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 200,
}


@contextmanager
def styled() -> Iterator[None]:
    """Within the block, new figures have the style.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    try:
        from matplotlib import rc_context
    except ModuleNotFoundError:
        raise MissingExtraError("plotting spectra", "plot") from None
    with rc_context(STYLE):
        yield


@contextmanager
def figure_file(file: Path, width: float, height: float) -> Iterator["Figure"]:
    """Give a figure to draw on, and write it when the block ends.

    Args:
        file: Picture to write, in the format of its ending.
        width: At most PAGE_WIDTH [inch].
        height: Height [inch].

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    with styled():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(min(width, PAGE_WIDTH), height))
        yield figure
        figure.savefig(file)
