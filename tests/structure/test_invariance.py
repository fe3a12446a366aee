"""A spectrum belongs to the crystal, not to the way it is written down."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from mat2spec.config import GraphConfig
from mat2spec.model.base import SpectrumNetwork
from mat2spec.predict.forward import predict_outputs
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.graph import build_graph

TOLERANCE = 1e-5
"""Densities of a shape add to 1; float32 sums in another order differ by 2e-6, other crystals by 1e-2."""

CPU = torch.device("cpu")
which_crystal = st.integers(0, 11)
numbers = st.floats(-10, 10, allow_nan=False)
bounded = settings(
    max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module", params=["mat2spec", "gatgnn", "additive", "projected"])
def some_network(networks, request) -> SpectrumNetwork:
    """Each network in turn."""
    return networks[request.param]


@pytest.fixture(scope="module")
def spectrum(some_network):
    """Predict the shape of one crystal."""
    return lambda crystal: predict_outputs(some_network, [build_graph(crystal, GraphConfig())], CPU)[0]


@pytest.fixture(scope="module")
def expected(real_crystals, spectrum) -> np.ndarray:
    return np.stack([spectrum(crystal) for crystal in real_crystals])


def rewritten(
    crystal: Crystal, lattice: np.ndarray, frac_coords: np.ndarray, order: np.ndarray | None = None
) -> Crystal:
    """The sites in another cell, and in another order if one is given."""
    order = np.arange(len(frac_coords)) if order is None else order
    numbers = np.tile(crystal.atomic_numbers, len(frac_coords) // len(crystal))
    return Crystal(
        crystal.material_id, numbers[order], np.ascontiguousarray(lattice), np.ascontiguousarray(frac_coords[order])
    )


def supercell(crystal: Crystal, repeats: tuple[int, int, int]) -> Crystal:
    images = np.indices(repeats).reshape(3, -1).T
    frac_coords = (crystal.frac_coords + images[:, None]).reshape(-1, 3) / repeats
    return rewritten(crystal, crystal.lattice * np.array(repeats)[:, None], frac_coords)


def test_spectra_of_different_crystals_differ(expected):
    """Else everything below would hold of a network that ignores its input."""
    distances = np.abs(expected[:, None] - expected).max(axis=2)[np.triu_indices(len(expected), 1)]
    assert distances.min() > 100 * TOLERANCE


def test_spectrum_feels_a_strain_of_one_percent(real_crystals, spectrum, expected):
    for crystal, shape in zip(real_crystals, expected, strict=True):
        strained = rewritten(crystal, 1.01 * crystal.lattice, crystal.frac_coords)
        assert np.abs(spectrum(strained) - shape).max() > 10 * TOLERANCE


@bounded
@given(which=which_crystal, seed=st.integers(0, 1000))
def test_spectrum_is_the_same_after_any_rotation(real_crystals, spectrum, expected, which, seed):
    crystal = real_crystals[which]
    turned = rewritten(crystal, crystal.lattice @ Rotation.random(rng=seed).as_matrix(), crystal.frac_coords)
    np.testing.assert_allclose(spectrum(turned), expected[which], atol=TOLERANCE)


@bounded
@given(which=which_crystal)
def test_spectrum_is_the_same_in_a_mirror(real_crystals, spectrum, expected, which):
    crystal = real_crystals[which]
    mirrored = rewritten(crystal, crystal.lattice * [1, 1, -1], crystal.frac_coords)
    np.testing.assert_allclose(spectrum(mirrored), expected[which], atol=TOLERANCE)


@bounded
@given(which=which_crystal, shift=st.tuples(numbers, numbers, numbers))
def test_spectrum_is_the_same_for_any_origin(real_crystals, spectrum, expected, which, shift):
    crystal = real_crystals[which]
    moved = rewritten(crystal, crystal.lattice, crystal.frac_coords + shift)
    np.testing.assert_allclose(spectrum(moved), expected[which], atol=TOLERANCE)


@bounded
@given(which=which_crystal, random=st.randoms(use_true_random=False))
def test_spectrum_is_the_same_for_any_order_of_sites(real_crystals, spectrum, expected, which, random):
    crystal = real_crystals[which]
    order = np.array(random.sample(range(len(crystal)), len(crystal)))
    shuffled = rewritten(crystal, crystal.lattice, crystal.frac_coords, order)
    np.testing.assert_allclose(spectrum(shuffled), expected[which], atol=TOLERANCE)


@pytest.mark.parametrize("repeats", [(2, 1, 1), (1, 2, 2), (1, 1, 3)])
def test_spectrum_is_the_same_for_a_supercell(real_crystals, spectrum, expected, repeats):
    for crystal, shape in zip(real_crystals, expected, strict=True):
        np.testing.assert_allclose(
            spectrum(supercell(crystal, repeats)), shape, atol=TOLERANCE, err_msg=crystal.material_id
        )


@bounded
@given(
    which=which_crystal,
    steps=st.lists(st.tuples(st.permutations([0, 1, 2]), st.integers(-3, 3)), min_size=1, max_size=4),
)
def test_spectrum_is_the_same_for_any_choice_of_cell(real_crystals, spectrum, expected, which, steps):
    cell = np.eye(3)
    for (row, other, _), times in steps:
        cell[row] += times * cell[other]  # keeps the volume: the new vectors span the same lattice
    crystal = real_crystals[which]
    chosen = rewritten(crystal, cell @ crystal.lattice, crystal.frac_coords @ np.linalg.inv(cell))
    np.testing.assert_allclose(spectrum(chosen), expected[which], atol=TOLERANCE)


@bounded
@given(edges_per_batch=st.integers(1, 3000), random=st.randoms(use_true_random=False))
def test_spectrum_is_the_same_in_any_batch(some_network, real_graphs, expected, edges_per_batch, random):
    order = random.sample(range(len(real_graphs)), len(real_graphs))
    shapes = predict_outputs(some_network, [real_graphs[i] for i in order], CPU, edges_per_batch)
    np.testing.assert_allclose(shapes, expected[order], atol=TOLERANCE)
