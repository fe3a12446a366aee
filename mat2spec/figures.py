"""Pictures of spectra."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from mat2spec.evaluation import Evaluation
from mat2spec.spectrum import Spectra, SpectrumGrid

AXIS_LABELS = {"phdos": "frequency (cm⁻¹)"}
PANEL_SIZE = (3.2, 2.4)
"""[inch]"""


def spectra_by_error(evaluation: Evaluation, file: Path) -> None:
    """Draw predicted over computed spectra of five materials, one from each fifth of the error (as Fig. 3 of the paper)."""
    chosen = evaluation.one_per_quintile()
    figure, panels = _panels(len(chosen), columns=5)
    for panel, row in zip(panels, chosen, strict=True):
        panel.fill_between(evaluation.grid.points, evaluation.true[row], color="0.8", label="DFT")
        panel.plot(evaluation.grid.points, evaluation.predicted[row], color="C3", label="predicted")
        panel.set_title(f"{evaluation.crystals.crystals[row].formula}  MAE {evaluation.errors[row]:.3f}", fontsize=9)
    panels[0].legend(frameon=False, fontsize=8)
    _save(figure, evaluation.grid, "phonon DOS (max. 1)", file)


def predicted_spectra(spectra: Spectra, titles: Sequence[str], grid: SpectrumGrid, file: Path) -> None:
    """Draw each spectrum in a panel of its own."""
    figure, panels = _panels(len(spectra), columns=min(5, len(spectra)))
    for panel, spectrum, title in zip(panels, spectra, titles, strict=True):
        panel.fill_between(grid.points, spectrum, color="C3", alpha=0.3)
        panel.plot(grid.points, spectrum, color="C3")
        panel.set_title(title, fontsize=9)
    _save(figure, grid, f"states per {grid.unit} per atom", file)


def _panels(count: int, columns: int) -> tuple[Figure, list]:
    """Make a figure with `count` axes in rows of `columns`."""
    rows = -(-count // columns)
    figure = Figure(figsize=(PANEL_SIZE[0] * columns, PANEL_SIZE[1] * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    for unused in axes[count:]:
        unused.remove()
    return figure, list(axes[:count])


def _save(figure: Figure, grid: SpectrumGrid, density: str, file: Path) -> None:
    for axes in figure.axes:
        axes.set_ylim(bottom=0)
    figure.supxlabel(AXIS_LABELS[grid.name], fontsize=9)
    figure.supylabel(density, fontsize=9)
    figure.savefig(file, dpi=120)
