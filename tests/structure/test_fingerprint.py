"""A fingerprint belongs to the crystal, not to the way it is written down, and tells polymorphs apart."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure
from scipy.spatial.transform import Rotation

from mat2spec.data.materials.schema import COLUMNS, read_crystals
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.fingerprint import same_structure, structure_fingerprint

ROUNDING = 3e-3
"""Half precision keeps 11 bits of numbers up to 4."""


def changed(crystal: Crystal, how: str) -> Crystal:
    """The same crystal in another cell."""
    structure = crystal.to_structure()
    match how:
        case "supercell":
            structure.make_supercell([[2, 0, 0], [1, 1, 0], [0, 0, 2]])
        case "other origin":
            structure.translate_sites(range(len(structure)), [0.13, 0.27, 0.41])
        case "Niggli cell":
            structure = structure.get_reduced_structure("niggli")
        case "conventional cell":
            structure = structure.to_conventional()
        case "rotated":
            turn = Rotation.random(rng=1).as_matrix()
            structure = Structure(structure.lattice.matrix @ turn, structure.species, structure.frac_coords)
        case "other order of sites":
            structure = Structure.from_sites(list(structure)[::-1])
    return Crystal.from_structure(structure, "another name")


def alike(first: Crystal, second: Crystal) -> bool:
    return bool(same_structure(structure_fingerprint(first), np.float32(structure_fingerprint(second))[None])[0])


@pytest.mark.parametrize(
    "how", ["supercell", "other origin", "Niggli cell", "conventional cell", "rotated", "other order of sites"]
)
def test_fingerprint_is_that_of_the_crystal_in_any_cell(real_crystals, how):
    for crystal in real_crystals:
        expected, fingerprint = structure_fingerprint(crystal), structure_fingerprint(changed(crystal, how))
        np.testing.assert_allclose(fingerprint, expected, atol=ROUNDING, err_msg=crystal.formula)


def test_small_displacements_of_atoms_change_a_fingerprint_little(real_crystals):
    random = np.random.default_rng(0)
    for crystal in real_crystals:
        structure = crystal.to_structure()
        for site in range(len(structure)):
            structure.translate_sites(site, random.normal(0, 0.02, 3), frac_coords=False)
        assert alike(crystal, Crystal.from_structure(structure)), crystal.formula


def cubic(species: list[str], coords: list[list[float]], edge: float) -> Crystal:
    return Crystal.from_structure(Structure(Lattice.cubic(edge), species, coords))


def spacegroup(number: int, lattice: Lattice, species: list[str], coords: list[list[float]]) -> Crystal:
    return Crystal.from_structure(Structure.from_spacegroup(number, lattice, species, coords))


POLYMORPHS = {
    "zinc blende, wurtzite": (
        spacegroup(216, Lattice.cubic(5.41), ["Zn", "S"], [[0, 0, 0], [0.25, 0.25, 0.25]]),
        spacegroup(186, Lattice.hexagonal(3.82, 6.26), ["Zn", "S"], [[1 / 3, 2 / 3, 0], [1 / 3, 2 / 3, 0.375]]),
    ),
    "zinc blende, rock salt, of one volume": (
        spacegroup(216, Lattice.cubic(5.4), ["Zn", "S"], [[0, 0, 0], [0.25, 0.25, 0.25]]),
        spacegroup(225, Lattice.cubic(5.4), ["Zn", "S"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
    ),
    "fcc, hcp": (
        spacegroup(225, Lattice.cubic(3.52), ["Ni"], [[0, 0, 0]]),
        spacegroup(194, Lattice.hexagonal(2.489, 4.064), ["Ni"], [[1 / 3, 2 / 3, 0.25]]),
    ),
    "rutile, anatase": (
        spacegroup(136, Lattice.tetragonal(4.59, 2.96), ["Ti", "O"], [[0, 0, 0], [0.305, 0.305, 0]]),
        spacegroup(141, Lattice.tetragonal(3.78, 9.51), ["Ti", "O"], [[0, 0, 0], [0, 0, 0.208]]),
    ),
    "CsCl and NaTl orders of one lattice": (
        cubic(["Na", "Tl"], [[0, 0, 0], [0.5, 0.5, 0.5]], 3.75),
        spacegroup(227, Lattice.cubic(7.5), ["Na", "Tl"], [[0.125, 0.125, 0.125], [0.625, 0.625, 0.625]]),
    ),
    "diamond, graphite": (
        spacegroup(227, Lattice.cubic(3.57), ["C"], [[0.125, 0.125, 0.125]]),
        spacegroup(194, Lattice.hexagonal(2.46, 6.71), ["C", "C"], [[0, 0, 0.25], [1 / 3, 2 / 3, 0.25]]),
    ),
}


@pytest.mark.parametrize("pair", POLYMORPHS.values(), ids=POLYMORPHS)
def test_polymorphs_are_different(pair):
    first, second = pair
    assert first.composition == second.composition
    assert not StructureMatcher().fit(first.to_structure(), second.to_structure())
    assert not alike(first, second)


def test_the_same_material_relaxed_with_pbesol_and_with_pbe_is_the_same_for_us_and_for_structure_matcher(bundled):
    """Pairs of one composition: `benchmarks/seen.py` measures all of them."""
    ids = ["mp-149", "mp-1265", "mp-2657", "mp-390", "mp-1143", "mp-7000", "mp-6930", "mp-804", "mp-830", "mp-2133"]
    ids += [
        "mp-10695",
        "mp-560588",
        "mp-66",
        "mp-48",
        "mp-1986",
        "mp-2172",
        "mp-661",
        "mp-1700",
        "mp-22862",
        "mp-23193",
    ]
    pbesol, pbe = (
        {
            row.material_id: row
            for row in read_crystals(pq.read_table(file, columns=[*COLUMNS], filters=[("material_id", "in", ids)]))
            if isinstance(row, Crystal)
        }
        for file in (bundled, bundled.with_name("mp_structures.parquet"))
    )
    pairs = [(a, b) for a in pbesol.values() for b in pbe.values() if a.composition == b.composition]
    expected = [StructureMatcher().fit(a.to_structure(), b.to_structure()) for a, b in pairs]
    assert sum(expected) >= 5 <= len(expected) - sum(expected), "of both kinds"
    assert [alike(a, b) for a, b in pairs] == expected
    assert max(abs(np.log(a.volume / len(a) / b.volume * len(b))) for a, b in pairs) > 0.03, "cells differ"
