import numpy as np
import pytest
from pymatgen.core import Composition, Lattice, Structure
from pymatgen.io.cif import CifWriter

from mat2spec.errors import StructureError
from mat2spec.structure.crystal import Crystal, disordered_site
from mat2spec.structure.readers import disorder
from mat2spec.structure.readers.cif import read_cif
from mat2spec.structure.readers.disorder import parse_structure


def rock_salt(cation, anion) -> Structure:
    return Structure.from_spacegroup("Fm-3m", Lattice.cubic(4.3), [cation, anion], [[0, 0, 0], [0.5, 0.5, 0.5]])


def refusal(structure: Structure, **options) -> str:
    error = parse_structure(structure, "it", **options).crystal
    assert isinstance(error, StructureError)
    assert str(error) == f"it: {error.rule}"
    assert "\n" not in error.rule
    return error.rule


MIXED = {"Mg": 0.5, "Ca": 0.5}


def test_an_ordered_structure_becomes_a_crystal_without_ordered_from():
    parsed = parse_structure(rock_salt("Mg", "O"), "it")
    assert (parsed.name, parsed.ordered_from) == ("", None)
    assert (parsed.crystal.material_id, parsed.crystal.formula) == ("it", "MgO")


def test_a_disordered_site_is_refused_with_its_occupancies_and_the_option():
    rule = refusal(rock_salt(MIXED, "O"))
    assert rule.startswith("site 0 ")
    for fact in ("disordered", "Ca:0.5, Mg:0.5", "--reading.disorder ordered"):
        assert fact in rule
    assert disordered_site(rock_salt("Mg", "O")) == ""


def test_the_ordering_has_whole_atoms_in_the_declared_ratio_and_the_disordered_formula():
    parsed = parse_structure(rock_salt(MIXED, "O"), "it", disorder="ordered")
    assert isinstance(parsed.crystal, Crystal)
    assert Composition(parsed.crystal.formula) == Composition("CaMgO2")
    assert len(parsed.crystal) == 8
    assert parsed.ordered_from == "(Ca0.5Mg0.5)O"


def test_the_cell_is_repeated_only_as_far_as_whole_atoms_need():
    primitive = rock_salt(MIXED, "O").get_primitive_structure()
    assert len(primitive) == 2
    assert len(parse_structure(primitive, "it", disorder="ordered").crystal) == 4
    thirds = Structure(Lattice.cubic(4.3), [{"Mg": 0.33, "Ca": 0.67}, "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    ordered = parse_structure(thirds, "it", disorder="ordered").crystal
    assert Composition(ordered.formula) == Composition("Ca2MgO3")
    assert len(ordered) == 6


def test_ions_of_different_charge_are_spread_by_electrostatics():
    """Li and Al on a line of four sites: alternating is the lowest in energy."""
    coords = [[0, 0, z / 4] for z in range(4)] + [[0.5, 0.5, z / 4] for z in range(4)]
    chain = Structure(Lattice.orthorhombic(3.6, 3.6, 10), [{"Li": 0.5, "Al": 0.5}] * 4 + ["O"] * 4, coords)
    ordered = parse_structure(chain, "it", disorder="ordered").crystal
    lithium = np.sort(np.mod(ordered.frac_coords[ordered.atomic_numbers == 3][:, 2], 1))
    np.testing.assert_allclose(np.diff(lithium), 0.5, atol=1e-6)


def test_vacancies_are_ordered_too():
    vacant = Structure(
        Lattice.cubic(4.2), ["Ti", {"O": 0.5}, {"O": 0.5}, "O"], [[0, 0, 0], [0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5]]
    )
    parsed = parse_structure(vacant, "it", disorder="ordered")
    assert (parsed.crystal.formula, len(parsed.crystal)) == ("TiO2", 3)


def test_an_alloy_has_no_most_likely_ordering():
    alloy = Structure(Lattice.cubic(2.9), [{"Fe": 0.5, "Ni": 0.5}], [[0, 0, 0]])
    rule = refusal(alloy, disorder="ordered")
    assert "oxidation states" in rule
    assert "FeNi" in rule


def test_an_occupancy_that_needs_too_large_a_supercell_is_refused_with_the_numbers():
    rule = refusal(
        Structure(Lattice.cubic(4.2), [{"Mg": 0.99, "Ca": 0.01}, "O"], [[0, 0, 0], [0.5, 0.5, 0.5]]), disorder="ordered"
    )
    assert f"more than {disorder.MAX_ORDERED_SITES} sites" in rule
    assert "2" in rule.partition("sites")[2]


def test_too_many_orderings_are_refused_with_the_numbers():
    large = rock_salt(MIXED, "O") * (2, 2, 2)
    rule = refusal(large, disorder="ordered")
    for fact in ("64 sites", "6.01e+08 orderings", "20,000"):
        assert fact in rule


@pytest.mark.parametrize("symbol", ["D", "T"])
def test_isotopes_are_refused_ordered_or_not(symbol):
    heavy = Structure(Lattice.cubic(4), ["Li", symbol], [[0, 0, 0], [0.5, 0.5, 0.5]])
    assert f"site 1 is {symbol}" in refusal(heavy)
    assert "replace it by H" in refusal(heavy, disorder="ordered")


def test_a_structure_too_large_is_refused_with_both_numbers():
    rule = refusal(rock_salt("Mg", "O"), largest_cell=7)
    for fact in ("8 sites", "7", "largest_cell"):
        assert fact in rule


def test_a_disordered_cif_names_its_site_or_is_ordered():
    text = str(CifWriter(rock_salt(MIXED, "O")))
    [refused] = read_cif(text, "it")
    assert "is disordered" in refused.crystal.rule
    assert "Ca:0.5" in refused.crystal.rule
    [ordered] = read_cif(text, "it", disorder="ordered")
    assert ordered.ordered_from == "(Ca0.5Mg0.5)O"
    assert len(ordered.crystal) == 8


def test_a_partly_occupied_site_of_a_cif_is_named():
    vacant = Structure(Lattice.cubic(4.2), [{"Mg": 0.9}, "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    [refused] = read_cif(str(CifWriter(vacant)), "it")
    assert "is disordered (Mg:0.9" in refused.crystal.rule
