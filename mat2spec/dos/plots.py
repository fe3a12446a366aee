"""Figures of spectra: one on the axes of a notebook, or a page of panels in a file."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from mat2spec.dos.edge_gaps import ValenceBandRule, vb_gaps
from mat2spec.dos.grid import Spectra, SpectrumGrid
from mat2spec.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

AXIS_LABELS = {"phdos": "frequency (cm⁻¹)", "edos": "energy, gap cut out (eV)"}

PREDICTION_UNITS = {"phdos": "states per cm⁻¹ per atom", "edos": "states/eV per primitive cell"}

PANEL_SIZE = (3.2, 2.4)
"""[inch]"""


def plot_spectrum(
    densities: Float[np.ndarray, " bins"],
    grid: SpectrumGrid,
    title: str = "",
    gaps: Sequence[tuple[float, float]] = (),
    ax: "Axes | None" = None,
) -> "Axes":
    """Plot one predicted spectrum.

    Args:
        densities: In the unit of PREDICTION_UNITS.
        grid: Their axis.
        title: Above the axes.
        gaps: Lower and upper edge of each range to shade [unit of the grid].
        ax: Axes to draw on; default: those of a new pyplot figure, which a notebook shows.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    if ax is None:
        try:
            from matplotlib import pyplot
        except ModuleNotFoundError:
            raise MissingExtraError("plotting spectra", "plot") from None
        _, ax = pyplot.subplots(layout="constrained")
    _draw(ax, densities, grid, gaps)
    ax.set(title=title, xlabel=AXIS_LABELS[grid.name], ylabel=PREDICTION_UNITS[grid.name])
    ax.set_ylim(bottom=0)
    return ax


def predicted_spectra(
    spectra: Spectra, titles: Sequence[str], grid: SpectrumGrid, file: Path, computed: Sequence[np.ndarray | None] = ()
) -> None:
    """Draw each spectrum in its own panel; of electronic ones, shade the predicted gap below the valence band maximum.

    Args:
        spectra: Predicted ones.
        titles: One for each.
        grid: Their axis.
        file: Picture to write, in the format of its ending.
        computed: DFT spectra of some or all of them, drawn in gray behind the predicted ones.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    gaps = vb_gaps(spectra, grid, ValenceBandRule()) if grid.per_cell else np.full((len(spectra), 3), np.nan)
    figure, panels = make_panels(len(spectra), columns=min(5, len(spectra)))
    references = computed or [None] * len(spectra)
    for axes, spectrum, title, reference, gap in zip(panels, spectra, titles, references, gaps, strict=True):
        if reference is not None:
            axes.fill_between(grid.points, reference, color="0.8", label="computed")
        lower, upper, _ = gap
        shaded = [(lower, upper)] if np.isfinite(upper) else []
        _draw(axes, spectrum, grid, shaded, filled=reference is None)
        axes.set_title(title, fontsize=9)
    if any(reference is not None for reference in references):
        panels[0].legend(frameon=False, fontsize=8)
    save_panels(figure, grid, PREDICTION_UNITS[grid.name], file)


def make_panels(count: int, columns: int) -> "tuple[Figure, list[Axes]]":
    """Make a figure with `count` axes in rows of `columns`.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise MissingExtraError("plotting spectra", "plot") from None
    rows = -(-count // columns)
    figure = Figure(figsize=(PANEL_SIZE[0] * columns, PANEL_SIZE[1] * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    for unused in axes[count:]:
        unused.remove()
    return figure, list(axes[:count])


def save_panels(figure: "Figure", grid: SpectrumGrid, density: str, file: Path) -> None:
    """Label the axes of a figure of spectra and write it."""
    for axes in figure.axes:
        axes.set_ylim(bottom=0)
    figure.supxlabel(AXIS_LABELS[grid.name], fontsize=9)
    figure.supylabel(density, fontsize=9)
    figure.savefig(file, dpi=120)


def _draw(
    axes: "Axes",
    densities: Float[np.ndarray, " bins"],
    grid: SpectrumGrid,
    gaps: Sequence[tuple[float, float]],
    *,
    filled: bool = True,
) -> None:
    """Draw a predicted spectrum, with ranges shaded."""
    if filled:
        axes.fill_between(grid.points, densities, color="C3", alpha=0.3)
    for lower, upper in gaps:
        axes.axvspan(lower, upper, color="C0", alpha=0.2)
    axes.plot(grid.points, densities, color="C3", label="predicted")
