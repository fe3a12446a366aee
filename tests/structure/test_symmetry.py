from dataclasses import replace

import numpy as np
import pytest
import spglib
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from mat2spec.data.materials.schema import read_crystals
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.symmetry import SYMPREC, primitive_nsites, space_group_number, standard_primitive

CONVENTIONAL_FCC = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])


@pytest.fixture(scope="module")
def real(materials) -> list[Crystal]:
    """150 crystals of 1 to 20 sites."""
    return [row for row in read_crystals(materials.slice(0, 150)) if isinstance(row, Crystal)]


def by_spglib(crystal: Crystal) -> int:
    """Count of spglib without our shortcut."""
    _, _, numbers = spglib.find_primitive(
        (crystal.lattice, crystal.frac_coords, crystal.atomic_numbers), symprec=SYMPREC
    )
    return len(numbers)


def supercell(crystal: Crystal, matrix: np.ndarray) -> Crystal:
    """Repeat a crystal over the cell spanned by integer combinations of its lattice vectors."""
    reach = np.abs(matrix).sum()
    images = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1)] * 3), axis=-1).reshape(-1, 3)
    inside = images @ np.linalg.inv(matrix)
    images = images[((inside > -1e-9) & (inside < 1 - 1e-9)).all(axis=1)]
    frac = (images[:, None] + crystal.frac_coords).reshape(-1, 3) @ np.linalg.inv(matrix)
    return Crystal(crystal.material_id, np.tile(crystal.atomic_numbers, len(images)), matrix @ crystal.lattice, frac)


def test_count_is_that_of_spglib(real):
    counted = [(c.material_id, primitive_nsites(c)) for c in real]
    assert counted == [(c.material_id, by_spglib(c)) for c in real]
    assert any(count < len(c) for (_, count), c in zip(counted, real, strict=True)), (
        "some of the cells must not be primitive"
    )


@pytest.mark.parametrize(
    "matrix", [np.diag([2, 1, 1]), np.diag([1, 1, 3]), np.array([[1, 1, 0], [-1, 1, 0], [0, 0, 1]])]
)
def test_supercell_has_the_primitive_cell_of_its_crystal(real, matrix):
    small = [crystal for crystal in real if len(crystal) <= 8]
    assert len(small) > 30
    for crystal in small:
        assert primitive_nsites(supercell(crystal, matrix)) == primitive_nsites(crystal), crystal.material_id


def test_conventional_cells_hold_four_primitive_ones(silicon, rock_salt):
    for crystal in (silicon, rock_salt):
        frac = (
            CONVENTIONAL_FCC[:, None]
            + [[0, 0, 0], crystal.frac_coords[1] @ crystal.lattice / (2 * crystal.lattice[0, 1])]
        ).reshape(-1, 3)
        cubic = Crystal("cubic", np.tile(crystal.atomic_numbers, 4), 2 * crystal.lattice[0, 1] * np.eye(3), frac)
        assert by_spglib(cubic) == 2
        assert primitive_nsites(cubic) == 2


def test_displacements_within_the_precision_are_ignored_and_larger_ones_break_the_symmetry(silicon):
    doubled = supercell(silicon, np.diag([1, 1, 2]))
    for shift, expected in ((0.1 * SYMPREC, 2), (10 * SYMPREC, 4)):
        frac = doubled.frac_coords.copy()
        frac[0] += [0, 0, shift / np.linalg.norm(doubled.lattice[2])]
        moved = Crystal("moved", doubled.atomic_numbers, doubled.lattice, frac)
        assert primitive_nsites(moved) == expected


def test_other_element_on_one_site_makes_the_supercell_primitive(silicon):
    doubled = supercell(silicon, np.diag([1, 1, 2]))
    numbers = doubled.atomic_numbers.copy()
    numbers[0] = 32
    assert primitive_nsites(Crystal("SiGe", numbers, doubled.lattice, doubled.frac_coords)) == 4


def test_space_groups_of_silicon_and_rock_salt_are_those_of_the_textbook(silicon, rock_salt):
    assert (space_group_number(silicon), space_group_number(rock_salt)) == (227, 225)


def test_space_group_is_that_of_pymatgen_in_any_cell(real):
    for crystal in real[:20]:
        expected = SpacegroupAnalyzer(crystal.to_structure(), symprec=SYMPREC).get_space_group_number()
        assert space_group_number(crystal) == expected, crystal.material_id
        if len(crystal) <= 4:
            assert space_group_number(supercell(crystal, np.diag([2, 1, 1]))) == expected, crystal.material_id


def test_crystal_without_a_symmetry_is_of_group_one(silicon):
    rng = np.random.default_rng(0)
    lattice = silicon.lattice + rng.uniform(-0.5, 0.5, (3, 3))
    assert space_group_number(Crystal("glass", np.array([14, 32, 6], np.uint8), lattice, rng.uniform(size=(3, 3)))) == 1


def test_standard_primitive_cell_undoes_rounding_and_larger_cells(silicon):
    larger = supercell(silicon, np.diag([2, 1, 3]))
    rounded = replace(larger, lattice=larger.lattice.round(3), frac_coords=larger.frac_coords.round(4))
    standard = standard_primitive(rounded)
    assert len(standard) == 2
    assert standard.volume == pytest.approx(silicon.volume, rel=1e-3)
    assert np.ptp(np.linalg.norm(standard.lattice, axis=1)) < 1e-9, "as symmetric as the crystal is"
    assert space_group_number(standard) == 227


def test_crystal_without_a_standard_cell_is_returned_unchanged():
    near = Crystal("near", np.array([1, 1], np.uint8), 4 * np.eye(3), np.array([[0.0, 0, 0], [1e-4, 0, 0]]))
    assert standard_primitive(near) is near
