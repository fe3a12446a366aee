"""Plots of predicted spectra and band gaps against true ones, and of their errors."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mat2spec.dos.plots import make_panels, save_panels
from mat2spec.evaluate.band_gaps import BandGapEvaluation
from mat2spec.evaluate.evaluate import AnyEvaluation
from mat2spec.evaluate.spectra import SpectrumEvaluation

LABEL_UNITS = {"phdos": "phonon DOS (max. 1)", "edos": "states/eV per primitive cell"}

BOX: dict[str, Any] = {
    "widths": 0.6,
    "patch_artist": True,
    "boxprops": {"facecolor": "0.9"},
    "medianprops": {"color": "C3"},
    "flierprops": {"markersize": 3},
}
"""Style of box plots: boxes hold half of the materials, whiskers reach 1.5 times as far, points are the rest."""

FIGURES = ("-spectra.png", "-errors.png", "-heat.png", "-thresholds.png", "-gaps.png")
"""Endings of the plot files that an evaluation may have."""


def evaluation_plots(evaluation: AnyEvaluation, materials: pa.Table) -> Mapping[str, Callable[[Path], None]]:
    """Plot functions for an evaluation and its table of materials, by file ending."""
    if isinstance(evaluation, BandGapEvaluation):
        return {"-gaps.png": partial(band_gaps, evaluation)}
    plots: dict[str, Callable[[Path], None]] = {
        "-spectra.png": partial(spectra_by_error, evaluation),
        "-errors.png": partial(errors_by_kind, materials),
    }
    if evaluation.grid.per_cell:
        return plots | {"-thresholds.png": partial(precision_and_recall, evaluation)}
    return plots | {"-heat.png": partial(heat_errors, materials)}


def plot_evaluation(evaluation: AnyEvaluation, file: Path) -> None:
    """Plot predictions against labels."""
    if isinstance(evaluation, BandGapEvaluation):
        band_gaps(evaluation, file)
    else:
        spectra_by_error(evaluation, file)


def band_gaps(evaluation: BandGapEvaluation, file: Path) -> None:
    """Plot predicted against known band gaps."""
    figure = Figure(figsize=(3.6, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 10], [0, 10], color="0.6", linewidth=0.8)
    axes.scatter(evaluation.true, evaluation.predicted, s=4, color="C3", alpha=0.3, linewidths=0)
    axes.set_xlabel("known band gap (eV)", fontsize=9)
    axes.set_ylabel("predicted band gap (eV)", fontsize=9)
    figure.savefig(file, dpi=120)


def spectra_by_error(evaluation: SpectrumEvaluation, file: Path) -> None:
    """Plot predicted and computed spectra of five materials, one per fifth of the errors (as Fig. 3 of the paper)."""
    rows = evaluation.one_per_quintile()
    figure, panels = make_panels(len(rows), columns=5)
    for panel, row in zip(panels, rows, strict=True):
        panel.fill_between(evaluation.grid.points, evaluation.true[row], color="0.8", label="DFT")
        panel.plot(evaluation.grid.points, evaluation.predicted[row], color="C3", label="predicted")
        panel.set_title(f"{evaluation.crystals.crystals[row].formula}  MAE {evaluation.errors[row]:.3f}", fontsize=9)
    panels[0].legend(frameon=False, fontsize=8)
    save_panels(figure, evaluation.grid, LABEL_UNITS[evaluation.grid.name], file)


def heat_errors(materials: pa.Table, file: Path) -> None:
    """Plot the relative errors of the heat capacity and the mean frequency (as Fig. 2 of the paper).

    Args:
        materials: Table of an evaluation, one row per material.
        file: PNG file to write.
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


def precision_and_recall(evaluation: SpectrumEvaluation, file: Path) -> None:
    """Plot precision against recall of predicted VB gaps for a range of density thresholds; labels keep 1 state/eV."""
    curve = evaluation.threshold_curve()
    figure = Figure(figsize=(3.6, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.plot([point["recall"] for point in curve], [point["precision"] for point in curve], color="C3", marker=".")
    for point in curve[::4]:
        if np.isfinite(point["precision"]) and np.isfinite(point["recall"]):
            axes.annotate(f"{point['threshold']:g}", (point["recall"], point["precision"]), fontsize=7)
    axes.set_xlim(0, 1.05)
    axes.set_ylim(0, 1.05)
    axes.set_xlabel("recall of VB gaps", fontsize=9)
    axes.set_ylabel("precision", fontsize=9)
    axes.set_title("by threshold for predictions (states/eV)", fontsize=9)
    figure.savefig(file, dpi=120)


def errors_by_kind(materials: pa.Table, file: Path) -> None:
    """Plot the error against the numbers of elements, of sites and of training materials with all its elements.

    As Figs. S3 and S4 of the paper.

    Args:
        materials: Table of an evaluation, one row per material.
        file: PNG file to write.
    """
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    kinds = {
        "elements": (materials["elements"].combine_chunks().value_lengths().to_numpy(), (1, 2, 3, 4, 5)),
        "sites in the cell": (materials["nsites"].to_numpy(), (1, 3, 5, 7, 9, 11, 13)),
        "training materials with all its elements": (materials["training_neighbors"].to_numpy(), (0, 1, 2, 4, 8)),
    }
    panels = figure.subplots(1, len(kinds), sharey=True)
    for axes, (label, (counts, starts)) in zip(panels, kinds.items(), strict=True):
        _boxes_by_count(axes, materials["mae"].to_numpy(), counts, starts)
        axes.set_xlabel(label, fontsize=9)
    panels[0].set_ylim(bottom=0)
    panels[0].set_ylabel("MAE of the spectrum (unit of the labels)", fontsize=9)
    figure.supxlabel("number of materials in brackets", fontsize=8, color="0.4")
    figure.savefig(file, dpi=120)


def _boxes_by_count(
    axes: Axes, errors: Float[np.ndarray, " materials"], counts: Int[np.ndarray, " materials"], starts: Sequence[int]
) -> None:
    """Draw one box for each non-empty range of counts; each range ends where the next starts."""
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
