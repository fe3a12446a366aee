"""Predicted spectra against computed ones: scores, and the error of each material."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float

from mat2spec.data.labels.dataset import LabelledCrystals
from mat2spec.dos.edge_gaps import ValenceBandRule, vb_gaps
from mat2spec.dos.grid import Spectra, SpectrumGrid
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


@dataclass(frozen=True)
class Evaluation:
    """Predicted and computed spectra of the same materials.

    Args:
        crystals: The materials, with their labels.
        outputs: What the network predicts for them, per atom as it learnt it.
        grid: Axis of both.
        scalings: How predictions can come to the scale of the labels, names in `SCALINGS`; the first is the one that is meant unless
            another is named.
    """

    crystals: LabelledCrystals
    outputs: Spectra
    grid: SpectrumGrid
    scalings: tuple[str, ...] = SHAPE_SCALINGS

    @cached_property
    def predicted(self) -> Spectra:
        """The predictions in the scale of the labels, as the first scaling has it."""
        return SCALINGS[self.scalings[0]](self._of_cells(self.outputs), self.true)

    @cached_property
    def true(self) -> Spectra:
        """The labels, in the scale of their table."""
        return self._of_cells(self.crystals.spectra.numpy())

    def _of_cells(self, spectra: Spectra) -> Spectra:
        return spectra * self.crystals.cell_sizes[:, None].astype(spectra.dtype)

    @property
    def errors(self) -> Float[np.ndarray, " crystals"]:
        """Mean absolute error of each spectrum over its bins."""
        return np.abs(self.predicted - self.true).mean(axis=1)

    def scores(self) -> dict[str, float]:
        """R², MAE, MSE, WD of the spectra, and how good what they say is.

        Phonons: MAE and MSE of the mean frequency [cm⁻¹], of heat_capacity [C_V at 300 K, J/K per mole of atoms] and of `thermo.cv_paper`,
        the same for every scaling, as WD is. Electrons: the gap below the valence band maximum as a class, with its counts.
        """
        if self.grid.per_cell:
            return electronic_scores(self.predicted, self.true, self.grid)
        scores = score(self.predicted, self.true, self.grid)
        of_predicted, of_true = self._heat(self.predicted), self._heat(self.true)
        for name, true in of_true.items():
            scores[f"{name}_mae"] = mean_absolute_error(of_predicted[name], true)
            scores[f"{name}_mse"] = mean_squared_error(of_predicted[name], true)
        return scores

    def scores_by_scaling(self) -> dict[str, dict[str, float]]:
        """Judge the same predictions on each scale."""
        return {name: replace(self, scalings=(name,)).scores() for name in self.scalings}

    def threshold_curve(self) -> list[dict[str, float]]:
        """Classify electronic spectra with other thresholds for the predictions than for the labels, which keep 1 state/eV.

        A network that smooths fills up gaps: at a higher threshold it finds more of them, and more that are none.
        """
        true = _has_vb_gap(self.true, self.grid, ValenceBandRule())
        rules = [ValenceBandRule(threshold=threshold) for threshold in np.linspace(0.25, 4, 16).tolist()]
        return [
            {"threshold": rule.threshold, **classification_scores(_has_vb_gap(self.predicted, self.grid, rule), true)}
            for rule in rules
        ]

    def _heat(self, spectra: Spectra) -> dict[str, Float[np.ndarray, " crystals"]]:
        capacity = heat_capacity(spectra, self.grid, 300.0)
        return {
            "mean_frequency": mean_frequency(spectra, self.grid),
            "heat_capacity": capacity,
            "cv_paper": cv_paper(capacity, self.crystals.crystals),
        }

    def _features(self, spectra: Spectra) -> dict[str, Float[np.ndarray, " crystals"]]:
        """What a user reads from a spectrum."""
        if self.grid.per_cell:
            return {
                "dos_sum": spectra.sum(axis=1),
                "vb_gap_upper": vb_gaps(spectra, self.grid, ValenceBandRule())[:, 1],
            }
        heat = self._heat(spectra)
        return {"mean_frequency": heat["mean_frequency"], "heat_capacity_300K": heat["heat_capacity"]}

    def one_per_quintile(self) -> list[int]:
        """Choose the middle material of each fifth of the errors, best to worst."""
        return [int(fifth[len(fifth) // 2]) for fifth in np.array_split(np.argsort(self.errors), 5) if len(fifth)]

    def material_table(self, training: Sequence[Crystal]) -> pa.Table:
        """Give the errors of each material, one row each, and how much training could know of it.

        Args:
            training: Crystals to which the network was fitted.
        """
        of_predicted, of_true = self._features(self.predicted), self._features(self.true)
        columns = {
            **material_columns(self.crystals, training),
            "mae": pa.array(self.errors, pa.float64()),
            "wd": pa.array(wasserstein_distances(self.predicted, self.true, self.grid), pa.float64()),
        }
        for name, true in of_true.items():
            columns[f"{name}_true"] = pa.array(true, pa.float64(), from_pandas=True)
            columns[f"{name}_predicted"] = pa.array(of_predicted[name], pa.float64(), from_pandas=True)
        columns["spectrum_true"] = pa.array(list(self.true), pa.list_(pa.float32()))
        columns["spectrum_predicted"] = pa.array(list(self.predicted), pa.list_(pa.float32()))
        return pa.table(columns).replace_schema_metadata(
            {"grid": json.dumps(self.grid.to_json()), "scaling": self.scalings[0]}
        )


def electronic_scores(predicted: Spectra, true: Spectra, grid: SpectrumGrid) -> dict[str, float]:
    """R², MAE, MSE, WD of electronic spectra per primitive cell, and the gap below the valence band maximum as a class, with its counts."""
    found, there = (_has_vb_gap(spectra, grid, ValenceBandRule()) for spectra in (predicted, true))
    return score(predicted, true, grid) | {
        f"vb_gap_{name}": value for name, value in classification_scores(found, there).items()
    }


def _has_vb_gap(spectra: Spectra, grid: SpectrumGrid, rule: ValenceBandRule) -> Bool[np.ndarray, " crystals"]:
    return np.isfinite(vb_gaps(spectra, grid, rule)[:, 0])
