"""Metal or not, and the band gap."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from sklearn.metrics import mean_absolute_error, roc_auc_score

from mat2spec.config import GapConfig, GraphConfig, VectorGapConfig
from mat2spec.dos.grid import EDOS_GRID
from mat2spec.dos.metrics import gap_scores, most_likely_gap, roc_auc
from mat2spec.model.band_gap import BandGapNetwork
from mat2spec.predict.forward import predict_outputs
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.graph import CrystalGraph, GraphBatch, build_graph

CPU = torch.device("cpu")

EXACT = 1e-12
"""Relative difference of two sums in double precision."""

SINGLE = 1e-5
"""Relative difference of two sums in single precision."""

INVARIANCE = 1e-5
"""Float32 sums in another order; other crystals differ by 1e-2."""

CONFIG = GapConfig(architecture="gap", layers=2, heads=2, width=16, head=16, dropout=0.5)


VECTORS = VectorGapConfig(architecture="vector-gap", layers=2, width=16, gaussians=8, head=16, dropout=0.5)


@pytest.fixture(scope="module", params=[CONFIG, VECTORS], ids=["attention", "vectors"])
def gap_network(real_graphs: list[CrystalGraph], request) -> BandGapNetwork:
    """Random weights, BatchNorm statistics of real crystals, eval mode; a head whose outputs differ by crystal."""
    torch.manual_seed(0)
    network = BandGapNetwork(request.param, 8.0)
    for norm in (module for module in network.modules() if isinstance(module, torch.nn.BatchNorm1d)):
        norm.momentum = 1.0
    with torch.no_grad():
        network.outputs(GraphBatch.from_graphs(real_graphs))
    torch.nn.init.normal_(network.head[-1].weight, std=2.0)
    network.eval()
    with torch.no_grad():
        network.head[-1].bias -= network._raw(GraphBatch.from_graphs(real_graphs)).median(dim=0).values
    return network


@pytest.fixture(scope="module")
def gaps(real_graphs: list[CrystalGraph]) -> torch.Tensor:
    """Known gaps [eV] of twelve crystals, every third one a metal."""
    known = torch.linspace(0.3, 6, len(real_graphs))[:, None]
    known[::3] = 0
    return known


@pytest.fixture(scope="module")
def outputs(gap_network, real_graphs) -> np.ndarray:
    return predict_outputs(gap_network, real_graphs, CPU)


@pytest.mark.parametrize("decimals", [1, 2, 8])
@pytest.mark.parametrize("seed", range(5))
def test_area_under_the_curve_is_that_of_scikit_learn(decimals, seed):
    """One decimal makes many ties."""
    generator = np.random.default_rng(seed)
    positive = generator.random(60) < 0.3
    scores = (generator.random(60) + 0.3 * positive).round(decimals)
    assert (len(set(scores)) < 60) == (decimals < 8), "ties where they are meant to be"
    assert roc_auc(scores, positive) == pytest.approx(roc_auc_score(positive, scores), rel=EXACT)


def test_area_under_the_curve_is_one_for_a_perfect_order_and_half_for_none():
    positive = np.array([True, True, False, False, False])
    assert roc_auc(np.array([5.0, 4.0, 3.0, 2.0, 1.0]), positive) == 1
    assert roc_auc(np.array([1.0, 2.0, 3.0, 4.0, 5.0]), positive) == 0
    assert roc_auc(np.full(5, 0.7), positive) == 0.5


@pytest.mark.parametrize("kind", [True, False])
def test_crystals_of_one_kind_have_no_area_under_the_curve(kind):
    assert np.isnan(roc_auc(np.arange(4.0), np.full(4, kind)))


def test_gap_is_none_where_a_metal_is_more_likely_than_not():
    outputs = np.array([[0.51, 2.0], [0.5, 2.0], [0.49, 3.0], [1.0, 0.1], [0.0, 0.1]])
    assert most_likely_gap(outputs).tolist() == [0.0, 2.0, 3.0, 0.0, 0.1]


def test_scores_are_those_of_a_plain_loop():
    generator = np.random.default_rng(0)
    outputs = np.stack([generator.random(50), 4 * generator.random(50)], axis=1)
    true = np.where(generator.random(50) < 0.4, 0.0, 5 * generator.random(50))
    right, errors, errors_of_gapped = 0, [], []
    for (probability, gap), known in zip(outputs.tolist(), true.tolist(), strict=True):
        predicted = 0.0 if probability > 0.5 else gap
        right += (probability > 0.5) == (known == 0)
        errors.append(abs(predicted - known))
        if known > 0:
            errors_of_gapped.append(abs(predicted - known))
    expected = {
        "roc_auc": roc_auc_score(true == 0, outputs[:, 0]),
        "accuracy": right / 50,
        "mae": sum(errors) / 50,
        "mae_of_gapped": sum(errors_of_gapped) / len(errors_of_gapped),
    }
    assert gap_scores(outputs, true) == pytest.approx(expected, rel=EXACT)
    assert 0 < len(errors_of_gapped) < 50


def test_gapless_world_has_no_error_of_gapped():
    scores = gap_scores(np.array([[0.9, 1.0], [0.2, 1.0]]), np.zeros(2))
    assert np.isnan(scores["mae_of_gapped"])
    assert np.isnan(scores["roc_auc"])
    assert (scores["accuracy"], scores["mae"]) == (0.5, 0.5)


def test_loss_is_the_cross_entropy_of_metals_and_the_error_of_all_other_gaps(gap_network, real_graphs, gaps):
    """Torch's own functions on the probability and on the gap; a metal has no gap to be wrong about."""
    graphs = GraphBatch.from_graphs(real_graphs)
    terms = gap_network(graphs, gaps)
    probability, gap = gap_network.outputs(graphs).unbind(dim=1)
    metal = gaps[:, 0] == 0
    cross_entropy = torch.nn.functional.binary_cross_entropy(probability, metal.float())
    of_gapped = torch.nn.functional.l1_loss(gap[~metal], gaps[~metal, 0], reduction="sum") / len(gaps)
    assert set(terms) == {"metal", "gap"}
    assert terms["metal"].item() == pytest.approx(cross_entropy.item(), rel=SINGLE)
    assert terms["gap"].item() == pytest.approx(of_gapped.item(), rel=SINGLE)
    assert terms["gap"] > 0


