import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure
from pymatgen.io.ase import AseAtomsAdaptor

from mat2spec.errors import StructureError
from mat2spec.structure.crystal import Crystal

CUBE = 4.0 * np.eye(3)
ORIGIN = np.zeros((1, 3))


def crystal(numbers=(14,), lattice=CUBE, coords=ORIGIN) -> Crystal:
    return Crystal(
        "mp-1", np.array(numbers, np.uint8), np.array(lattice, float), np.array(coords, float).reshape(-1, 3)
    )


def assert_refused(message: str, **parts) -> None:
    """A crystal of these parts is refused by name, with the number, in one line."""
    with pytest.raises(StructureError, match=message) as caught:
        crystal(**parts)
    assert str(caught.value).startswith("mp-1: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("number", [0, 101, 255])
def test_unknown_element_is_refused(number):
    assert_refused(
        f"unknown element with atomic number {number}", numbers=[14, number], coords=[[0, 0, 0], [0.5, 0.5, 0.5]]
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_coordinate_that_is_not_finite_is_refused(value):
    assert_refused(
        "site 1 has a coordinate that is not finite", numbers=[14, 14], coords=[[0, 0, 0], [0.5, value, 0.5]]
    )


def test_lattice_that_is_not_finite_is_refused():
    assert_refused("lattice holds a number that is not finite", lattice=np.diag([4, 4, np.nan]))


@pytest.mark.parametrize(
    "lattice", [np.zeros((3, 3)), [[1, 2, 3], [2, 4, 6], [0, 0, 5]], [[4, 0, 0], [0, 4, 0], [4, 4, 0]]]
)
def test_lattice_without_volume_is_refused(lattice):
    assert_refused("0 Å³ per atom", lattice=lattice)


def test_atom_alone_in_a_huge_box_is_refused():
    assert_refused(r"1\.06e\+04 Å³ per atom", lattice=22 * np.eye(3))


def test_lattice_beyond_any_number_is_refused():
    assert_refused("Å³ per atom", lattice=1e200 * np.eye(3))


def test_crystal_without_sites_is_refused():
    assert_refused("no sites", numbers=[], coords=[])


def test_left_handed_lattice_has_a_positive_volume():
    assert crystal(lattice=[[0, 4, 0], [4, 0, 0], [0, 0, 4]]).volume == pytest.approx(64)


def test_error_survives_pickling():
    """Ray sends it from process to process."""
    error = pickle.loads(pickle.dumps(StructureError("mp-1", "no sites")))
    assert (error.material_id, error.rule, str(error)) == ("mp-1", "no sites", "mp-1: no sites")


def assert_equal(crystal: Crystal, expected: Crystal, rtol: float = 0.0) -> None:
    assert crystal.material_id == expected.material_id
    np.testing.assert_array_equal(crystal.atomic_numbers, expected.atomic_numbers)
    np.testing.assert_allclose(crystal.lattice, expected.lattice, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(crystal.frac_coords, expected.frac_coords, rtol=rtol, atol=rtol)


ROUNDING = 1e-12
"""Relative and absolute: fractional coordinates from Cartesian ones, in double precision."""

any_crystal = st.integers(0, 399)
some_sites = st.lists(st.floats(-2, 2), min_size=3, max_size=60).map(
    lambda numbers: np.array(numbers[: len(numbers) // 3 * 3]).reshape(-1, 3)
)


@pytest.fixture(scope="module")
def real(materials) -> list[Crystal]:
    """400 crystals of 1 to 20 sites."""
    return [Crystal.from_row(row) for row in materials.to_pylist()]


@given(which=any_crystal, sites=some_sites)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_structures_atoms_and_rows_convert_back_to_the_same_crystal(real, which, sites):
    """Also with coordinates outside the cell, and without changing the hash."""
    moved = np.resize(sites, (len(real[which]), 3))
    crystal = replace(real[which], frac_coords=real[which].frac_coords + moved)
    name = crystal.material_id
    assert_equal(Crystal.from_structure(crystal.to_structure(), name), crystal)
    assert_equal(Crystal.from_atoms(crystal.to_atoms(), name), crystal, ROUNDING)
    for row in (crystal.to_row(), json.loads(json.dumps(crystal.to_row()))):
        assert_equal(Crystal.from_row(row), crystal)
        assert row["content_hash"] == crystal.content_hash == Crystal.from_row(row).content_hash


@given(which=any_crystal)
def test_structure_and_atoms_are_those_of_pymatgen_s_own_conversion(real, which):
    crystal = real[which]
    structure = crystal.to_structure()
    by_pymatgen = AseAtomsAdaptor.get_structure(crystal.to_atoms())
    assert structure.reduced_formula == by_pymatgen.reduced_formula == crystal.formula
    assert StructureMatcher(primitive_cell=False, scale=False).fit(structure, by_pymatgen)
    assert Crystal.from_structure(by_pymatgen, crystal.material_id).content_hash == crystal.content_hash
    assert Crystal.from_atoms(AseAtomsAdaptor.get_atoms(structure)).content_hash == crystal.content_hash


def test_oxidation_states_are_dropped_and_the_formula_is_the_default_id(rock_salt):
    structure = Structure(rock_salt.lattice, ["Na+", "Cl-"], rock_salt.frac_coords)
    crystal = Crystal.from_structure(structure)
    assert_equal(crystal, replace(rock_salt, material_id="NaCl"))
    assert crystal.to_structure() == Structure(rock_salt.lattice, ["Na", "Cl"], rock_salt.frac_coords)
    assert Crystal.from_atoms(rock_salt.to_atoms()).material_id == "NaCl"


@pytest.mark.parametrize("species", [{"Na": 0.5, "K": 0.5}, {"Na": 0.9}])
def test_disordered_site_is_refused_by_number_with_its_occupancies(species):
    structure = Structure(Lattice.cubic(3.5), ["Cl", species], [[0, 0, 0], [0.5, 0.5, 0.5]])
    with pytest.raises(StructureError, match="alloy: site 1 ") as caught:
        Crystal.from_structure(structure, "alloy")
    for element, occupancy in species.items():
        assert f"{element}:{occupancy}" in str(caught.value)


@pytest.mark.parametrize("symbol", ["D", "T"])
def test_isotope_is_refused_rather_than_taken_as_hydrogen(symbol):
    structure = Structure(Lattice.cubic(4), ["Li", symbol], [[0, 0, 0], [0.5, 0.5, 0.5]])
    with pytest.raises(StructureError, match=f"heavy: site 1 is {symbol} "):
        Crystal.from_structure(structure, "heavy")


@pytest.mark.parametrize("pbc", [False, (True, True, False)])
def test_atoms_that_are_not_periodic_are_refused(silicon, pbc):
    atoms = silicon.to_atoms()
    atoms.pbc = pbc
    with pytest.raises(StructureError, match=r"slab: .*periodic"):
        Crystal.from_atoms(atoms, "slab")
    with pytest.raises(StructureError, match=r"H2: .*periodic"):
        Crystal.from_atoms(Atoms("H2", [[0, 0, 0], [0, 0, 0.74]]), "H2")


def test_atoms_without_an_element_are_refused():
    with pytest.raises(StructureError, match=r"dummy: .* 0;"):
        Crystal.from_atoms(Atoms("X", cell=3 * np.eye(3), pbc=True), "dummy")


@pytest.mark.parametrize("symbol", ["Md", "Og"])
def test_element_heavier_than_fermium_in_a_pymatgen_structure_is_refused(symbol):
    with pytest.raises(StructureError, match=f"site 0 is {symbol}, an unknown element"):
        Crystal.from_structure(Structure(Lattice.cubic(3.5), [symbol], ORIGIN), "heavy")


def test_site_without_an_element_in_a_pymatgen_structure_is_refused():
    with pytest.raises(StructureError, match="dummy: "):
        Crystal.from_structure(Structure(Lattice.cubic(3.5), ["Xx"], ORIGIN), "dummy")


@pytest.mark.parametrize(("pbc", "axes"), [((True, True, False), "a, b"), ((False, False, False), "no vector")])
def test_a_pymatgen_structure_that_is_not_periodic_is_refused(rock_salt, pbc, axes):
    structure = rock_salt.to_structure()
    layer = Structure(Lattice(structure.lattice.matrix, pbc=pbc), structure.species, structure.frac_coords)
    with pytest.raises(StructureError, match=f"^layer: it is periodic along {axes} only"):
        Crystal.from_structure(layer, "layer")


@pytest.mark.parametrize("species", [{"Na": 0.5, "K": 0.5}, {"Na": 0.5}])
def test_partial_occupancies_that_ase_keeps_beside_the_atoms_are_refused(rock_salt, species):
    atoms = rock_salt.to_atoms()
    atoms.info["occupancy"] = {"0": species, "1": {"Cl": 1.0}}
    with pytest.raises(StructureError, match=r"^salt: a site of kind 0 is disordered \(Na:0\.5"):
        Crystal.from_atoms(atoms, "salt")
    atoms.info["occupancy"] = {"0": {"Na": 0.9999}, "1": {"Cl": 1}}
    assert len(Crystal.from_atoms(atoms, "salt")) == len(rock_salt)
