"""Plots of predicted spectra and band gaps against true ones, and of their errors."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from mat2spec.dos.figures import COMPUTED, GUIDE, PAGE_WIDTH, PREDICTED, figure_file
from mat2spec.dos.plots import panels_file
from mat2spec.evaluate.band_gaps import BandGapEvaluation
from mat2spec.evaluate.evaluate import AnyEvaluation
from mat2spec.evaluate.features import FeatureEvaluation
from mat2spec.evaluate.spectra import SpectrumEvaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BOX: dict[str, Any] = {
    "widths": 0.6,
    "patch_artist": True,
    "boxprops": {"facecolor": "0.9"},
    "medianprops": {"color": PREDICTED},
    "flierprops": {"markersize": 3},
}
"""Style of box plots: boxes hold half of the materials, whiskers reach 1.5 times as far, points are the rest."""

FIGURES = ("-spectra.png", "-errors.png", "-heat.png", "-thresholds.png", "-gaps.png", "-features.png")
"""Endings of the plot files that an evaluation may have."""


def evaluation_plots(evaluation: AnyEvaluation, materials: pa.Table) -> Mapping[str, Callable[[Path], None]]:
    """Plot functions for an evaluation and its table of materials, by file ending."""
    if isinstance(evaluation, BandGapEvaluation):
        return {"-gaps.png": partial(band_gaps, evaluation)}
    if isinstance(evaluation, FeatureEvaluation):
        return {"-features.png": partial(features, evaluation)}
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
    elif isinstance(evaluation, FeatureEvaluation):
        features(evaluation, file)
    else:
        spectra_by_error(evaluation, file)


def band_gaps(evaluation: BandGapEvaluation, file: Path) -> None:
    """Plot predicted against known band gaps."""
    _scatter(evaluation.true, evaluation.predicted, "band gap (eV)", (0.0, 10.0), file)


def features(evaluation: FeatureEvaluation, file: Path) -> None:
    """Plot predicted against known features, all of them together."""
    _scatter(evaluation.true.ravel(), evaluation.predicted.ravel(), "features (standard deviations)", (-4.0, 4.0), file)


def _scatter(
    true: Float[np.ndarray, " values"],
    predicted: Float[np.ndarray, " values"],
    quantity: str,
    ends: tuple[float, float],
    file: Path,
) -> None:
    with figure_file(file, 3.6, 3.4) as figure:
        axes = figure.subplots()
        axes.plot(ends, ends, color=GUIDE, linewidth=0.8)
        axes.scatter(true, predicted, s=4, color=PREDICTED, alpha=0.3, linewidths=0)
        axes.set_xlabel(f"known {quantity}")
        axes.set_ylabel(f"predicted {quantity}")


def spectra_by_error(evaluation: SpectrumEvaluation, file: Path) -> None:
    """Plot predicted and computed spectra of five materials, one per fifth of the errors (as Fig. 3 of the paper)."""
    rows = evaluation.one_per_quintile()
    with panels_file(file, len(rows), evaluation.grid, evaluation.label_unit) as panels:
        for panel, row in zip(panels, rows, strict=True):
            panel.fill_between(evaluation.grid.points, evaluation.true[row], color=COMPUTED, label="DFT")
            panel.plot(evaluation.grid.points, evaluation.predicted[row], color=PREDICTED, label="predicted")
            panel.set_title(f"{evaluation.crystals.crystals[row].formula}\nMAE {evaluation.errors[row]:.2g}")
        panels[0].legend()


def error_histogram(evaluation: AnyEvaluation, file: Path) -> None:
    """Plot how many materials have which mean absolute error, and the median."""
    with figure_file(file, 3.6, 3.0) as figure:
        axes = figure.subplots()
        axes.hist(evaluation.errors, bins="auto", color=COMPUTED, edgecolor=GUIDE, linewidth=0.5)
        median = np.median(evaluation.errors)
        axes.axvline(median, color=PREDICTED)
        axes.set_title(f"{len(evaluation.errors)} materials, median {median:.3g}")
        axes.set_xlabel(f"mean absolute error, {_label_unit(evaluation)}")
        axes.set_ylabel("materials")
        axes.locator_params(axis="x", nbins=5)


def _label_unit(evaluation: AnyEvaluation) -> str:
    if isinstance(evaluation, BandGapEvaluation):
        return "eV"
    if isinstance(evaluation, FeatureEvaluation):
        return "standard deviations"
    return evaluation.label_unit


def heat_errors(materials: pa.Table, file: Path) -> None:
    """Plot the relative errors of the heat capacity and the mean frequency (as Fig. 2 of the paper).

    Args:
        materials: Table of an evaluation, one row per material.
        file: PNG file to write.
    """
    quantities = {"heat_capacity_300K": "$C_V$ at 300 K", "mean_frequency": "mean frequency"}
    with figure_file(file, 5.2, 3.2) as figure:
        for axes, (name, title) in zip(figure.subplots(1, len(quantities)), quantities.items(), strict=True):
            true = materials[f"{name}_true"].to_numpy()
            errors = 100 * (materials[f"{name}_predicted"].to_numpy() / true - 1)
            axes.axhline(0, color=GUIDE, linewidth=0.8)
            axes.boxplot(errors, **BOX)
            axes.set_xticks([])
            axes.set_title(f"{title}\nmedian |error| {np.median(np.abs(errors)):.1f} %")
            axes.set_ylabel("(predicted − DFT) / DFT (%)")


def precision_and_recall(evaluation: SpectrumEvaluation, file: Path) -> None:
    """Plot precision against recall of predicted VB gaps for a range of density thresholds; labels keep 1 state/eV."""
    curve = evaluation.threshold_curve()
    recall, precision = ([point[name] for point in curve] for name in ("recall", "precision"))
    with figure_file(file, 3.6, 3.2) as figure:
        axes = figure.subplots()
        axes.plot(recall, precision, color=PREDICTED, marker=".")
        for point in curve[::4]:
            if np.isfinite(point["precision"]) and np.isfinite(point["recall"]):
                axes.annotate(f"{point['threshold']:g}", (point["recall"], point["precision"]), fontsize=8)
        axes.set(xlim=(0, 1.05), ylim=(0, 1.05), xlabel="recall of VB gaps", ylabel="precision")
        axes.set_title("by threshold for predictions (states/eV)")


def errors_by_kind(materials: pa.Table, file: Path) -> None:
    """Plot the error against the numbers of elements, of sites and of training materials with all its elements.

    As Figs. S3 and S4 of the paper.

    Args:
        materials: Table of an evaluation, one row per material.
        file: PNG file to write.
    """
    kinds = {
        "elements": (materials["elements"].combine_chunks().value_lengths().to_numpy(), (1, 2, 3, 4, 5)),
        "sites in the cell": (materials["nsites"].to_numpy(), (1, 3, 5, 7, 9, 11, 13)),
        "training materials with all its elements": (materials["training_neighbors"].to_numpy(), (0, 1, 2, 4, 8)),
    }
    with figure_file(file, PAGE_WIDTH, 3.0) as figure:
        panels = figure.subplots(1, len(kinds), sharey=True)
        for axes, (label, (counts, starts)) in zip(panels, kinds.items(), strict=True):
            _boxes_by_count(axes, materials["mae"].to_numpy(), counts, starts)
            axes.set_xlabel(label)
        panels[0].set_ylim(bottom=0)
        panels[0].set_ylabel(f"MAE of the spectrum\n{materials.schema.metadata[b'unit'].decode()}")
        figure.supxlabel("number of materials in brackets", fontsize=8, color=GUIDE)


def _boxes_by_count(
    axes: "Axes", errors: Float[np.ndarray, " materials"], counts: Int[np.ndarray, " materials"], starts: Sequence[int]
) -> None:
    """Draw one box for each non-empty range of counts; each range ends where the next starts."""
    groups = np.searchsorted(starts, counts, side="right") - 1
    present = np.unique(groups).tolist()
    boxes = [errors[groups == group] for group in present]
    labels = [f"{_range(starts, group)}\n({len(box)})" for group, box in zip(present, boxes, strict=True)]
    axes.boxplot(boxes, tick_labels=labels, **BOX)


def _range(starts: Sequence[int], group: int) -> str:
    if group == len(starts) - 1:
        return f"≥ {starts[group]}"
    first, last = starts[group], starts[group + 1] - 1
    return str(first) if first == last else f"{first}–{last}"
