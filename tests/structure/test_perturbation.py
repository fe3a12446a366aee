"""Unrelaxed crystals: strained and displaced by the given size, and otherwise unchanged."""

import numpy as np
import pyarrow as pa
import pytest

from mat2spec.data.materials.schema import read_crystals
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.perturbation import perturb

STRAIN, DISPLACEMENT = 0.02, 0.05

SEEDS = 6
"""Samples of 400 crystals each."""

FOUR_SIGMA = 4.0
"""Standard deviations by which an estimate may miss: once in 16,000."""

ROUNDING = 1e-10
"""Absolute error of double precision after inverting a matrix."""


@pytest.fixture(scope="module")
def relaxed(materials: pa.Table) -> list[Crystal]:
    return [row for row in read_crystals(materials) if isinstance(row, Crystal)]


def strains(before: list[Crystal], after: list[Crystal]) -> np.ndarray:
    """Tensor ε of each crystal, from a′ = a (1 + ε)."""
    return np.stack([np.linalg.solve(a.lattice, b.lattice) - np.eye(3) for a, b in zip(before, after, strict=True)])


def displacements(before: list[Crystal], after: list[Crystal]) -> np.ndarray:
    """Cartesian displacement of each atom within its strained cell [Å]."""
    return np.concatenate([(b.frac_coords - a.frac_coords) @ b.lattice for a, b in zip(before, after, strict=True)])


def assert_normal(values: np.ndarray, deviation: float) -> None:
    """Mean 0 and this standard deviation in each column, within the statistical error."""
    rows = len(values)
    assert np.abs(values.mean(axis=0)).max() < FOUR_SIGMA * deviation / rows**0.5
    assert np.abs(values.std(axis=0) / deviation - 1).max() < FOUR_SIGMA / (2 * rows) ** 0.5


def test_strain_is_symmetric(relaxed):
    tensors = strains(relaxed, perturb(relaxed, STRAIN, 0.0))
    np.testing.assert_allclose(tensors, tensors.transpose(0, 2, 1), atol=ROUNDING)
    assert np.abs(tensors).min(axis=0).max() > 0, "no component is left out"


def test_each_of_the_six_components_of_strain_has_the_given_size(relaxed):
    tensors = np.concatenate([strains(relaxed, perturb(relaxed, STRAIN, 0.0, seed)) for seed in range(SEEDS)])
    six = tensors[:, *np.triu_indices(3)]
    assert_normal(six, STRAIN)
    correlations = np.corrcoef(six.T)[np.triu_indices(6, 1)]
    assert np.abs(correlations).max() < FOUR_SIGMA / len(six) ** 0.5, "components are independent"


def test_atoms_are_displaced_by_the_given_size_along_each_axis(relaxed):
    vectors = displacements(relaxed, perturb(relaxed, 0.0, DISPLACEMENT))
    assert len(vectors) == sum(map(len, relaxed))
    assert_normal(vectors, DISPLACEMENT)


def test_displacements_are_the_same_in_a_strained_cell(relaxed):
    """They are in Å of the strained cell, not of the relaxed one."""
    without, with_strain = (displacements(relaxed, perturb(relaxed, strain, DISPLACEMENT)) for strain in (0.0, STRAIN))
    np.testing.assert_allclose(with_strain, without, atol=ROUNDING)


def test_material_id_and_composition_are_unchanged(relaxed):
    for before, after in zip(relaxed, perturb(relaxed, STRAIN, DISPLACEMENT), strict=True):
        assert after.material_id == before.material_id
        np.testing.assert_array_equal(after.atomic_numbers, before.atomic_numbers)


def test_strain_alone_leaves_fractional_coordinates(relaxed):
    for before, after in zip(relaxed, perturb(relaxed, STRAIN, 0.0), strict=True):
        np.testing.assert_array_equal(after.frac_coords, before.frac_coords)
        assert not np.array_equal(after.lattice, before.lattice)


def test_displacement_alone_leaves_the_cell(relaxed):
    for before, after in zip(relaxed, perturb(relaxed, 0.0, DISPLACEMENT), strict=True):
        np.testing.assert_array_equal(after.lattice, before.lattice)
        assert (after.frac_coords != before.frac_coords).all()


def test_zero_sizes_change_nothing(relaxed):
    for before, after in zip(relaxed, perturb(relaxed, 0.0, 0.0), strict=True):
        np.testing.assert_array_equal(after.lattice, before.lattice)
        np.testing.assert_array_equal(after.frac_coords, before.frac_coords)


def test_same_seed_gives_the_same_crystals_and_another_gives_others(relaxed):
    one, again, other = (perturb(relaxed[:5], STRAIN, DISPLACEMENT, seed) for seed in (1, 1, 2))
    for a, b, c in zip(one, again, other, strict=True):
        np.testing.assert_array_equal(a.lattice, b.lattice)
        np.testing.assert_array_equal(a.frac_coords, b.frac_coords)
        assert not np.isclose(a.lattice, c.lattice, rtol=0, atol=ROUNDING).all()


def test_equal_crystals_are_perturbed_differently(silicon):
    one, two = perturb([silicon, silicon], STRAIN, DISPLACEMENT)
    assert not np.allclose(one.lattice, two.lattice, rtol=0, atol=ROUNDING)
    assert not np.allclose(one.frac_coords, two.frac_coords, rtol=0, atol=ROUNDING)
