"""How far predicted spectra are from computed ones: the four scores of the paper's Table 1."""

import numpy as np
from jaxtyping import Float

from mat2spec.spectrum import Spectra, SpectrumGrid


def scaled_to_sum(spectra: Spectra, reference: Spectra) -> Spectra:
    """Scale each spectrum so that the sum over its bins is that of the reference ("true-sum", shape only)."""
    return spectra * (reference.sum(axis=1) / spectra.sum(axis=1))[:, None]


def r2_score(predicted: Spectra, true: Spectra) -> float:
    """Variance-weighted coefficient of determination over bins, as scikit-learn's multioutput="variance_weighted"."""
    varying = np.ptp(true, axis=0) > 0
    predicted, true = predicted[:, varying], true[:, varying]
    residual = ((true - predicted) ** 2).sum()
    spread = ((true - true.mean(axis=0)) ** 2).sum()
    return float(1 - residual / spread)


def mean_absolute_error(predicted: Float[np.ndarray, "*shape"], true: Float[np.ndarray, "*shape"]) -> float:
    """Mean over crystals, and bins if there are any, in the unit of the labels."""
    return float(np.abs(predicted - true).mean())


def mean_squared_error(predicted: Spectra, true: Spectra) -> float:
    """Mean over crystals and bins, in the unit of the labels, squared."""
    return float(((predicted - true) ** 2).mean())


def wasserstein_distances(predicted: Spectra, true: Spectra, grid: SpectrumGrid) -> Float[np.ndarray, " crystals"]:
    """One-dimensional Wasserstein distance of each pair of spectra, both taken as distributions over the bin centres.

    Negative densities count as zero.

    Returns:
        Distances in the grid's unit (cm⁻¹, eV).
    """
    steps = np.diff(grid.points)
    cumulative = [np.cumsum(s / s.sum(axis=1, keepdims=True), axis=1) for s in (predicted.clip(0), true.clip(0))]
    return np.abs(cumulative[0] - cumulative[1])[:, :-1] @ steps


def score(predicted: Spectra, true: Spectra, grid: SpectrumGrid) -> dict[str, float]:
    """Give R², MAE, MSE and WD of predictions against labels on the same scale."""
    return {
        "r2": r2_score(predicted, true),
        "mae": mean_absolute_error(predicted, true),
        "mse": mean_squared_error(predicted, true),
        "wd": float(wasserstein_distances(predicted, true, grid).mean()),
    }
