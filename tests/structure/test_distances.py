import numpy as np
import pytest

from mat2spec.elements import symbols
from mat2spec.errors import StructureError
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.distances import LARGEST_FLOOR, check_distances, distance_floors

BONDS = {
    "H H": 0.741,
    "N N": 1.098,
    "O O": 1.208,
    "C O": 1.128,
    "C C": 1.203,
    "C N": 1.153,
    "N O": 1.151,
    "F F": 1.412,
    "H F": 0.917,
    "O H": 0.8,
    "C H": 0.9,
    "P N": 1.491,
    "C S": 1.535,
    "Si O": 1.510,
    "V O": 1.57,
    "Os O": 1.711,
    "U O": 1.75,
    "Li F": 1.564,
    "Be O": 1.331,
    "Cr N": 1.54,
    "Cs Cl": 2.906,
}
"""[Å] The shortest bonds of these elements: of diatomic molecules, oxo and nitrido ligands, and water by X-rays."""


def pair(first: str, second: str, distance: float) -> Crystal:
    numbers = np.array([symbols().index(first), symbols().index(second)], np.uint8)
    return Crystal("pair", numbers, 12 * np.eye(3), np.array([[0, 0, 0.99], [0, 0, 0.99 + distance / 12]]))


@pytest.mark.parametrize("elements", BONDS)
def test_the_shortest_known_bonds_are_accepted(elements):
    check_distances(pair(*elements.split(), BONDS[elements]))


@pytest.mark.parametrize(
    ("first", "second", "distance"), [("O", "O", 0.55), ("H", "H", 0.5), ("Na", "Cl", 1.2), ("Sr", "Sr", 1.5)]
)
def test_atoms_closer_than_their_elements_allow_are_refused_with_both_distances(first, second, distance):
    with pytest.raises(StructureError, match=rf"pair: sites 0 \({first}\) and 1 .* {distance:.3f} Å .* closer than"):
        check_distances(pair(first, second, distance))


def test_an_atom_too_close_to_its_own_image_is_refused():
    with pytest.raises(StructureError, match=r"sites 0 \(Sr\) and 0 \(Sr\) are 1\.500 Å apart"):
        check_distances(Crystal("thin", np.array([38], np.uint8), np.diag([6, 6, 1.5]), np.zeros((1, 3))))


def test_every_floor_is_within_the_radius_of_the_search():
    floors = distance_floors()
    assert floors.max() == pytest.approx(LARGEST_FLOOR)
    np.testing.assert_array_equal(floors, floors.T)