def test_gap_of_a_metal_changes_no_loss(gap_network, real_graphs):
    """The head's second number is free where there is no gap."""
    metals = torch.zeros(len(real_graphs), 1)
    assert gap_network(GraphBatch.from_graphs(real_graphs), metals)["gap"].item() == 0


@pytest.mark.parametrize("config", [CONFIG, VECTORS])
def test_every_parameter_learns(config, real_graphs, gaps):
    torch.manual_seed(0)
    network = BandGapNetwork(config.model_copy(update={"dropout": 0.0}), 8.0).train()
    sum(network(GraphBatch.from_graphs(real_graphs), gaps).values()).backward()
    assert not [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]


def test_outputs_are_a_probability_and_a_positive_gap(outputs):
    assert ((outputs[:, 0] > 0) & (outputs[:, 0] < 1)).all()
    assert (outputs[:, 1] > 0).all()
    assert (outputs[:, 0] > 0.5).any(), "a network that calls everything one kind would test little"
    assert (outputs[:, 0] < 0.5).any()


def test_confident_metal_has_a_finite_loss(gap_network, real_graphs, gaps):
    """A sigmoid of 200 is 1 in float32; its logarithm must not be taken."""
    with torch.no_grad():
        bias = gap_network.head[-1].bias.clone()
        gap_network.head[-1].bias[0] += 200
        terms = gap_network(GraphBatch.from_graphs(real_graphs), gaps)
        gap_network.head[-1].bias.copy_(bias)
    wrong = (gaps > 0).float().mean().item()
    assert terms["metal"].item() == pytest.approx(200 * wrong, rel=0.1)


def test_validation_is_scored_as_gaps_are(gap_network, outputs, gaps):
    scores = gap_network.validation_scores(torch.from_numpy(outputs), gaps, EDOS_GRID)
    predicted = [0.0 if probability > 0.5 else gap for probability, gap in outputs.tolist()]
    assert scores["mae"] == pytest.approx(mean_absolute_error(gaps[:, 0], predicted), rel=SINGLE)
    assert scores["roc_auc"] == pytest.approx(roc_auc_score(gaps[:, 0] == 0, outputs[:, 0]), rel=EXACT)


def rotated(crystal: Crystal, generator: np.random.Generator) -> Crystal:
    lattice = crystal.lattice @ Rotation.random(rng=generator).as_matrix()
    return Crystal(crystal.material_id, crystal.atomic_numbers, lattice, crystal.frac_coords)


def permuted(crystal: Crystal, generator: np.random.Generator) -> Crystal:
    order = generator.permutation(len(crystal))
    return Crystal(crystal.material_id, crystal.atomic_numbers[order], crystal.lattice, crystal.frac_coords[order])


def doubled(crystal: Crystal, generator: np.random.Generator) -> Crystal:
    stretch = np.ones(3)
    stretch[generator.integers(3)] = 2
    frac_coords = np.concatenate([crystal.frac_coords / stretch, (crystal.frac_coords + (stretch - 1)) / stretch])
    return Crystal(
        crystal.material_id, np.tile(crystal.atomic_numbers, 2), crystal.lattice * stretch[:, None], frac_coords
    )


def shifted(crystal: Crystal, generator: np.random.Generator) -> Crystal:
    return Crystal(
        crystal.material_id, crystal.atomic_numbers, crystal.lattice, crystal.frac_coords + generator.uniform(-2, 2, 3)
    )


@pytest.mark.parametrize("rewritten", [rotated, permuted, doubled, shifted])
def test_gap_belongs_to_the_crystal_not_to_the_way_it_is_written(gap_network, real_crystals, outputs, rewritten):
    generator = np.random.default_rng(0)
    graphs = [build_graph(rewritten(crystal, generator), GraphConfig()) for crystal in real_crystals]
    np.testing.assert_allclose(predict_outputs(gap_network, graphs, CPU), outputs, atol=INVARIANCE, rtol=INVARIANCE)


def test_different_crystals_have_different_gaps(outputs):
    """Else the claim above would hold of a network that ignores its input."""
    distances = np.abs(outputs[:, None] - outputs).max(axis=2)[np.triu_indices(len(outputs), 1)]
    assert distances.min() > 20 * INVARIANCE


def test_gap_feels_a_strain_of_one_percent(gap_network, real_crystals, outputs):
    strained = [Crystal(c.material_id, c.atomic_numbers, 1.01 * c.lattice, c.frac_coords) for c in real_crystals]
    predicted = predict_outputs(gap_network, [build_graph(crystal, GraphConfig()) for crystal in strained], CPU)
    assert np.abs(predicted - outputs).max(axis=1).min() > 10 * INVARIANCE
