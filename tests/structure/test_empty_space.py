"""The largest empty sphere, against the corners of the Voronoi cells of a supercell."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import fcc111, molecule
from pymatgen.core import Structure
from scipy.spatial import Voronoi, cKDTree
from scipy.spatial.transform import Rotation

from mat2spec.structure.crystal import Crystal
from mat2spec.structure.empty_space import LARGEST_RADIUS, empty_radius

UNDERESTIMATE = 0.11
"""Share of the radius that rays in fixed directions may miss."""


def voronoi_radius(crystal: Crystal) -> float:
    """Largest distance from a corner of a Voronoi cell in the central cell to its nearest atom."""
    reduced = crystal.to_structure().get_reduced_structure("niggli")
    images = np.indices((5, 5, 5)).reshape(3, -1).T - 2
    points = (reduced.frac_coords % 1 + images[:, None]).reshape(-1, 3) @ reduced.lattice.matrix
    corners = Voronoi(points).vertices
    central = corners @ np.linalg.inv(reduced.lattice.matrix)
    corners = corners[((central > -0.01) & (central < 1.01)).all(axis=1)]
    return float(cKDTree(points).query(corners)[0].max())


def water(box: float) -> Crystal:
    """One molecule in a cubic box of this edge [Å]."""
    atoms = molecule("H2O")
    atoms.set_cell(box * np.eye(3))
    atoms.pbc = True
    return Crystal.from_atoms(atoms)


def slab(vacuum: float) -> Crystal:
    """Three layers of aluminium below this much vacuum [Å]."""
    atoms: Atoms = fcc111("Al", (1, 1, 3), a=4.05, vacuum=vacuum / 2)
    atoms.pbc = True
    return Crystal.from_atoms(atoms)


def test_radius_of_dense_crystals_is_that_of_the_voronoi_corner(real_crystals):
    for crystal in real_crystals:
        exact = voronoi_radius(crystal)
        assert (1 - UNDERESTIMATE) * exact <= empty_radius(crystal) <= 1.0001 * exact < 4, crystal.formula


def test_radius_of_an_octahedral_hole_is_half_the_lattice_constant_of_fcc():
    gold = Crystal("gold", np.array([79], np.uint8), 2.04 * (1 - np.eye(3)), np.zeros((1, 3)))
    assert (1 - UNDERESTIMATE) * 2.04 <= empty_radius(gold) <= 2.0401


@pytest.mark.parametrize("crystal", [water(8.0), water(10.0), slab(8.0), slab(15.0)], ids=len)
def test_radius_of_molecules_and_slabs_is_that_of_the_vacuum(crystal):
    exact = voronoi_radius(crystal)
    assert exact > 4
    assert (1 - UNDERESTIMATE) * exact <= empty_radius(crystal) <= 1.0001 * exact


def test_water_in_a_box_of_15_angstrom_is_empty():
    assert voronoi_radius(water(15.0)) > LARGEST_RADIUS
    assert empty_radius(water(15.0)) == LARGEST_RADIUS


def test_radius_is_nearly_the_same_in_other_cells_and_orientations(real_crystals):
    for crystal in real_crystals:
        structure = crystal.to_structure()
        structure.make_supercell([[1, 1, 0], [0, 1, 0], [0, 0, 2]])
        turned = structure.lattice.matrix @ Rotation.random(rng=3).as_matrix()
        other = Crystal.from_structure(Structure(turned, structure.species, structure.frac_coords))
        assert empty_radius(other) == pytest.approx(empty_radius(crystal), rel=UNDERESTIMATE), crystal.formula
