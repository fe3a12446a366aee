"""How far predicted spectra are from computed ones: the four scores of the paper's Table 1, and the scales on which it takes them."""

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import rankdata

from mat2spec.dos.grid import Spectra, SpectrumGrid


def as_densities(spectra: Spectra) -> Spectra:
    """Read spectra as densities: negative numbers count as zero, and a spectrum without any density is flat.

    A network may predict nothing anywhere. That says as little about where the states are as a flat spectrum does, and moments of a flat
    one exist.
    """
    densities = spectra.clip(0)
    return np.where(densities.any(axis=1, keepdims=True), densities, 1)


def scaled_to_sum(spectra: Spectra, reference: Spectra) -> Spectra:
    """Scale each spectrum so that the sum over its bins is that of the reference: the paper's rows "SumNorm", in the labels' unit.

    Negative densities count as zero; a spectrum without any density stays zero.
    """
    densities = spectra.clip(0)
    return _scaled(densities, densities.sum(axis=1), reference.sum(axis=1))


def scaled_to_max(spectra: Spectra, reference: Spectra) -> Spectra:
    """Scale each spectrum so that its maximum is that of the reference: the paper's rows "MaxNorm", in the labels' unit.

    Negative densities count as zero; a spectrum without any density stays zero.
    """
    densities = spectra.clip(0)
    return _scaled(densities, densities.max(axis=1), reference.max(axis=1))


def as_predicted(spectra: Spectra, reference: Spectra) -> Spectra:
    """Leave spectra as they are, but for negative densities, which count as zero: what a user gets."""
    return spectra.clip(0)


def _scaled(densities: Spectra, have: Float[np.ndarray, " crystals"], want: Float[np.ndarray, " crystals"]) -> Spectra:
    return densities * (want / np.where(have > 0, have, 1))[:, None]


SHAPE_SCALINGS = ("true-sum", "unit-max")
"""Those on which only the shape of a prediction counts."""

SCALINGS = {"true-sum": scaled_to_sum, "unit-max": scaled_to_max, "self": as_predicted}
"""How predictions come to the scale of the labels before they are judged: each takes predictions and labels."""


def r2_score(predicted: Spectra, true: Spectra) -> float:
    """Variance-weighted coefficient of determination over bins, as scikit-learn's multioutput="variance_weighted".

    Bins where all labels are equal have no variance to explain and no weight. If there are no others (a single material), it is the
    fraction of bins without error, as in scikit-learn.
    """
    varying = np.ptp(true, axis=0) > 0
    if not varying.any():
        return float((predicted == true).all(axis=0).mean())
    predicted, true = predicted[:, varying], true[:, varying]
    residual = ((true - predicted) ** 2).sum()
    spread = ((true - true.mean(axis=0)) ** 2).sum()
    return float(1 - residual / spread)


def mean_absolute_error(predicted: Float[np.ndarray, "*shape"], true: Float[np.ndarray, "*shape"]) -> float:
    """Mean over crystals, and bins if there are any, in the unit of the labels."""
    return float(np.abs(predicted - true).mean())


def mean_squared_error(predicted: Float[np.ndarray, "*shape"], true: Float[np.ndarray, "*shape"]) -> float:
    """Mean over crystals, and bins if there are any, in the unit of the labels, squared."""
    return float(((predicted - true) ** 2).mean())


def wasserstein_distances(predicted: Spectra, true: Spectra, grid: SpectrumGrid) -> Float[np.ndarray, " crystals"]:
    """One-dimensional Wasserstein distance of each pair of spectra, both taken as distributions over the bin centres.

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
    """Give R², MAE, MSE and WD of predictions against labels on the same scale."""
    return {
        "r2": r2_score(predicted, true),
        "mae": mean_absolute_error(predicted, true),
        "mse": mean_squared_error(predicted, true),
        "wd": float(wasserstein_distances(predicted, true, grid).mean()),
    }


def classification_scores(
    predicted: Bool[np.ndarray, " crystals"], true: Bool[np.ndarray, " crystals"]
) -> dict[str, float]:
    """Score a yes or no: precision, recall and F1, and the counts from which they come (tp, fp, fn, tn).

    A score of which the counts say nothing, as the precision of no prediction, is NaN.
    """
    counts = {"tp": predicted & true, "fp": predicted & ~true, "fn": ~predicted & true, "tn": ~predicted & ~true}
    tp, fp, fn, tn = (int(found.sum()) for found in counts.values())
    rates = {"f1": (2 * tp, 2 * tp + fp + fn), "precision": (tp, tp + fp), "recall": (tp, tp + fn)}
    scores = {name: part / whole if whole else float("nan") for name, (part, whole) in rates.items()}
    return scores | {"tp": float(tp), "fp": float(fp), "fn": float(fn), "tn": float(tn)}


def most_likely_gap(outputs: Float[np.ndarray, "crystals 2"]) -> Float[np.ndarray, " crystals"]:
    """Gap that is expected of each crystal [eV]: none where a metal is more likely than not."""
    return np.where(outputs[:, 0] > 0.5, 0, outputs[:, 1])


def gap_scores(outputs: Float[np.ndarray, "crystals 2"], true: Float[np.ndarray, " crystals"]) -> dict[str, float]:
    """Score probabilities of metals and gaps against known gaps.

    Args:
        outputs: Probability of a metal, and gap if it is none [eV].
        true: Known gaps [eV]; 0 is a metal.

    Returns:
        `roc_auc` (a metal has the higher probability than a non-metal; NaN if all are of one kind), `accuracy` at probability ½, `mae` of
        the most likely gap over all crystals [eV], and `mae_of_gapped` over those that have one.
    """
    metal, predicted = true <= 0, most_likely_gap(outputs)
    return {
        "roc_auc": roc_auc(outputs[:, 0], metal),
        "accuracy": float(((outputs[:, 0] > 0.5) == metal).mean()),
        "mae": mean_absolute_error(predicted, true),
        "mae_of_gapped": mean_absolute_error(predicted[~metal], true[~metal]) if not metal.all() else float("nan"),
    }


def roc_auc(scores: Float[np.ndarray, " crystals"], positive: np.ndarray) -> float:
    """Area under the receiver operating characteristic: how often a positive has the higher score, ties counting half."""
    positives = int(positive.sum())
    negatives = len(positive) - positives
    if not positives or not negatives:
        return float("nan")
    return float((rankdata(scores)[positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))
