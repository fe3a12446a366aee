"""elements.csv against pymatgen, and the features made of it. Also documents where each column comes from."""

import csv
import warnings
from pathlib import Path

import numpy as np
import pytest
from pymatgen.analysis.molecule_structure_comparator import CovalentRadius
from pymatgen.core import Element

import mat2spec
from mat2spec.elements import MAX_ATOMIC_NUMBER, atomic_masses, feature_table, symbols

PROPERTIES = {
    "group": "group",
    "row": "row",
    "block": "block",
    "electronegativity": "X",
    "ionization_energy": "ionization_energy",
    "electron_affinity": "electron_affinity",
    "molar_volume": "molar_volume",
    "atomic_mass": "atomic_mass",
}
"""Columns of elements.csv and the attributes of pymatgen's Element; covalent radii are in another table of pymatgen."""

BLOCKS = {
    "group": 18,
    "row": 7,
    "X": 11,
    "radius": 10,
    "valence": 12,
    "ionization": 10,
    "affinity": 10,
    "block": 4,
    "volume": 10,
}
"""Number of columns of each property, in order; one column of X marks an unknown value."""


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    with (Path(mat2spec.__file__).parent / "elements.csv").open() as lines:
        return list(csv.DictReader(lines))


def columns(name: str) -> np.ndarray:
    """One-hot columns of a property, by atomic number."""
    start = sum(list(BLOCKS.values())[: list(BLOCKS).index(name)])
    return feature_table()[:, start : start + BLOCKS[name]]


def known_to_pymatgen(element: Element, name: str) -> object:
    """Property of an element in pymatgen; None if unknown, where pymatgen warns and returns NaN."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = getattr(element, name)
    return None if value is None or value != value else value


@pytest.mark.parametrize(("column", "name"), PROPERTIES.items())
def test_table_is_that_of_pymatgen(rows, column, name):
    for row in rows:
        expected = known_to_pymatgen(Element(row["symbol"]), name)
        if isinstance(expected, str) or not row[column]:
            assert (row[column] or None) == expected, f"{column} of {row['symbol']}"
        else:
            assert expected is not None, f"pymatgen has no {column} of {row['symbol']}"
            assert float(row[column]) == pytest.approx(float(expected), abs=6e-5), (
                f"{column} of {row['symbol']}"
            )  # four decimals


def test_covalent_radii_are_those_of_pymatgen(rows):
    for row in rows:
        expected = CovalentRadius.radius.get(row["symbol"])
        assert (float(row["covalent_radius"]) if row["covalent_radius"] else None) == expected, row["symbol"]


def test_table_lists_hydrogen_to_fermium_in_order(rows):
    assert [int(row["atomic_number"]) for row in rows] == list(range(1, MAX_ATOMIC_NUMBER + 1))
    assert symbols() == ("", *(Element.from_Z(z).symbol for z in range(1, MAX_ATOMIC_NUMBER + 1)))


def test_each_element_has_92_features_of_zero_or_one():
    table = feature_table()
    assert table.shape == (101, 92)
    assert set(np.unique(table)) == {0.0, 1.0}
    assert not table[0].any(), "row 0 belongs to no element"


@pytest.mark.parametrize("name", BLOCKS)
def test_each_property_sets_at_most_one_column(name):
    assert columns(name).sum(axis=1).max() == 1


@pytest.mark.parametrize("name", ["group", "row", "valence", "block"])
def test_position_in_the_periodic_table_is_known_for_every_element(name):
    assert columns(name)[1:].sum(axis=1).min() == 1


def test_nearly_all_elements_have_different_features():
    table = feature_table()[1:93]
    assert len(np.unique(table, axis=0)) > 85, "most elements must have features of their own"


@pytest.mark.parametrize(
    ("symbol", "electrons"), [("H", 1), ("He", 2), ("C", 4), ("O", 6), ("Ar", 8), ("Fe", 8), ("Zn", 12), ("Ce", 4)]
)
def test_valence_electrons(symbol, electrons):
    assert columns("valence")[Element(symbol).Z].argmax() + 1 == electrons


def test_masses_are_those_of_pymatgen_by_atomic_number():
    masses = atomic_masses()
    assert masses.shape == (MAX_ATOMIC_NUMBER + 1,)
    assert masses[0] == 1, "no element"
    for number in range(1, MAX_ATOMIC_NUMBER + 1):
        expected = float(Element.from_Z(number).atomic_mass)
        assert masses[number] == pytest.approx(expected, abs=1e-4), number  # four decimals, in single precision
