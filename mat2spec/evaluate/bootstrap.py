"""Cross-validated predictions pooled over folds, and paired bootstrap comparison of two networks."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float

from mat2spec.dos.grid import Spectra, SpectrumGrid
from mat2spec.dos.metrics import SCALINGS, wasserstein_distances
from mat2spec.evaluate.spectra import electronic_scores

RESAMPLES = 2000
"""Bootstrap resamples of a comparison."""

HIGHER_IS_BETTER = {"r2"}


@dataclass(frozen=True)
class PooledPredictions:
    """Test predictions of all folds; each material is predicted by the training that did not see it.

    Args:
        material_ids: Unique ids in alphabetical order.
        predicted: Predicted spectra.
        true: Labels.
        grid: Grid of both.
    """

    material_ids: tuple[str, ...]
    predicted: Spectra
    true: Spectra
    grid: SpectrumGrid

    @classmethod
    def read(cls, tables: Sequence[Path], scaling: str) -> "PooledPredictions":
        """Concatenate the test tables of several trainings and scale the predictions.

        Args:
            tables: Parquet files written by `train.result.evaluate_on_test`.
            scaling: A name in `SCALINGS`; "self" only if the networks predict the number of states.
        """
        table = pa.concat_tables([pq.read_table(path) for path in tables]).sort_by("material_id")
        grid = SpectrumGrid.from_json(json.loads(table.schema.metadata[b"grid"]))
        predicted = np.array(table["spectrum_predicted"].to_pylist(), np.float32)
        true = np.array(table["spectrum_true"].to_pylist(), np.float32)
        return cls(tuple(table["material_id"].to_pylist()), SCALINGS[scaling](predicted, true), true, grid)

    def scores(self) -> dict[str, float]:
        """R², MAE, MSE, WD, and classification scores of the VB gap."""
        return electronic_scores(self.predicted, self.true, self.grid)


def share_better(one: PooledPredictions, other: PooledPredictions, seed: int = 0) -> dict[str, float]:
    """Fraction of bootstrap resamples of the materials in which `one` has a better score than `other`, by metric.

    Both are resampled together (paired bootstrap), because what makes a material hard to predict is the same for both.

    Args:
        one: Predictions.
        other: Predictions for the same materials.
        seed: Seed of the resamples.
    """
    assert one.material_ids == other.material_ids, "only predictions for the same materials can be paired"
    materials = len(one.material_ids)
    rows = np.random.default_rng(seed).integers(materials, size=(RESAMPLES, materials))
    counts = np.stack([np.bincount(resample, minlength=materials) for resample in rows]).astype(float)
    ours = _scores_of_resamples(one, counts)
    theirs = _scores_of_resamples(other, counts)
    better = {
        name: ours[name] > theirs[name] if name in HIGHER_IS_BETTER else ours[name] < theirs[name] for name in ours
    }
    return {name: float(wins.mean()) for name, wins in better.items()}


def _scores_of_resamples(
    predictions: PooledPredictions, counts: Float[np.ndarray, "resamples materials"]
) -> dict[str, Float[np.ndarray, " resamples"]]:
    """R², MAE, MSE and WD of many resamples at once, each given as the count of every material in it.

    The variance of the labels times their number is Σ t² − n t̄², so that matrix products give it for every resample.
    """
    predicted = predictions.predicted.astype(float)
    true = predictions.true.astype(float)
    errors = predicted - true
    materials = counts.shape[1]
    squares = counts @ (errors**2).sum(axis=1)
    spread = counts @ (true**2).sum(axis=1) - ((counts @ true) ** 2).sum(axis=1) / materials
    return {
        "r2": 1 - squares / spread,
        "mae": counts @ np.abs(errors).mean(axis=1) / materials,
        "mse": squares / errors.size,
        "wd": counts @ wasserstein_distances(predicted, true, predictions.grid) / materials,
    }
