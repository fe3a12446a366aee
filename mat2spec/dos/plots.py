"""Figures of spectra."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from mat2spec.dos.edge_gaps import ValenceBandRule, vb_gaps
from mat2spec.dos.grid import Spectra, SpectrumGrid

AXIS_LABELS = {"phdos": "frequency (cm⁻¹)", "edos": "energy, gap cut out (eV)"}


PREDICTION_UNITS = {"phdos": "states per cm⁻¹ per atom", "edos": "states/eV per primitive cell"}


PANEL_SIZE = (3.2, 2.4)
"""[inch]"""


def predicted_spectra(
    spectra: Spectra, titles: Sequence[str], grid: SpectrumGrid, file: Path, computed: Sequence[np.ndarray | None] = ()
) -> None:
    """Draw each spectrum in a panel of its own; of electronic ones, shade the predicted gap below the valence band maximum.

    Args:
        spectra: Predicted ones.
        titles: One for each.
        grid: Their axis.
        file: Where to.
        computed: Spectra that DFT gave, for some or all; they lie in grey behind the predicted ones.
    """
    gaps = vb_gaps(spectra, grid, ValenceBandRule()) if grid.per_cell else np.full((len(spectra), 3), np.nan)
    figure, panels = make_panels(len(spectra), columns=min(5, len(spectra)))
    behind = computed or [None] * len(spectra)
    for panel, spectrum, title, true, (lower, upper, _) in zip(panels, spectra, titles, behind, gaps, strict=True):
        if true is None:
            panel.fill_between(grid.points, spectrum, color="C3", alpha=0.3)
        else:
            panel.fill_between(grid.points, true, color="0.8", label="computed")
        if np.isfinite(upper):
            panel.axvspan(lower, upper, color="C0", alpha=0.2)
        panel.plot(grid.points, spectrum, color="C3", label="predicted")
        panel.set_title(title, fontsize=9)
    if any(true is not None for true in behind):
        panels[0].legend(frameon=False, fontsize=8)
    save_panels(figure, grid, PREDICTION_UNITS[grid.name], file)


def make_panels(count: int, columns: int) -> tuple[Figure, list]:
    """Make a figure with `count` axes in rows of `columns`."""
    rows = -(-count // columns)
    figure = Figure(figsize=(PANEL_SIZE[0] * columns, PANEL_SIZE[1] * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    for unused in axes[count:]:
        unused.remove()
    return figure, list(axes[:count])


def save_panels(figure: Figure, grid: SpectrumGrid, density: str, file: Path) -> None:
    """Label the axes of a figure of spectra and write it."""
    for axes in figure.axes:
        axes.set_ylim(bottom=0)
    figure.supxlabel(AXIS_LABELS[grid.name], fontsize=9)
    figure.supylabel(density, fontsize=9)
    figure.savefig(file, dpi=120)
