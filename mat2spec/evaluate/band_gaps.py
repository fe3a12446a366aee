"""Predicted band gaps against known ones."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from mat2spec.data.labels.dataset import LabelledCrystals
from mat2spec.dos.metrics import gap_scores, most_likely_gap
from mat2spec.evaluate.training_overlap import material_columns
from mat2spec.structure.crystal import Crystal


@dataclass(frozen=True)
class GapEvaluation:
    """Metals told from others, and the gaps of these.

    Args:
        crystals: The materials, with their band gaps [eV] for labels.
        outputs: What `GapNetwork` gives of them.
    """

    crystals: LabelledCrystals
    outputs: Float[np.ndarray, "crystals 2"]

    @property
    def true(self) -> Float[np.ndarray, " crystals"]:
        """Known gaps [eV]."""
        return self.crystals.spectra[:, 0].numpy()

    @property
    def predicted(self) -> Float[np.ndarray, " crystals"]:
        """Most likely gaps [eV]."""
        return most_likely_gap(self.outputs)

    def scores(self) -> dict[str, float]:
        """Score as `gap_scores`, and count how many of how many are metals."""
        return gap_scores(self.outputs, self.true) | {
            "metals": float((self.true <= 0).sum()),
            "materials": float(len(self.true)),
        }

    def scores_by_scaling(self) -> dict[str, dict[str, float]]:
        """Judge gaps on their one scale."""
        return {"self": self.scores()}

    def material_table(self, training: Sequence[Crystal]) -> pa.Table:
        """Give the gaps of each material, one row each, and how many training materials hold all of its elements."""
        return pa.table(
            {
                **material_columns(self.crystals, training),
                "band_gap_true": pa.array(self.true, pa.float64()),
                "band_gap_predicted": pa.array(self.predicted, pa.float64()),
                "is_metal_prob": pa.array(self.outputs[:, 0], pa.float64()),
            }
        )
