"""Predictions of several trainings taken together, and whether one network is better than another or only luckier."""

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

HIGHER_IS_BETTER = {"r2"}


@dataclass(frozen=True)
class PooledPredictions:
    """What the trainings of all folds predict for the materials that each of them did not see.

    Args:
        material_ids: Each once, in alphabetical order.
        predicted: Spectra.
        true: Labels.
        grid: Axis of both.
    """

    material_ids: tuple[str, ...]
    predicted: Spectra
    true: Spectra
    grid: SpectrumGrid

    @classmethod
    def read(cls, tables: Sequence[Path], scaling: str) -> "PooledPredictions":
        """Put tables of test rows, as trainings leave them, one after the other, and bring predictions to a scale.

        Args:
            tables: Parquet files.
            scaling: A name in `SCALINGS`; "self" only if the networks know the number of states.
        """
        table = pa.concat_tables([pq.read_table(path) for path in tables]).sort_by("material_id")
        grid = SpectrumGrid.from_json(json.loads(table.schema.metadata[b"grid"]))
        predicted, true = (
            np.array(table[f"spectrum_{name}"].to_pylist(), np.float32) for name in ("predicted", "true")
        )
        return cls(tuple(table["material_id"].to_pylist()), SCALINGS[scaling](predicted, true), true, grid)

    def scores(self) -> dict[str, float]:
        """R², MAE, MSE and WD, and the VB gap as a class."""
        return electronic_scores(self.predicted, self.true, self.grid)


def share_better(one: PooledPredictions, other: PooledPredictions, seed: int = 0) -> dict[str, float]:
    """Give the share of bootstrap resamples of the materials in which one set of predictions has the better score, by metric.

    Both are resampled together (a paired bootstrap): what makes a material hard is the same for both.

    Args:
        one: Some predictions.
        other: Predictions for the same materials.
        seed: Of the resamples.
    """
    assert one.material_ids == other.material_ids, "only predictions for the same materials can be paired"
    materials = len(one.material_ids)
    rows = np.random.default_rng(seed).integers(materials, size=(RESAMPLES, materials))
    counts = np.stack([np.bincount(resample, minlength=materials) for resample in rows]).astype(float)
    ours, theirs = (_scores_of_resamples(each, counts) for each in (one, other))
    better = {
        name: ours[name] > theirs[name] if name in HIGHER_IS_BETTER else ours[name] < theirs[name] for name in ours
    }
    return {name: float(found.mean()) for name, found in better.items()}


def _scores_of_resamples(
    predictions: PooledPredictions, counts: Float[np.ndarray, "resamples materials"]
) -> dict[str, Float[np.ndarray, " resamples"]]:
    """R², MAE, MSE and WD of many resamples at once, each given by how often it holds each material.

    The spread of the labels is Σ t² − n t̄², so that matrix products give it for every resample.
    """
    predicted, true = predictions.predicted.astype(float), predictions.true.astype(float)
    materials, errors = counts.shape[1], predicted - true
    squares = counts @ (errors**2).sum(axis=1)
    spread = counts @ (true**2).sum(axis=1) - ((counts @ true) ** 2).sum(axis=1) / materials
    return {
        "r2": 1 - squares / spread,
        "mae": counts @ np.abs(errors).mean(axis=1) / materials,
        "mse": squares / errors.size,
        "wd": counts @ wasserstein_distances(predicted, true, predictions.grid) / materials,
    }
