"""A checkpoint against computed spectra: scores, and the error of each material."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from mat2spec.checkpoint import Checkpoint
from mat2spec.data.labels import LabelledCrystals
from mat2spec.errors import TableError
from mat2spec.metrics import mean_absolute_error, scaled_to_sum, score
from mat2spec.predict import predict_shapes
from mat2spec.spectrum import Spectra, SpectrumGrid
from mat2spec.thermo import heat_capacity, mean_frequency


@dataclass(frozen=True)
class Evaluation:
    """Predicted and computed spectra of the same materials, both in the scale of the labels.

    Args:
        crystals: The materials, with their labels.
        predicted: Spectra scaled to the sum of each label ("true-sum": the shape alone is judged).
        grid: Axis of both.
    """

    crystals: LabelledCrystals
    predicted: Spectra
    grid: SpectrumGrid

    @property
    def true(self) -> Spectra:
        """The labels."""
        return self.crystals.spectra.numpy()

    @property
    def errors(self) -> Float[np.ndarray, " crystals"]:
        """Mean absolute error of each spectrum over its bins."""
        return np.abs(self.predicted - self.true).mean(axis=1)

    def scores(self) -> dict[str, float]:
        """R², MAE, MSE, WD [cm⁻¹]; MAE of the mean frequency [cm⁻¹] and of C_V at 300 K [J/K per mole of atoms]."""
        return score(self.predicted, self.true, self.grid) | {
            "mean_frequency_mae": mean_absolute_error(mean_frequency(self.predicted, self.grid), mean_frequency(self.true, self.grid)),
            "heat_capacity_mae": mean_absolute_error(heat_capacity(self.predicted, self.grid), heat_capacity(self.true, self.grid)),
        }

    def one_per_quintile(self) -> list[int]:
        """Choose the middle material of each fifth of the errors, best to worst."""
        return [int(fifth[len(fifth) // 2]) for fifth in np.array_split(np.argsort(self.errors), 5) if len(fifth)]


def evaluate(checkpoint: Checkpoint, crystals: LabelledCrystals, device: torch.device, *, held_out: bool = True) -> Evaluation:
    """Predict labelled crystals.

    Args:
        checkpoint: What to judge.
        crystals: Materials with labels on its grid.
        device: Where to compute.
        held_out: Refuse materials that the checkpoint was fitted to or chosen on.

    Raises:
        TableError: If they must be held out and some are not.
    """
    if held_out and (overlap := checkpoint.training_ids.intersection(crystals.material_ids)):
        example = min(overlap)
        raise TableError(f"{len(overlap)} of {len(crystals)} materials ({example}, …) were seen in training; evaluate on held-out rows")
    shapes = predict_shapes(checkpoint.network.to(device), crystals.graphs, device)
    return Evaluation(crystals, scaled_to_sum(shapes, crystals.spectra.numpy()), checkpoint.grid)
