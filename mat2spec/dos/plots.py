"""Figures of spectra: one on the axes of a notebook, or a page of panels in a file."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from mat2spec.dos.edge_gaps import ValenceBandRule, vb_gaps
from mat2spec.dos.figures import COMPUTED, GAP, PREDICTED, figure_file, styled
from mat2spec.dos.grid import Spectra, SpectrumGrid

if TYPE_CHECKING:
    from matplotlib.axes import Axes

AXIS_LABELS = {"phdos": "frequency (cm⁻¹)", "edos": "energy, gap cut out (eV)"}

PREDICTION_UNITS = {"phdos": "states per cm⁻¹ per atom", "edos": "states/eV per primitive cell"}

PANEL_SIZE = (2.8, 2.0)
"""Largest width and the height of a panel [inch]."""


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
        with styled():
            from matplotlib import pyplot

            _, ax = pyplot.subplots(figsize=(5, 3))
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
    references = computed or [None] * len(spectra)
    with panels_file(file, len(spectra), grid, PREDICTION_UNITS[grid.name]) as panels:
        for axes, spectrum, title, reference, gap in zip(panels, spectra, titles, references, gaps, strict=True):
            if reference is not None:
                axes.fill_between(grid.points, reference, color=COMPUTED, label="computed")
            lower, upper, _ = gap
            shaded = [(lower, upper)] if np.isfinite(upper) else []
            _draw(axes, spectrum, grid, shaded, filled=reference is None)
            axes.set_title(title)
        if any(reference is not None for reference in references):
            panels[0].legend()


@contextmanager
def panels_file(file: Path, count: int, grid: SpectrumGrid, density: str, columns: int = 5) -> "Iterator[list[Axes]]":
    """Give axes for spectra on one grid, and write them as one figure when the block ends.

    Args:
        file: Picture to write, in the format of its ending.
        count: Number of panels.
        grid: Their axis.
        density: Label of the other axis.
        columns: Panels side by side, if there are as many.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    columns = min(columns, count)
    rows = -(-count // columns)
    with figure_file(file, PANEL_SIZE[0] * columns, PANEL_SIZE[1] * rows) as figure:
        axes = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
        for unused in axes[count:]:
            unused.remove()
        for lowest in axes[max(count - columns, 0) : count]:  # of each column, also above a place without a panel
            lowest.tick_params(labelbottom=True)
        yield list(axes[:count])
        for panel in axes[:count]:
            panel.set_ylim(bottom=0)
        figure.supxlabel(AXIS_LABELS[grid.name])
        figure.supylabel(density)


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
        axes.fill_between(grid.points, densities, color=PREDICTED, alpha=0.3)
    for lower, upper in gaps:
        axes.axvspan(lower, upper, color=GAP, alpha=0.3)
    axes.plot(grid.points, densities, color=PREDICTED, label="predicted")
