"""The loop over all pairs of a small cell finds what pymatgen's search finds."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mat2spec.structure import neighbors
from mat2spec.structure.distances import compact_cell
from mat2spec.structure.neighbors import LARGEST_LOOP, Pairs, pairs_by_pymatgen, pairs_within

ROUNDING = 1e-9
"""[Å]"""


def keys(pairs: Pairs) -> list[tuple[int, ...]]:
    """Center, neighbor and vector [10⁻⁶ Å] of each pair, sorted."""
    vectors = np.round(pairs.vectors * 1e6).astype(int)
    return sorted(zip(pairs.centers.tolist(), pairs.neighbors.tolist(), *vectors.T.tolist(), strict=True))


def assert_ordered(pairs: Pairs) -> None:
    np.testing.assert_array_equal(np.lexsort((pairs.distances, pairs.centers)), np.arange(len(pairs.centers)))
    np.testing.assert_allclose(np.linalg.norm(pairs.vectors, axis=1), pairs.distances, atol=ROUNDING)


def assert_same(radius: float, lattice: np.ndarray, coords: np.ndarray) -> None:
    found, expected = pairs_within(radius, lattice, coords), pairs_by_pymatgen(radius, lattice, coords)
    assert_ordered(found)
    assert_ordered(expected)
    assert [array.dtype for array in found] == [array.dtype for array in expected]
    np.testing.assert_array_equal(found.centers, expected.centers)
    np.testing.assert_allclose(found.distances, expected.distances, atol=ROUNDING)
    for ours, theirs in zip(keys(found), keys(expected), strict=True):
        assert np.abs(np.subtract(ours, theirs)).max() <= 1, "the same but for the last digit"


@pytest.mark.parametrize("radius", [2.6, 4.7, 8.0])
def test_pairs_of_real_crystals_are_those_of_pymatgen(real_crystals, radius):
    for crystal in real_crystals[:100]:
        assert_same(radius, *compact_cell(crystal))


@given(
    lattice=st.lists(st.floats(-6, 6).map(lambda x: round(x, 3)), min_size=9, max_size=9),
    frac=st.lists(st.tuples(*[st.integers(0, 999)] * 3), min_size=1, max_size=6),
    radius=st.sampled_from([0.5, 3.001, 7.503]),
)
def test_pairs_of_any_cell_are_those_of_pymatgen(lattice, frac, radius):
    """Skewed and left-handed cells, atoms on faces and on top of each other."""
    vectors = np.array(lattice).reshape(3, 3)
    faces = [np.linalg.norm(np.cross(vectors[i], vectors[i - 1])) for i in range(3)]
    assume(abs(np.linalg.det(vectors)) > max(faces))  # planes more than 1 Å apart
    coords = np.array(frac) / 1000 @ vectors
    at_radius = np.abs(pairs_by_pymatgen(radius + 1e-3, vectors, coords).distances - radius) < 1e-6
    assume(not at_radius.any())  # where rounding decides
    assert_same(radius, vectors, coords)


def test_pair_at_the_radius_is_within_it():
    pairs = pairs_within(3.0, 3 * np.eye(3), np.zeros((1, 3)))
    assert len(pairs.centers) == 6
    assert not len(pairs_within(2.9999, 3 * np.eye(3), np.zeros((1, 3))).centers)


def test_dense_molecules_in_much_empty_space_are_found_whole():
    """Their pairs are many more than the mean density lets expect."""
    coords = np.random.default_rng(0).uniform(0, 5, (LARGEST_LOOP, 3))
    pairs = pairs_within(9.0, 40 * np.eye(3), coords)
    assert len(pairs.centers) == LARGEST_LOOP * (LARGEST_LOOP - 1)
    assert_same(9.0, 40 * np.eye(3), coords)


def test_large_cells_are_left_to_pymatgen(monkeypatch):
    lattice, coords = 30 * np.eye(3), np.random.default_rng(0).uniform(0, 30, (LARGEST_LOOP + 1, 3))
    assert_ordered(pairs_within(4.0, lattice, coords))
    monkeypatch.setattr(neighbors, "LARGEST_LOOP", LARGEST_LOOP + 1)
    assert_same(4.0, lattice, coords)
