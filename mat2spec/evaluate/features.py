"""Scores of predicted features, such as those of another model's atoms, and the error of each material."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from mat2spec.data.labels.dataset import LabeledCrystals
from mat2spec.dos.metrics import feature_scores
from mat2spec.evaluate.training_overlap import material_columns
from mat2spec.structure.crystal import Crystal


@dataclass(frozen=True)
class FeatureEvaluation:
    """Means over the atoms of predicted and of known features, each in units of its standard deviation over atoms.

    Args:
        crystals: Materials labeled with features of their atoms.
        predicted: Outputs of `AtomFeatures`.
        true: Labels on the same scale.
    """

    crystals: LabeledCrystals
    predicted: Float[np.ndarray, "crystals features"]
    true: Float[np.ndarray, "crystals features"]

    @property
    def errors(self) -> Float[np.ndarray, " crystals"]:
        """Mean absolute error of each material over its features."""
        return np.abs(self.predicted - self.true).mean(axis=1)

    def scores(self) -> dict[str, float]:
        """Return R² and MAE."""
        return feature_scores(self.predicted, self.true)

    def scores_by_scaling(self) -> dict[str, dict[str, float]]:
        """Return the scores under "self", the only scaling of features."""
        return {"self": self.scores()}

    def material_table(self, training: Sequence[Crystal]) -> pa.Table:
        """Return one row per material: its error, and how many training materials contain all of its elements."""
        return pa.table({**material_columns(self.crystals, training), "mae": pa.array(self.errors, pa.float64())})
