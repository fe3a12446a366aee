"""Baselines that learn nothing: the mean spectrum, and spectra of the elements."""

import numpy as np
import pytest
import torch
from pymatgen.core import Composition, Element
from sklearn.metrics import mean_absolute_error

from mat2spec.config import ElementalConfig, GraphConfig, MeanConfig, TrainConfig
from mat2spec.data.labels.dataset import LabeledSplits
from mat2spec.model.base import SpectrumNetwork
from mat2spec.model.baselines import ElementalSpectra, MeanSpectrum
from mat2spec.model.normalization import make_normalization
from mat2spec.predict.forward import predict_outputs
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.graph import CrystalGraph, build_graph
from mat2spec.train.loop import Training

CPU = torch.device("cpu")

SINGLE = 1e-5
"""Of sums in single precision, relative to densities of order one."""

BINS = 7

CONFIGS = {"mean": MeanConfig(architecture="mean"), "elemental": ElementalConfig(architecture="elemental")}


def graph_of(formula: str) -> CrystalGraph:
    """Atoms of a formula in a row; their order and distances mean nothing here."""
    numbers = [Element(symbol).Z for symbol, count in Composition(formula).items() for _ in range(int(count))]
    places = np.arange(len(numbers))[:, None] * np.array([[1 / len(numbers), 0, 0]])
    return build_graph(
        Crystal(formula, np.array(numbers, np.uint8), np.diag([3.0 * len(numbers), 3, 3]), places), GraphConfig()
    )


def some_labels(rows: int) -> torch.Tensor:
    """Random spectra of different sizes."""
    generator = np.random.default_rng(3)
    return torch.from_numpy(generator.random((rows, BINS)) * generator.uniform(1, 10, (rows, 1))).float()


@pytest.fixture(params=["sum", "standard"])
def scale(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def fitted(kind: type[SpectrumNetwork], scale: str, formulas: list[str]) -> tuple[SpectrumNetwork, np.ndarray]:
    """A baseline that saw crystals of these formulas, and their spectra on the scale on which it takes means."""
    labels = some_labels(len(formulas))
    network = kind(BINS, scale, "mae")
    network.fit([graph_of(formula) for formula in formulas], labels)
    known = make_normalization(scale, BINS)
    known.fit(labels)
    return network.eval(), known.normalize(labels).numpy()


def predicted(network: SpectrumNetwork, *formulas: str) -> np.ndarray:
    return predict_outputs(network, [graph_of(formula) for formula in formulas], CPU)


def test_mean_spectrum_is_the_mean_whatever_the_crystal(scale):
    network, shapes = fitted(MeanSpectrum, scale, ["Si", "MgO", "NaCl"])
    np.testing.assert_allclose(predicted(network, "Si", "Fe2O3"), np.tile(shapes.mean(axis=0), (2, 1)), atol=SINGLE)


def test_mean_in_the_unit_of_the_labels_is_that_of_numpy():
    network, _ = fitted(MeanSpectrum, "standard", ["Si", "MgO", "NaCl"])
    np.testing.assert_allclose(
        network.to_densities(predicted(network, "Si"))[0], some_labels(3).numpy().mean(axis=0), rtol=SINGLE
    )


def test_crystal_of_a_pure_element_has_the_mean_of_the_spectra_of_that_element(scale):
    network, shapes = fitted(ElementalSpectra, scale, ["Si", "Mg", "Si2", "MgSi"])
    np.testing.assert_allclose(
        predicted(network, "Si", "Si3"), np.tile((shapes[0] + shapes[2]) / 2, (2, 1)), atol=SINGLE
    )
    np.testing.assert_allclose(
        predicted(network, "Mg")[0], shapes[1], atol=SINGLE, err_msg="its compounds do not count"
    )


def test_compound_is_weighted_by_its_composition(scale):
    network, shapes = fitted(ElementalSpectra, scale, ["Si", "Mg", "Ba"])
    silicon, magnesium, barium = shapes
    expected = [(silicon + magnesium) / 2, (silicon + 2 * magnesium) / 3, (silicon + magnesium + 2 * barium) / 4]
    np.testing.assert_allclose(predicted(network, "MgSi", "Mg2Si", "MgSiBa2"), expected, atol=SINGLE)


def test_element_in_compounds_only_has_their_mean_weighted_by_its_fraction(scale):
    network, shapes = fitted(ElementalSpectra, scale, ["MgO", "Mg", "SiO2", "Si"])
    oxygen = (1 / 2 * shapes[0] + 2 / 3 * shapes[2]) / (1 / 2 + 2 / 3)
    np.testing.assert_allclose(predicted(network, "O2", "MgO"), [oxygen, (shapes[1] + oxygen) / 2], atol=SINGLE)


def test_element_that_was_never_seen_has_the_mean_of_all(scale):
    network, shapes = fitted(ElementalSpectra, scale, ["MgO", "Mg", "Si"])
    overall = shapes.mean(axis=0)
    np.testing.assert_allclose(predicted(network, "Fe", "FeMg"), [overall, (overall + shapes[1]) / 2], atol=SINGLE)


def test_shapes_stay_shapes():
    """Means of distributions are distributions."""
    network, _ = fitted(ElementalSpectra, "sum", ["MgO", "Mg", "SiO2"])
    np.testing.assert_allclose(predicted(network, "Fe", "MgSiO3", "Mg").sum(axis=1), 1, rtol=SINGLE)


def composition(crystal: Crystal) -> dict[int, float]:
    numbers = crystal.atomic_numbers.tolist()
    return {z: numbers.count(z) / len(numbers) for z in set(numbers)}


def elemental_by_hand(splits: LabeledSplits) -> np.ndarray:
    """Densities of the validation crystals, element by element."""
    train = [
        (composition(crystal), spectrum.numpy())
        for crystal, spectrum in zip(splits.train.crystals, splits.train.spectra, strict=True)
    ]

    def of_element(z: int) -> np.ndarray:
        weighted = [(fractions[z], spectrum) for fractions, spectrum in train if z in fractions]
        pure = [(share, spectrum) for share, spectrum in weighted if share == 1]
        chosen = pure or weighted or [(1.0, spectrum) for _, spectrum in train]
        return np.average([spectrum for _, spectrum in chosen], axis=0, weights=[share for share, _ in chosen])

    return np.stack(
        [sum(share * of_element(z) for z, share in composition(crystal).items()) for crystal in splits.valid.crystals]
    )


@pytest.mark.parametrize("architecture", CONFIGS)
def test_training_scores_a_baseline_and_changes_nothing(train_config: TrainConfig, splits: LabeledSplits, architecture):
    config = train_config.model_copy(
        update={"model": CONFIGS[architecture], "normalization": "standard", "loss": "mae"}
    )
    training = Training(config, splits, CPU)
    before = {name: tensor.clone() for name, tensor in training.network.state_dict().items()}
    first, second = training.run_epoch(), training.run_epoch()
    if architecture == "mean":
        expected = np.tile(splits.train.spectra.numpy().mean(axis=0), (len(splits.valid), 1))
    else:
        expected = elemental_by_hand(splits)
    assert first["valid_mae"] == pytest.approx(mean_absolute_error(splits.valid.spectra.numpy(), expected), rel=SINGLE)
    assert second["valid_mae"] == first["valid_mae"]
    assert training.best["epoch"] == 0
    for name, tensor in training.network.state_dict().items():
        assert tensor.equal(before[name]), name
