"""A checkpoint against computed spectra: scores, and the error of each material."""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float

from mat2spec.checkpoint import Checkpoint
from mat2spec.crystal import Crystal
from mat2spec.data.labels import LabelledCrystals
from mat2spec.errors import TableError
from mat2spec.metrics import SCALINGS, mean_absolute_error, mean_squared_error, score, wasserstein_distances
from mat2spec.predict import predict_shapes
from mat2spec.spectrum import Spectra, SpectrumGrid
from mat2spec.thermo import cv_paper, heat_capacity, mean_frequency


@dataclass(frozen=True)
class Evaluation:
    """Predicted and computed spectra of the same materials.

    Args:
        crystals: The materials, with their labels.
        outputs: What the network predicts for them.
        grid: Axis of both.
        scaling: How predictions come to the scale of the labels, a name in `SCALINGS`.
    """

    crystals: LabelledCrystals
    outputs: Spectra
    grid: SpectrumGrid
    scaling: str = "true-sum"

    @cached_property
    def predicted(self) -> Spectra:
        """The predictions in the scale of the labels."""
        return SCALINGS[self.scaling](self.outputs, self.true)

    @property
    def true(self) -> Spectra:
        """The labels."""
        return self.crystals.spectra.numpy()

    @property
    def errors(self) -> Float[np.ndarray, " crystals"]:
        """Mean absolute error of each spectrum over its bins."""
        return np.abs(self.predicted - self.true).mean(axis=1)

    def scores(self) -> dict[str, float]:
        """R², MAE, MSE, WD of the spectra, and MAE and MSE of what they say about heat.

        Units are cm⁻¹ for WD and mean_frequency, J/K per mole of atoms for heat_capacity (C_V at 300 K), and those of
        `thermo.cv_paper` for cv_paper. Heat and WD are the same for every scaling.
        """
        scores = score(self.predicted, self.true, self.grid)
        of_predicted, of_true = self._heat(self.predicted), self._heat(self.true)
        for name, true in of_true.items():
            scores[f"{name}_mae"] = mean_absolute_error(of_predicted[name], true)
            scores[f"{name}_mse"] = mean_squared_error(of_predicted[name], true)
        return scores

    def scores_by_scaling(self) -> dict[str, dict[str, float]]:
        """Judge the same predictions on each scale."""
        return {name: replace(self, scaling=name).scores() for name in SCALINGS}

    def _heat(self, spectra: Spectra) -> dict[str, Float[np.ndarray, " crystals"]]:
        capacity = heat_capacity(spectra, self.grid, 300.0)
        return {
            "mean_frequency": mean_frequency(spectra, self.grid),
            "heat_capacity": capacity,
            "cv_paper": cv_paper(capacity, self.crystals.crystals),
        }

    def one_per_quintile(self) -> list[int]:
        """Choose the middle material of each fifth of the errors, best to worst."""
        return [int(fifth[len(fifth) // 2]) for fifth in np.array_split(np.argsort(self.errors), 5) if len(fifth)]

    def material_table(self, training: Sequence[Crystal]) -> pa.Table:
        """Give the errors of each material, one row each, and how much training could know of it.

        Args:
            training: Crystals to which the network was fitted.
        """
        crystals = self.crystals.crystals
        of_predicted, of_true = self._heat(self.predicted), self._heat(self.true)
        columns = {
            "material_id": pa.array(self.crystals.material_ids, pa.string()),
            "formula_pretty": pa.array([crystal.formula for crystal in crystals], pa.string()),
            "nsites": pa.array([len(crystal) for crystal in crystals], pa.int32()),
            "elements": pa.array([crystal.elements for crystal in crystals], pa.list_(pa.string())),
            "training_neighbors": pa.array(training_neighbors(crystals, training), pa.int32()),
            "mae": pa.array(self.errors, pa.float64()),
            "wd": pa.array(wasserstein_distances(self.predicted, self.true, self.grid), pa.float64()),
            "mean_frequency_true": pa.array(of_true["mean_frequency"], pa.float64()),
            "mean_frequency_predicted": pa.array(of_predicted["mean_frequency"], pa.float64()),
            "heat_capacity_300K_true": pa.array(of_true["heat_capacity"], pa.float64()),
            "heat_capacity_300K_predicted": pa.array(of_predicted["heat_capacity"], pa.float64()),
            "spectrum_true": pa.array(list(self.true), pa.list_(pa.float32())),
            "spectrum_predicted": pa.array(list(self.predicted), pa.list_(pa.float32())),
        }
        return pa.table(columns).replace_schema_metadata({"grid": json.dumps(self.grid.to_json()), "scaling": self.scaling})


def training_neighbors(crystals: Sequence[Crystal], training: Sequence[Crystal]) -> list[int]:
    """Count for each crystal the other crystals in training that hold all of its elements, and maybe more."""
    holders: defaultdict[str, set[str]] = defaultdict(set)
    for row in training:
        for element in row.elements:
            holders[element].add(row.material_id)
    return [len(set.intersection(*(holders[element] for element in crystal.elements)) - {crystal.material_id}) for crystal in crystals]


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
    return Evaluation(crystals, checkpoint.network.normalization.densities(shapes), checkpoint.grid)
