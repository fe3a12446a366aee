import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pymatgen.phonon.dos import PhononDos
from scipy.constants import c
from scipy.integrate import trapezoid
from scipy.stats import wasserstein_distance
from sklearn import metrics as sklearn_metrics

from mat2spec.data.labels.dataset import LabeledSplits
from mat2spec.dos.grid import PHDOS_GRID, SpectrumGrid
from mat2spec.dos.metrics import SHAPE_SCALINGS
from mat2spec.dos.plots import predicted_spectra
from mat2spec.errors import TableError
from mat2spec.evaluate.evaluate import evaluate
from mat2spec.evaluate.plots import errors_by_kind, heat_errors, spectra_by_error
from mat2spec.evaluate.spectra import SpectrumEvaluation
from mat2spec.evaluate.training_overlap import training_neighbors

CPU = torch.device("cpu")
PNG = b"\x89PNG"

SINGLE = 1e-5
"""Relative difference of sums in float32, and of the digits of physical constants."""

ERRORS = (
    "mae",
    "mse",
    "wd",
    *(f"{name}_{error}" for name in ("mean_frequency", "heat_capacity", "cv_paper") for error in ("mae", "mse")),
)


@pytest.fixture(scope="module")
def evaluation(checkpoint, splits) -> SpectrumEvaluation:
    return evaluate(checkpoint, splits.test, CPU)


@pytest.fixture(scope="module")
def materials(evaluation, splits) -> pa.Table:
    return evaluation.material_table(splits.train.crystals)


