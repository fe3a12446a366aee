import pickle

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from mat2spec.errors import StructureError
from mat2spec.structure.crystal import Crystal

CUBE = 4.0 * np.eye(3)
ORIGIN = np.zeros((1, 3))


def crystal(numbers=(14,), lattice=CUBE, coords=ORIGIN) -> Crystal:
    return Crystal(
        "mp-1", np.array(numbers, np.uint8), np.array(lattice, float), np.array(coords, float).reshape(-1, 3)
    )


def refused(message: str, **parts) -> None:
    """A crystal of these parts is refused by name, with the number, in one line."""
    with pytest.raises(StructureError, match=message) as caught:
        crystal(**parts)
    assert str(caught.value).startswith("mp-1: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("number", [0, 101, 255])
def test_unknown_element_is_refused(number):
    refused(f"unknown element with atomic number {number}", numbers=[14, number], coords=[[0, 0, 0], [0.5, 0.5, 0.5]])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_coordinate_that_is_not_finite_is_refused(value):
    refused("site 1 has a coordinate that is not finite", numbers=[14, 14], coords=[[0, 0, 0], [0.5, value, 0.5]])


def test_lattice_that_is_not_finite_is_refused():
    refused("lattice holds a number that is not finite", lattice=np.diag([4, 4, np.nan]))


@pytest.mark.parametrize(
    "lattice", [np.zeros((3, 3)), [[1, 2, 3], [2, 4, 6], [0, 0, 5]], [[4, 0, 0], [0, 4, 0], [4, 4, 0]]]
)
def test_lattice_without_volume_is_refused(lattice):
    refused("0 Å³ per atom", lattice=lattice)


def test_atom_alone_in_a_huge_box_is_refused():
    refused(r"1\.06e\+04 Å³ per atom", lattice=22 * np.eye(3))


def test_lattice_beyond_any_number_is_refused():
    refused("Å³ per atom", lattice=1e200 * np.eye(3))


def test_crystal_without_sites_is_refused():
    refused("no sites", numbers=[], coords=[])


def test_left_handed_lattice_has_a_positive_volume():
    assert crystal(lattice=[[0, 4, 0], [4, 0, 0], [0, 0, 4]]).volume == pytest.approx(64)


def test_error_survives_pickling():
    """Ray sends it from process to process."""
    error = pickle.loads(pickle.dumps(StructureError("mp-1", "no sites")))
    assert (error.material_id, error.rule, str(error)) == ("mp-1", "no sites", "mp-1: no sites")


def test_pymatgen_structure_becomes_the_same_crystal(rock_salt):
    structure = Structure(rock_salt.lattice, ["Na+", "Cl-"], rock_salt.frac_coords)
    made = Crystal.from_structure(structure, "rock salt")
    assert made.elements == ["Cl", "Na"]
    assert made.volume == pytest.approx(structure.volume)
    for name in ("atomic_numbers", "lattice", "frac_coords"):
        np.testing.assert_array_equal(getattr(made, name), getattr(rock_salt, name))


@pytest.mark.parametrize("species", [{"Na": 0.5, "K": 0.5}, {"Na": 0.9}])
def test_disordered_site_is_refused(species):
    structure = Structure(Lattice.cubic(3.5), ["Cl", species], [[0, 0, 0], [0.5, 0.5, 0.5]])
    with pytest.raises(StructureError, match="alloy: site 1 is disordered"):
        Crystal.from_structure(structure, "alloy")


@pytest.mark.parametrize("symbol", ["Md", "Og"])
def test_element_heavier_than_fermium_in_a_pymatgen_structure_is_refused(symbol):
    with pytest.raises(StructureError, match=f"site 0 is {symbol}, an unknown element"):
        Crystal.from_structure(Structure(Lattice.cubic(3.5), [symbol], ORIGIN), "heavy")


def test_site_without_an_element_in_a_pymatgen_structure_is_refused():
    with pytest.raises(StructureError, match="dummy: "):
        Crystal.from_structure(Structure(Lattice.cubic(3.5), ["Xx"], ORIGIN), "dummy")
