"""Pictures of spectra and of their errors."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mat2spec.evaluation import Evaluation
from mat2spec.spectrum import Spectra, SpectrumGrid

AXIS_LABELS = {"phdos": "frequency (cm⁻¹)"}
PANEL_SIZE = (3.2, 2.4)
"""[inch]"""

BOX: dict[str, Any] = {
    "widths": 0.6,
    "patch_artist": True,
    "boxprops": {"facecolor": "0.9"},
    "medianprops": {"color": "C3"},
    "flierprops": {"markersize": 3},
}
"""Boxes hold half of the materials, whiskers reach 1.5 times as far, points are the rest."""


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


def heat_errors(materials: pa.Table, file: Path) -> None:
    """Draw the relative errors of the heat capacity and the mean frequency (as Fig. 2 of the paper).

    Args:
        materials: Table of an evaluation, one row per material.
        file: Where to.
    """
    figure = Figure(figsize=(5.2, 3.2), layout="constrained")
    quantities = {"heat_capacity_300K": "$C_V$ at 300 K", "mean_frequency": "mean frequency"}
    for axes, (name, title) in zip(figure.subplots(1, len(quantities)), quantities.items(), strict=True):
        true = materials[f"{name}_true"].to_numpy()
        errors = 100 * (materials[f"{name}_predicted"].to_numpy() / true - 1)
        axes.axhline(0, color="0.6", linewidth=0.8)
        axes.boxplot(errors, **BOX)
        axes.set_xticks([])
        axes.set_title(f"{title}\nmedian |error| {np.median(np.abs(errors)):.1f} %", fontsize=9)
        axes.set_ylabel("(predicted − DFT) / DFT (%)", fontsize=9)
    figure.savefig(file, dpi=120)


def errors_by_kind(materials: pa.Table, file: Path) -> None:
    """Draw the error against the number of elements, of sites and of training neighbours (as Figs. S3 and S4 of the paper).

    Args:
        materials: Table of an evaluation, one row per material.
        file: Where to.
    """
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    kinds = {
        "elements": (materials["elements"].combine_chunks().value_lengths().to_numpy(), (1, 2, 3, 4, 5)),
        "sites in the cell": (materials["nsites"].to_numpy(), (1, 3, 5, 7, 9, 11, 13)),
        "training materials with all of its elements": (materials["training_neighbors"].to_numpy(), (0, 1, 2, 4, 8)),
    }
    panels = figure.subplots(1, len(kinds), sharey=True)
    for axes, (label, (counts, starts)) in zip(panels, kinds.items(), strict=True):
        _boxes_by_count(axes, materials["mae"].to_numpy(), counts, starts)
        axes.set_xlabel(label, fontsize=9)
    panels[0].set_ylim(bottom=0)
    panels[0].set_ylabel("MAE of the spectrum (max. 1)", fontsize=9)
    figure.supxlabel("in brackets: number of materials", fontsize=8, color="0.4")
    figure.savefig(file, dpi=120)


def _boxes_by_count(
    axes: Axes, errors: Float[np.ndarray, " materials"], counts: Int[np.ndarray, " materials"], starts: Sequence[int]
) -> None:
    """Draw one box for each range of counts that holds any; each range goes to the next start."""
    groups = np.searchsorted(starts, counts, side="right") - 1
    present = np.unique(groups).tolist()
    boxes = [errors[groups == group] for group in present]
    labels = [f"{_range(starts, group)}\n({len(box)})" for group, box in zip(present, boxes, strict=True)]
    axes.boxplot(boxes, tick_labels=labels, **BOX)
    axes.tick_params(labelsize=8)


def _range(starts: Sequence[int], group: int) -> str:
    if group == len(starts) - 1:
        return f"≥ {starts[group]}"
    first, last = starts[group], starts[group + 1] - 1
    return str(first) if first == last else f"{first}–{last}"


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