def heat(spectra: np.ndarray, atoms: list[int] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Mean frequencies [cm⁻¹] and C_V at 300 K [J/K per mole of cells of so many atoms], with pymatgen."""
    points = PHDOS_GRID.points[1:]
    terahertz = points * c * 100 / 1e12
    frequencies = [trapezoid(points * g[1:], points) / trapezoid(g[1:], points) for g in spectra]
    modes = [
        3 * count / trapezoid(g[1:], terahertz) for count, g in zip(atoms or [1] * len(spectra), spectra, strict=True)
    ]
    return np.array(frequencies), np.array(
        [PhononDos(terahertz, m * g[1:]).cv(300.0) for m, g in zip(modes, spectra, strict=True)]
    )


def test_predictions_have_the_sum_of_their_labels(evaluation):
    np.testing.assert_allclose(evaluation.predicted.sum(axis=1), evaluation.true.sum(axis=1), rtol=SINGLE)


def test_predictions_have_the_maximum_of_their_labels_in_the_other_scaling(evaluation):
    np.testing.assert_allclose(
        replace(evaluation, scalings=("unit-max",)).predicted.max(axis=1), evaluation.true.max(axis=1), rtol=SINGLE
    )


@pytest.mark.parametrize("scaling", SHAPE_SCALINGS)
def test_scores_are_those_of_scipy_scikit_learn_and_pymatgen(evaluation, scaling):
    true, predicted = evaluation.true.astype(float), evaluation.outputs.astype(float)
    of = {"true-sum": np.sum, "unit-max": np.max}[scaling]
    predicted *= of(true, axis=1, keepdims=True) / of(predicted, axis=1, keepdims=True)
    axis = PHDOS_GRID.points
    expected = {
        "r2": sklearn_metrics.r2_score(true, predicted, multioutput="variance_weighted"),
        "mae": sklearn_metrics.mean_absolute_error(true, predicted),
        "mse": sklearn_metrics.mean_squared_error(true, predicted),
        "wd": np.mean([wasserstein_distance(axis, axis, p, t) for p, t in zip(predicted, true, strict=True)]),
    }
    atoms = [1 if len(crystal.elements) == 1 else len(crystal) for crystal in evaluation.crystals.crystals]
    pairs = dict(zip(("mean_frequency", "heat_capacity"), zip(heat(predicted), heat(true), strict=True), strict=True))
    pairs["cv_paper"] = heat(predicted, atoms)[1], heat(true, atoms)[1]
    for name, (of_predicted, of_true) in pairs.items():
        expected[f"{name}_mae"] = sklearn_metrics.mean_absolute_error(of_true, of_predicted)
        expected[f"{name}_mse"] = sklearn_metrics.mean_squared_error(of_true, of_predicted)
    assert evaluation.scores_by_scaling()[scaling] == pytest.approx(expected, rel=10 * SINGLE)
    assert set(expected) == {"r2", *ERRORS}


def test_scores_are_by_default_those_of_true_sum(evaluation):
    assert evaluation.scores() == evaluation.scores_by_scaling()["true-sum"]


def test_distance_and_heat_are_the_same_in_every_scaling(evaluation):
    one, two = evaluation.scores_by_scaling().values()
    for name in ERRORS[2:]:
        assert one[name] == pytest.approx(two[name], rel=10 * SINGLE)
    assert one["mae"] != pytest.approx(two["mae"], rel=10 * SINGLE)


@pytest.mark.parametrize("scaling", SHAPE_SCALINGS)
def test_perfect_predictions_of_any_scale_have_no_error_in_any_scaling(splits, scaling):
    sizes = np.random.default_rng(0).uniform(0.01, 100, (len(splits.test), 1)).astype(np.float32)
    evaluation = SpectrumEvaluation(splits.test, sizes * splits.test.spectra.numpy(), PHDOS_GRID)
    scores = evaluation.scores_by_scaling()[scaling]
    assert scores["r2"] == pytest.approx(1)
    assert [scores[name] for name in ERRORS] == pytest.approx([0] * len(ERRORS), abs=1e-4)


@pytest.mark.parametrize("scaling", SHAPE_SCALINGS)
def test_predictions_of_zero_everywhere_have_finite_scores(splits, evaluation, scaling):
    for rows in ([2], range(len(splits.test))):
        outputs = evaluation.outputs.copy()
        outputs[rows] = 0
        scores = SpectrumEvaluation(splits.test, outputs, PHDOS_GRID).scores_by_scaling()[scaling]
        assert np.isfinite(list(scores.values())).all()
    assert scores["mae"] == pytest.approx(evaluation.true.mean(), rel=SINGLE), (
        "the error is then the mean of the labels"
    )


def test_negative_predictions_are_scored_as_zero(splits, evaluation):
    negative = np.where(evaluation.outputs < np.median(evaluation.outputs), np.float32(-1), evaluation.outputs)
    cut_off = SpectrumEvaluation(splits.test, negative.clip(0), PHDOS_GRID).scores_by_scaling()
    assert SpectrumEvaluation(splits.test, negative, PHDOS_GRID).scores_by_scaling() == cut_off


@pytest.mark.parametrize("part", ["train", "valid"])
def test_materials_seen_in_training_are_refused_as_held_out(checkpoint, splits: LabeledSplits, part):
    with pytest.raises(TableError, match=r"materials \(mp-.*\) were seen in training"):
        evaluate(checkpoint, getattr(splits, part), CPU)
    assert len(evaluate(checkpoint, getattr(splits, part), CPU, held_out=False).errors) == len(getattr(splits, part))


def test_one_material_is_chosen_from_each_fifth_of_the_errors_best_first(checkpoint, splits):
    evaluation = evaluate(checkpoint, splits.train, CPU, held_out=False)
    rows = evaluation.one_per_quintile()
    assert len(set(rows)) == 5
    ranks = [int((evaluation.errors < evaluation.errors[row]).sum()) * 5 // len(splits.train) for row in rows]
    assert ranks == [0, 1, 2, 3, 4]


def test_table_has_one_row_per_material_and_its_means_are_the_scores(evaluation, materials, tmp_path):
    pq.write_table(materials, tmp_path / "materials.parquet")
    table = pq.read_table(tmp_path / "materials.parquet").to_pandas()
    assert table["material_id"].tolist() == evaluation.crystals.material_ids
    true, predicted = np.stack(table["spectrum_true"]), np.stack(table["spectrum_predicted"])
    capacity = table["heat_capacity_300K_predicted"] - table["heat_capacity_300K_true"]
    frequency = table["mean_frequency_predicted"] - table["mean_frequency_true"]
    of_cell = capacity * table["nsites"].where(table["elements"].str.len() > 1, 1)
    means = {
        "r2": sklearn_metrics.r2_score(true, predicted, multioutput="variance_weighted"),
        "mae": table["mae"].mean(),
        "mse": ((predicted - true) ** 2).mean(),
        "wd": table["wd"].mean(),
    }
    for name, error in {"mean_frequency": frequency, "heat_capacity": capacity, "cv_paper": of_cell}.items():
        means |= {f"{name}_mae": error.abs().mean(), f"{name}_mse": (error**2).mean()}
    assert evaluation.scores() == pytest.approx(means, rel=SINGLE)


def test_table_has_formulas_elements_grid_and_scaling(evaluation, materials):
    assert materials["formula_pretty"].to_pylist() == [crystal.formula for crystal in evaluation.crystals.crystals]
    assert materials["elements"].to_pylist() == [crystal.elements for crystal in evaluation.crystals.crystals]
    metadata = {key.decode(): value.decode() for key, value in materials.schema.metadata.items()}
    assert SpectrumGrid.from_json(json.loads(metadata["grid"])) == PHDOS_GRID
    assert metadata["scaling"] == "true-sum"


def test_training_neighbors_are_the_other_training_materials_with_all_elements_of_a_material(splits):
    training = splits.train.crystals
    crystals = (*splits.test.crystals, *training)
    expected = [
        sum(set(a.elements) <= set(b.elements) for b in training if b.material_id != a.material_id) for a in crystals
    ]
    assert training_neighbors(crystals, training) == expected
    assert max(expected) > 0
    assert training_neighbors(crystals, ()) == [0] * len(crystals)


def test_plots_are_png_files(evaluation, materials, tmp_path):
    spectra_by_error(evaluation, tmp_path / "five.png")
    predicted_spectra(evaluation.predicted, evaluation.crystals.material_ids, PHDOS_GRID, tmp_path / "all.png")
    heat_errors(materials, tmp_path / "heat.png")
    errors_by_kind(materials, tmp_path / "kinds.png")
    for name in ("five.png", "all.png", "heat.png", "kinds.png"):
        assert (tmp_path / name).read_bytes().startswith(PNG)
