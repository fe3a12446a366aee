"""Scores of predicted spectra against computed ones, and the error of each material."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float

from mat2spec.data.labels.dataset import LabeledCrystals
from mat2spec.dos.edge_gaps import ValenceBandRule, vb_gaps
from mat2spec.dos.grid import MODES_PER_ATOM, Spectra, SpectrumGrid
from mat2spec.dos.metrics import (
    SCALINGS,
    SHAPE_SCALINGS,
    classification_scores,
    mean_absolute_error,
    mean_squared_error,
    score,
    wasserstein_distances,
)
from mat2spec.dos.thermodynamics import cv_paper, heat_capacity, mean_frequency
from mat2spec.evaluate.training_overlap import material_columns
from mat2spec.structure.crystal import Crystal

SAME_SCALE = 1e-3
"""Relative: labels that agree with a scale so well have it."""


@dataclass(frozen=True)
class SpectrumEvaluation:
    """Predicted and computed spectra of the same materials.

    Args:
        crystals: Materials with their labels.
        outputs: Predictions of the network, per atom as in training.
        grid: Grid of both.
        scalings: Ways to bring predictions to the scale of the labels, names in `SCALINGS`; the first is the default.
    """

    crystals: LabeledCrystals
    outputs: Spectra
    grid: SpectrumGrid
    scalings: tuple[str, ...] = SHAPE_SCALINGS

    @cached_property
    def predicted(self) -> Spectra:
        """Predictions on the scale of the labels, by the first scaling."""
        return SCALINGS[self.scalings[0]](self._to_label_scale(self.outputs), self.true)

    @cached_property
    def true(self) -> Spectra:
        """Labels on the scale of their table."""
        return self._to_label_scale(self.crystals.spectra.numpy())

    def _to_label_scale(self, spectra: Spectra) -> Spectra:
        return spectra * self.crystals.cell_sizes[:, None].astype(spectra.dtype)

    @property
    def label_unit(self) -> str:
        """Unit of the labels, and so of `true`, `predicted` and `errors`: of phonons, what all have in common."""
        if self.grid.per_cell:
            return "states/eV per primitive cell"
        scales = {
            "phonon DOS (max. 1)": self.true.max(axis=1),
            "states per cm⁻¹ per atom": self.grid.integrate(self.true) / MODES_PER_ATOM,
            "phonon DOS (integral 1)": self.grid.integrate(self.true),
            "phonon DOS (sum 1)": self.true.sum(axis=1),
        }
        common = (unit for unit, scale in scales.items() if np.allclose(scale, 1.0, rtol=SAME_SCALE))
        return next(common, "phonon DOS (scale of the labels)")

    @property
    def errors(self) -> Float[np.ndarray, " crystals"]:
        """Mean absolute error of each spectrum over its bins."""
        return np.abs(self.predicted - self.true).mean(axis=1)

    def scores(self) -> dict[str, float]:
        """Spectral scores (R², MAE, MSE, Wasserstein) and errors of derived quantities.

        Phonons: MAE and MSE of mean_frequency [cm⁻¹], of heat_capacity [C_V at 300 K, J/K per mole of atoms] and of
        `thermodynamics.cv_paper`; like WD, they are the same for every scaling. Electrons: classification scores and
        counts of materials with a gap below the valence band maximum.
        """
        if self.grid.per_cell:
            return electronic_scores(self.predicted, self.true, self.grid)
        scores = score(self.predicted, self.true, self.grid)
        predicted = self._thermal_quantities(self.predicted)
        for name, true in self._thermal_quantities(self.true).items():
            scores[f"{name}_mae"] = mean_absolute_error(predicted[name], true)
            scores[f"{name}_mse"] = mean_squared_error(predicted[name], true)
        return scores

    def scores_by_scaling(self) -> dict[str, dict[str, float]]:
        """Scores of the same predictions in each scaling."""
        return {name: replace(self, scalings=(name,)).scores() for name in self.scalings}

    def threshold_curve(self) -> list[dict[str, float]]:
        """VB-gap classification scores for a range of density thresholds on the predictions; labels keep 1 state/eV.

        A network that smooths spectra fills up gaps: a higher threshold finds more of them, and more false ones.
        """
        true = _has_vb_gap(self.true, self.grid, ValenceBandRule())
        rules = [ValenceBandRule(threshold=threshold) for threshold in np.linspace(0.25, 4, 16).tolist()]
        return [
            {"threshold": rule.threshold, **classification_scores(_has_vb_gap(self.predicted, self.grid, rule), true)}
            for rule in rules
        ]

    def _thermal_quantities(self, spectra: Spectra) -> dict[str, Float[np.ndarray, " crystals"]]:
        capacity = heat_capacity(spectra, self.grid, 300.0)
        return {
            "mean_frequency": mean_frequency(spectra, self.grid),
            "heat_capacity": capacity,
            "cv_paper": cv_paper(capacity, self.crystals.crystals),
        }

    def _features(self, spectra: Spectra) -> dict[str, Float[np.ndarray, " crystals"]]:
        """Descriptors that a user reads from a spectrum."""
        if self.grid.per_cell:
            return {
                "dos_sum": spectra.sum(axis=1),
                "vb_gap_upper": vb_gaps(spectra, self.grid, ValenceBandRule())[:, 1],
            }
        quantities = self._thermal_quantities(spectra)
        return {"mean_frequency": quantities["mean_frequency"], "heat_capacity_300K": quantities["heat_capacity"]}

    def one_per_quintile(self) -> list[int]:
        """Rows of the median material of each fifth of the errors, best to worst."""
        return [int(fifth[len(fifth) // 2]) for fifth in np.array_split(np.argsort(self.errors), 5) if len(fifth)]

    def material_table(self, training: Sequence[Crystal]) -> pa.Table:
        """Return one row per material: errors, descriptors, spectra, and the overlap of its elements with training.

        Args:
            training: Crystals that the network was trained on.
        """
        predicted = self._features(self.predicted)
        columns = {
            **material_columns(self.crystals, training),
            "mae": pa.array(self.errors, pa.float64()),
            "wd": pa.array(wasserstein_distances(self.predicted, self.true, self.grid), pa.float64()),
        }
        for name, true in self._features(self.true).items():
            columns[f"{name}_true"] = pa.array(true, pa.float64(), from_pandas=True)
            columns[f"{name}_predicted"] = pa.array(predicted[name], pa.float64(), from_pandas=True)
        columns["spectrum_true"] = pa.array(list(self.true), pa.list_(pa.float32()))
        columns["spectrum_predicted"] = pa.array(list(self.predicted), pa.list_(pa.float32()))
        return pa.table(columns).replace_schema_metadata(
            {"grid": json.dumps(self.grid.to_json()), "scaling": self.scalings[0], "unit": self.label_unit}
        )


def electronic_scores(predicted: Spectra, true: Spectra, grid: SpectrumGrid) -> dict[str, float]:
    """Spectral scores of electronic spectra per primitive cell, and classification scores and counts of the VB gap."""
    predicted_gaps = _has_vb_gap(predicted, grid, ValenceBandRule())
    true_gaps = _has_vb_gap(true, grid, ValenceBandRule())
    return score(predicted, true, grid) | {
        f"vb_gap_{name}": value for name, value in classification_scores(predicted_gaps, true_gaps).items()
    }


def _has_vb_gap(spectra: Spectra, grid: SpectrumGrid, rule: ValenceBandRule) -> Bool[np.ndarray, " crystals"]:
    return np.isfinite(vb_gaps(spectra, grid, rule)[:, 0])
