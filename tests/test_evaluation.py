import numpy as np
import pytest
import torch

from mat2spec.data.labels import LabelledSplits
from mat2spec.errors import TableError
from mat2spec.evaluation import Evaluation, evaluate
from mat2spec.figures import predicted_spectra, spectra_by_error
from mat2spec.metrics import score
from mat2spec.spectrum import PHDOS_GRID
from mat2spec.thermo import mean_frequency

CPU = torch.device("cpu")
PNG = b"\x89PNG"


@pytest.fixture(scope="module")
def evaluation(checkpoint, splits) -> Evaluation:
    return evaluate(checkpoint, splits.test, CPU)


def test_predictions_have_the_sum_of_their_labels(evaluation):
    np.testing.assert_allclose(evaluation.predicted.sum(axis=1), evaluation.true.sum(axis=1), rtol=1e-5)


def test_scores_are_those_of_the_metrics_and_of_heat(evaluation):
    scores = evaluation.scores()
    expected = score(evaluation.predicted, evaluation.true, PHDOS_GRID)
    assert {name: scores[name] for name in expected} == expected
    shift = mean_frequency(evaluation.predicted, PHDOS_GRID) - mean_frequency(evaluation.true, PHDOS_GRID)
    assert scores["mean_frequency_mae"] == pytest.approx(np.abs(shift).mean())
    assert 0 < scores["heat_capacity_mae"] < 25


def test_perfect_predictions_have_no_error(splits):
    scores = Evaluation(splits.test, splits.test.spectra.numpy(), PHDOS_GRID).scores()
    assert scores["r2"] == pytest.approx(1)
    assert [scores[name] for name in ("mae", "wd", "mean_frequency_mae", "heat_capacity_mae")] == pytest.approx([0] * 4, abs=1e-6)


@pytest.mark.parametrize("part", ["train", "valid"])
def test_materials_that_training_saw_are_not_held_out(checkpoint, splits: LabelledSplits, part):
    with pytest.raises(TableError, match=r"materials \(mp-.*\) were seen in training; evaluate on held-out rows"):
        evaluate(checkpoint, getattr(splits, part), CPU)
    assert len(evaluate(checkpoint, getattr(splits, part), CPU, held_out=False).errors) == len(getattr(splits, part))


def test_one_material_is_chosen_from_each_fifth_of_the_errors_best_first(checkpoint, splits):
    judged = evaluate(checkpoint, splits.train, CPU, held_out=False)
    chosen = judged.one_per_quintile()
    assert len(set(chosen)) == 5
    ranks = [int((judged.errors < judged.errors[row]).sum()) * 5 // len(splits.train) for row in chosen]
    assert ranks == [0, 1, 2, 3, 4]


def test_figures_are_pictures(evaluation, tmp_path):
    spectra_by_error(evaluation, tmp_path / "five.png")
    predicted_spectra(evaluation.predicted, evaluation.crystals.material_ids, PHDOS_GRID, tmp_path / "all.png")
    for name in ("five.png", "all.png"):
        assert (tmp_path / name).read_bytes().startswith(PNG)
