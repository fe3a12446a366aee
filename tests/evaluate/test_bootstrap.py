"""Pooled predictions of all folds, and bootstrap comparison of two networks."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import wasserstein_distance
from sklearn import metrics as sklearn_metrics

from mat2spec.config import DataConfig, GraphConfig
from mat2spec.data.labels.dataset import LabeledCrystals, read_labels
from mat2spec.dos.grid import EDOS_GRID
from mat2spec.dos.metrics import classification_scores
from mat2spec.evaluate import bootstrap
from mat2spec.evaluate.bootstrap import PooledPredictions, share_better
from mat2spec.evaluate.spectra import SpectrumEvaluation

SINGLE = 1e-4
"""Relative: some 600 · 128 numbers of single precision, added up."""

FEW = 200
"""Resamples; the 2,000 of a table take seconds."""

FOUR_SIGMA = 4.0


@pytest.fixture(scope="module")
def labels(bundled: Path) -> LabeledCrystals:
    """All bundled electronic spectra."""
    path = bundled.with_name("edos_gpaw.parquet")
    return read_labels(path, DataConfig(table=str(path), label="edos", fold=1), GraphConfig(), EDOS_GRID).everything


@pytest.fixture(scope="module")
def outputs(labels: LabeledCrystals) -> np.ndarray:
    """Predictions per atom: half the labels, plus noise."""
    noise = np.random.default_rng(0).normal(0, 0.1, labels.spectra.shape)
    return (0.5 * labels.spectra.numpy() + noise).astype(np.float32)


@pytest.fixture(scope="module", params=["self", "true-sum"])
def scaling(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def tables(labels, outputs, scaling, tmp_path_factory) -> list[Path]:
    """Test tables of five folds, with rows in random order."""
    folder, order = tmp_path_factory.mktemp("folds"), np.random.default_rng(1).permutation(len(labels))
    for i, rows in enumerate(np.array_split(order, 5)):
        evaluation = SpectrumEvaluation(labels.take(rows), outputs[rows], EDOS_GRID, (scaling,))
        pq.write_table(evaluation.material_table(()), folder / f"{i}.parquet")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def pooled(tables, scaling) -> PooledPredictions:
    return PooledPredictions.read(tables, scaling)


def has_vb_gap(spectrum: np.ndarray) -> bool:
    """The published rule as a loop over bins: ≤ 1 state/eV for at least 1 eV, upper edge within −1 … −0.25 eV."""
    run = 0
    for density, edge, following in zip(spectrum, EDOS_GRID.edges[1:], [*spectrum[1:], np.inf], strict=True):
        run = run + 1 if density <= 1 else 0
        if run * 0.0625 >= 1 and following > 1 and -1 <= edge <= -0.25:
            return True
    return False


def test_each_material_of_every_fold_appears_once_in_alphabetical_order(pooled, labels):
    assert list(pooled.material_ids) == sorted(labels.material_ids)
    assert len(set(pooled.material_ids)) == 616
    assert pooled.grid == EDOS_GRID


def test_predictions_and_labels_stay_with_their_material(pooled, labels, bundled):
    rows = pq.read_table(bundled.with_name("edos_gpaw.parquet"), columns=["material_id", "edos"]).to_pylist()
    expected = {row["material_id"]: row["edos"] for row in rows}
    np.testing.assert_allclose(pooled.true, [expected[material_id] for material_id in pooled.material_ids], rtol=SINGLE)


def test_scores_are_those_of_scikit_learn_and_scipy_on_all_folds_together(pooled, labels, outputs, scaling):
    """One score for all materials: R² of a fold uses the mean spectrum of that fold, so averages would differ."""
    order = np.argsort(labels.material_ids)
    sizes = labels.cell_sizes[order, None]
    true = labels.spectra.double().numpy()[order] * sizes
    predicted = outputs[order].astype(float).clip(0) * sizes
    if scaling == "true-sum":
        predicted *= true.sum(axis=1, keepdims=True) / predicted.sum(axis=1, keepdims=True)
    axis = EDOS_GRID.points
    of_predicted, of_true = ([has_vb_gap(spectrum) for spectrum in spectra] for spectra in (predicted, true))
    precision, recall, f1, _ = sklearn_metrics.precision_recall_fscore_support(of_true, of_predicted, average="binary")
    (tn, fp), (fn, tp) = sklearn_metrics.confusion_matrix(of_true, of_predicted)
    expected = {
        "r2": sklearn_metrics.r2_score(true, predicted, multioutput="variance_weighted"),
        "mae": sklearn_metrics.mean_absolute_error(true, predicted),
        "mse": sklearn_metrics.mean_squared_error(true, predicted),
        "wd": np.mean([wasserstein_distance(axis, axis, p, t) for p, t in zip(predicted, true, strict=True)]),
        **{f"vb_gap_{name}": value for name, value in {"f1": f1, "precision": precision, "recall": recall}.items()},
        **{f"vb_gap_{name}": float(count) for name, count in {"tp": tp, "fp": fp, "fn": fn, "tn": tn}.items()},
    }
    assert pooled.scores() == pytest.approx(expected, rel=SINGLE)
    assert min(tp, fn, tn) > 0, "a class without members would test nothing"


def test_order_of_the_folds_does_not_matter(pooled, tables, scaling):
    again = PooledPredictions.read(tables[::-1], scaling)
    assert again.material_ids == pooled.material_ids
    np.testing.assert_array_equal(again.predicted, pooled.predicted)


@pytest.fixture
def few_resamples(monkeypatch) -> None:
    monkeypatch.setattr(bootstrap, "RESAMPLES", FEW)


@pytest.fixture(scope="module")
def sample(labels: LabeledCrystals) -> PooledPredictions:
    """25 materials, with errors."""
    true = labels.spectra.numpy()[:25]
    noise = np.random.default_rng(2).normal(0, 0.2, true.shape).astype(np.float32)
    return PooledPredictions(tuple(labels.material_ids[:25]), np.abs(true + noise), true, EDOS_GRID)


METRICS = {"r2", "mae", "mse", "wd"}


@pytest.mark.usefixtures("few_resamples")
def test_predictions_with_more_noise_are_never_better_and_those_with_less_always_are(sample):
    noise = np.random.default_rng(3).normal(0, 2.0, sample.true.shape).astype(np.float32)
    noisier = replace(sample, predicted=np.abs(sample.predicted + noise))
    assert share_better(sample, noisier) == dict.fromkeys(METRICS, 1.0)
    assert share_better(noisier, sample) == dict.fromkeys(METRICS, 0.0)


@pytest.mark.usefixtures("few_resamples")
def test_equal_predictions_are_a_tie_that_counts_for_neither(sample):
    assert share_better(sample, replace(sample, predicted=sample.predicted.copy())) == dict.fromkeys(METRICS, 0.0)


@pytest.mark.usefixtures("few_resamples")
def test_networks_that_are_each_better_on_some_materials_share_the_resamples(sample):
    """Compared with another bootstrap, of the differences between the two errors of each material."""
    flat = np.full_like(sample.true, sample.true.mean())
    weights = np.random.default_rng(4).uniform(0, 1, (2, len(sample.true), 1)).astype(np.float32)
    one, other = (replace(sample, predicted=(1 - w) * sample.true + w * flat) for w in weights)
    shares, back = share_better(one, other), share_better(other, one)
    assert {name: shares[name] + back[name] for name in METRICS} == pytest.approx(dict.fromkeys(METRICS, 1.0)), (
        "no resample is a tie"
    )
    difference = np.abs(one.predicted - one.true).mean(axis=1) - np.abs(other.predicted - other.true).mean(axis=1)
    rows = np.random.default_rng(99).integers(len(difference), size=(20_000, len(difference)))
    expected = float((difference[rows].mean(axis=1) < 0).mean())
    assert 0.05 < expected < 0.95, "neither is better everywhere"
    assert abs(shares["mae"] - expected) < FOUR_SIGMA * (expected * (1 - expected) / FEW) ** 0.5


@pytest.mark.usefixtures("few_resamples")
def test_same_seed_gives_the_same_shares(sample):
    other = replace(sample, predicted=np.roll(sample.predicted, 1, axis=1))
    assert share_better(sample, other, seed=1) == share_better(sample, other, seed=1)


def test_predictions_for_other_materials_cannot_be_paired(sample):
    other = replace(sample, material_ids=("another", *sample.material_ids[1:]))
    with pytest.raises(AssertionError, match="only predictions for the same materials can be paired"):
        share_better(sample, other)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=12))
def test_classification_scores_are_those_of_scikit_learn(pairs):
    predicted, true = (np.array(column, bool) for column in zip(*pairs, strict=True))
    precision, recall, f1, _ = sklearn_metrics.precision_recall_fscore_support(
        true, predicted, average="binary", zero_division=np.nan
    )
    (tn, fp), (fn, tp) = sklearn_metrics.confusion_matrix(true, predicted, labels=[False, True])
    expected = {"f1": f1, "precision": precision, "recall": recall, "tp": tp, "fp": fp, "fn": fn, "tn": tn}
    assert classification_scores(predicted, true) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(("predicted", "true"), list(product([True, False], repeat=2)))
def test_score_that_the_counts_do_not_define_is_nan(predicted, true):
    scores = classification_scores(np.full(3, predicted), np.full(3, true))
    assert np.isnan(scores["precision"]) == (not predicted)
    assert np.isnan(scores["recall"]) == (not true)
    assert np.isnan(scores["f1"]) == (not predicted and not true)
