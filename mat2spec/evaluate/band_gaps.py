"""Scores of predicted band gaps, and the gap of each material."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from mat2spec.data.labels.dataset import LabeledCrystals
from mat2spec.dos.metrics import gap_scores, most_likely_gap
from mat2spec.evaluate.training_overlap import material_columns
from mat2spec.structure.crystal import Crystal


@dataclass(frozen=True)
class BandGapEvaluation:
    """Predicted and known band gaps of the same materials, metals included.

    Args:
        crystals: Materials labeled with their band gaps [eV].
        outputs: Outputs of `BandGapNetwork`: probability of being a metal, and the gap [eV] if not.
    """

    crystals: LabeledCrystals
    outputs: Float[np.ndarray, "crystals 2"]

    @property
    def true(self) -> Float[np.ndarray, " crystals"]:
        """Known band gaps [eV]; 0 for metals."""
        return self.crystals.spectra[:, 0].numpy()

    @property
    def predicted(self) -> Float[np.ndarray, " crystals"]:
        """Most likely band gaps [eV]."""
        return most_likely_gap(self.outputs)

    @property
    def errors(self) -> Float[np.ndarray, " crystals"]:
        """Absolute error of each gap [eV]."""
        return np.abs(self.predicted - self.true)

    def scores(self) -> dict[str, float]:
        """Return `gap_scores`, and the numbers of metals and of materials."""
        return gap_scores(self.outputs, self.true) | {
            "metals": float((self.true <= 0).sum()),
            "materials": float(len(self.true)),
        }

    def scores_by_scaling(self) -> dict[str, dict[str, float]]:
        """Return the scores under "self", the only scaling of band gaps."""
        return {"self": self.scores()}

    def material_table(self, training: Sequence[Crystal]) -> pa.Table:
        """Return one row per material: its gaps, and how many training materials contain all of its elements."""
        return pa.table(
            {
                **material_columns(self.crystals, training),
                "band_gap_true": pa.array(self.true, pa.float64()),
                "band_gap_predicted": pa.array(self.predicted, pa.float64()),
                "is_metal_prob": pa.array(self.outputs[:, 0], pa.float64()),
            }
        )
