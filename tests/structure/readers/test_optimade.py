import numpy as np
import pytest

from mat2spec.errors import StructureError
from mat2spec.structure.readers.disorder import parse_structure
from mat2spec.structure.readers.optimade import structure_of_entry


def species(name: str, *symbols: str, **more) -> dict:
    symbols = symbols or (name,)
    return {"name": name, "chemical_symbols": list(symbols), "concentration": [1 / len(symbols)] * len(symbols)} | more


def entry(first: dict, second: dict, **more) -> dict:
    """Attributes of a rock salt of two species."""
    return {
        "lattice_vectors": [[0, 2.82, 2.82], [2.82, 0, 2.82], [2.82, 2.82, 0]],
        "cartesian_site_positions": [[0, 0, 0], [2.82, 2.82, 2.82]],
        "species_at_sites": [first["name"], second["name"]],
        "species": [first, second],
        "nsites": 2,
        "dimension_types": [1, 1, 1],
        "structure_features": [],
    } | more


SALT = entry(species("Na"), species("Cl"), elements=["Cl", "Na"], chemical_formula_reduced="ClNa")


def refusal(attributes: dict) -> str:
    with pytest.raises(StructureError) as error:
        structure_of_entry(attributes)
    assert "\n" not in error.value.rule
    return error.value.rule


def test_an_entry_is_the_crystal_of_its_sites():
    structure = structure_of_entry(SALT)
    assert structure.formula == "Na1 Cl1"
    np.testing.assert_allclose(structure.frac_coords, [[0, 0, 0], [0.5, 0.5, 0.5]], atol=1e-12)


def test_the_element_is_the_chemical_symbol_and_not_the_name():
    assert structure_of_entry(entry(species("C", "Cr"), species("O"))).formula == "Cr1 O1"


def test_a_site_with_a_vacancy_is_disordered():
    vacant = species("Na", "Na", "vacancy", concentration=[0.9, 0.1])
    parsed = parse_structure(structure_of_entry(entry(vacant, species("Cl"), structure_features=["disorder"])), "it")
    assert "site 0 is disordered (Na:0.9" in parsed.crystal.rule


def test_concentrations_rounded_to_one_are_a_whole_atom():
    rounded = entry(species("Na", "Na", concentration=[0.9999]), species("Cl", "Cl", concentration=[1.000001]))
    assert structure_of_entry(rounded).is_ordered


def test_a_site_of_nothing_but_vacancies_is_empty():
    assert structure_of_entry(entry(species("Na"), species("v", "vacancy"))).formula == "Na1"
    assert "all 2 sites are vacant" in refusal(entry(species("v", "vacancy"), species("w", "vacancy")))


UNREPRESENTABLE = {
    "attached": (entry(species("C", attached=["H"], nattached=[3]), species("Cl")), "'C' has 3 H attached"),
    "site_attachments": (SALT | {"structure_features": ["site_attachments"]}, "'site_attachments'"),
    "implicit atoms": (SALT | {"structure_features": ["implicit_atoms"]}, "'implicit_atoms'"),
    "assemblies": (
        SALT | {"assemblies": [{"sites_in_groups": [[0], [1]], "group_probabilities": [0.5, 0.5]}]},
        "exclude each other",
    ),
    "assemblies as feature": (SALT | {"structure_features": ["disorder", "assemblies"]}, "'assemblies'"),
    "unknown element": (entry(species("X"), species("Cl")), "unknown element"),
    "surface": (SALT | {"dimension_types": [1, 1, 0]}, "dimension_types is [1, 1, 0]"),
    "element without a site": (SALT | {"elements": ["Cl", "H", "Na"]}, "declared are Cl, H, Na"),
    "another formula": (SALT | {"chemical_formula_reduced": "ClNa2"}, "chemical_formula_reduced is ClNa2"),
    "unnamed species": (SALT | {"species_at_sites": ["Na", "Br"]}, "no species is named 'Br'"),
    "names only": (SALT | {"species": None, "elements": None}, "request the field species"),
    "missing site": (SALT | {"nsites": 3}, "nsites is 3"),
}


@pytest.mark.parametrize("which", UNREPRESENTABLE)
def test_what_sites_of_whole_atoms_cannot_represent_is_refused(which):
    attributes, rule = UNREPRESENTABLE[which]
    assert rule in refusal(attributes)


def test_names_of_sites_are_elements_where_the_entry_says_so():
    assert structure_of_entry(SALT | {"species": None}).formula == "Na1 Cl1"


def test_heavy_hydrogen_is_deuterium():
    heavy = entry(species("Li"), species("H", mass=[2.014]))
    assert "site 1 is D (deuterium)" in parse_structure(structure_of_entry(heavy), "it").crystal.rule
    light = entry(species("Li"), species("H", mass=[1.008]))
    assert parse_structure(structure_of_entry(light), "it").crystal.formula == "LiH"


@pytest.mark.parametrize("formula", ["N", "N2"])
def test_a_reduced_formula_of_a_molecule_of_one_element_agrees_with_the_element(formula):
    """The specification says N; pymatgen, and databases that it fills, say N2."""
    nitrogen = entry(species("N"), species("N"), species=[species("N")], chemical_formula_reduced=formula)
    assert structure_of_entry(nitrogen).formula == "N2"
