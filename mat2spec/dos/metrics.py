"""Errors of predicted spectra (R², MAE, MSE, Wasserstein), of yes-or-no answers and of band gaps.

The four scores of spectra, and the scalings on which they are computed, are those of Table 1 of the paper (Kong et al.,
10.1038/s41467-022-28543-x).
"""

import numpy as np
from jaxtyping import Bool, Float

from mat2spec.dos.grid import Spectra, SpectrumGrid


def as_densities(spectra: Spectra) -> Spectra:
    """Clip negative numbers to zero, and make a spectrum without any density flat.

    A network may predict zero everywhere. That says as little about where the states are as a flat spectrum does, and a
    flat one has moments.
    """
    densities = spectra.clip(0)
    return np.where(densities.any(axis=1, keepdims=True), densities, 1)


def scaled_to_sum(spectra: Spectra, reference: Spectra) -> Spectra:
    """Scale each spectrum to the sum over bins of its reference: the paper's rows "SumNorm", in the labels' unit.

    Negative densities count as zero; a spectrum without any density stays zero.
    """
    densities = spectra.clip(0)
    return _rescaled(densities, densities.sum(axis=1), reference.sum(axis=1))


def scaled_to_max(spectra: Spectra, reference: Spectra) -> Spectra:
    """Scale each spectrum to the maximum of its reference: the paper's rows "MaxNorm", in the labels' unit.

    Negative densities count as zero; a spectrum without any density stays zero.
    """
    densities = spectra.clip(0)
    return _rescaled(densities, densities.max(axis=1), reference.max(axis=1))


def as_predicted(spectra: Spectra, reference: Spectra) -> Spectra:
    """Clip negative densities to zero and change nothing else: what a user gets."""
    return spectra.clip(0)


SHAPE_SCALINGS = ("true-sum", "unit-max")
"""Scalings on which only the shape of a prediction counts."""

SCALINGS = {"true-sum": scaled_to_sum, "unit-max": scaled_to_max, "self": as_predicted}
"""Functions of predictions and labels that scale predictions before they are scored, by name."""


def r2_score(predicted: Spectra, true: Spectra) -> float:
    """Variance-weighted coefficient of determination over bins, as scikit-learn's multioutput="variance_weighted".

    Bins where all labels are equal have no variance to explain and no weight. If all bins are such (a single material),
    the score is the fraction of bins without error, as in scikit-learn.
    """
    varying = np.ptp(true, axis=0) > 0
    if not varying.any():
        return float((predicted == true).all(axis=0).mean())
    predicted, true = predicted[:, varying], true[:, varying]
    residual = ((true - predicted) ** 2).sum()
    spread = ((true - true.mean(axis=0)) ** 2).sum()
    return float(1 - residual / spread)


def mean_absolute_error(predicted: Float[np.ndarray, "*shape"], true: Float[np.ndarray, "*shape"]) -> float:
    """Mean absolute error over crystals, and bins if there are any, in the unit of the labels."""
    return float(np.abs(predicted - true).mean())


def mean_squared_error(predicted: Float[np.ndarray, "*shape"], true: Float[np.ndarray, "*shape"]) -> float:
    """Mean squared error over crystals, and bins if there are any, in the squared unit of the labels."""
    return float(((predicted - true) ** 2).mean())


def wasserstein_distances(predicted: Spectra, true: Spectra, grid: SpectrumGrid) -> Float[np.ndarray, " crystals"]:
    """One-dimensional Wasserstein distance of each pair of spectra, as distributions over the bin centers.

    Negative densities count as zero; a spectrum without any density counts as flat.

    Returns:
        Distances in the grid's unit (cm⁻¹, eV).
    """
    steps = np.diff(grid.points)
    cumulative = [
        np.cumsum(s / s.sum(axis=1, keepdims=True), axis=1) for s in (as_densities(predicted), as_densities(true))
    ]
    return np.abs(cumulative[0] - cumulative[1])[:, :-1] @ steps


def score(predicted: Spectra, true: Spectra, grid: SpectrumGrid) -> dict[str, float]:
    """Return R², MAE, MSE and WD of predictions against labels on the same scale."""
    return {
        "r2": r2_score(predicted, true),
        "mae": mean_absolute_error(predicted, true),
        "mse": mean_squared_error(predicted, true),
        "wd": float(wasserstein_distances(predicted, true, grid).mean()),
    }


def feature_scores(
    predicted: Float[np.ndarray, "crystals features"], true: Float[np.ndarray, "crystals features"]
) -> dict[str, float]:
    """Return R² and MAE of features on a scale that they share."""
    return {"r2": r2_score(predicted, true), "mae": mean_absolute_error(predicted, true)}


def classification_scores(
    predicted: Bool[np.ndarray, " crystals"], true: Bool[np.ndarray, " crystals"]
) -> dict[str, float]:
    """Score yes-or-no predictions: precision, recall, F1 and the counts behind them (tp, fp, fn, tn).

    A score that the counts do not define, such as the precision of no positive prediction, is NaN.
    """
    counts = {"tp": predicted & true, "fp": predicted & ~true, "fn": ~predicted & true, "tn": ~predicted & ~true}
    tp, fp, fn, tn = (int(cases.sum()) for cases in counts.values())
    rates = {"f1": (2 * tp, 2 * tp + fp + fn), "precision": (tp, tp + fp), "recall": (tp, tp + fn)}
    scores = {name: share / total if total else float("nan") for name, (share, total) in rates.items()}
    return scores | {"tp": float(tp), "fp": float(fp), "fn": float(fn), "tn": float(tn)}


def most_likely_gap(outputs: Float[np.ndarray, "crystals 2"]) -> Float[np.ndarray, " crystals"]:
    """Most likely gap of each crystal [eV]: zero where a metal is more likely than not.

    Args:
        outputs: Probability of a metal, and gap if it is none [eV].
    """
    return np.where(outputs[:, 0] > 0.5, 0, outputs[:, 1])


def gap_scores(outputs: Float[np.ndarray, "crystals 2"], true: Float[np.ndarray, " crystals"]) -> dict[str, float]:
    """Score probabilities of metals and gaps against known gaps.

    Args:
        outputs: Probability of a metal, and gap if it is none [eV].
        true: Known gaps [eV]; 0 is a metal.

    Returns:
        `roc_auc` (how often a metal has a higher probability than a non-metal; NaN if all are of one kind), `accuracy`
        at probability ½, `mae` of the most likely gap over all crystals [eV], and `mae_of_gapped` over those with a
        gap.
    """
    metal = true <= 0
    predicted = most_likely_gap(outputs)
    return {
        "roc_auc": roc_auc(outputs[:, 0], metal),
        "accuracy": float(((outputs[:, 0] > 0.5) == metal).mean()),
        "mae": mean_absolute_error(predicted, true),
        "mae_of_gapped": mean_absolute_error(predicted[~metal], true[~metal]) if not metal.all() else float("nan"),
    }


def roc_auc(scores: Float[np.ndarray, " crystals"], positive: Bool[np.ndarray, " crystals"]) -> float:
    """Area under the ROC curve: how often a positive has a higher score than a negative, ties counting half."""
    from scipy.stats import rankdata  # takes half a second to import, which a prediction does not need

    positives = int(positive.sum())
    negatives = len(positive) - positives
    if not positives or not negatives:
        return float("nan")
    return float((rankdata(scores)[positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def _rescaled(
    densities: Spectra, current: Float[np.ndarray, " crystals"], wanted: Float[np.ndarray, " crystals"]
) -> Spectra:
    return densities * (wanted / np.where(current > 0, current, 1))[:, None]
