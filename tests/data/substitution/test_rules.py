"""Ionic substitution: charges stay balanced, volumes fit, likely ions come first, and what is the same is there once."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from pymatgen.core import Composition, Lattice, Species, Structure
from pymatgen.core.structure_matcher import StructureMatcher
from pymatgen.core.structure_prediction.substitution_probability import SubstitutionPredictor, SubstitutionProbability

from mat2spec.config import read_options, validate
from mat2spec.config.substitution import SubstituteConfig
from mat2spec.data.materials.schema import read_crystals
from mat2spec.data.materials.shards import ShardRows
from mat2spec.data.substitution.candidates import candidate_table, remove_duplicates, substitute_rows
from mat2spec.data.substitution.rules import Candidate, Substituter
from mat2spec.elements import symbols
from mat2spec.errors import ConfigError, StructureError
from mat2spec.structure.crystal import Crystal

KCL = 6.29
"""[Å] Edge of the cubic cell of KCl, as measured."""

VOLUME_TOLERANCE = 0.15

FCC = np.array([[0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]])


def substituter(*elements: str, threshold: float = 1e-3, scaling: float = 2.5, formula: int = 30) -> Substituter:
    return Substituter(elements, threshold, scaling, formula)


def structure_of(crystal: Crystal) -> Structure:
    return Structure(crystal.lattice, [symbols()[z] for z in crystal.atomic_numbers], crystal.frac_coords)


def made_of(parents: Sequence[Crystal], by: Substituter) -> list[Candidate]:
    found = []
    for parent in parents:
        try:
            found += by.candidates(parent)
        except StructureError:
            continue
    return found


@pytest.fixture(scope="module")
def parents(materials: pa.Table) -> list[Crystal]:
    """400 real structures."""
    return [row for row in read_crystals(materials) if isinstance(row, Crystal)]


@pytest.fixture(scope="module")
def many(parents) -> list[Candidate]:
    return made_of(parents, substituter("Fe", "K", "La", "Mg", "Na", "S"))


def test_table_salt_with_potassium_is_sylvite(rock_salt):
    (made,) = substituter("K").candidates(rock_salt)
    assert made.crystal.formula == "KCl"
    assert made.crystal.material_id == "rock salt_Na-K"
    assert (made.parent_id, str(made.substitution)) == ("rock salt", "Na1+->K1+")
    real = Structure.from_spacegroup("Fm-3m", Lattice.cubic(KCL), ["K", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    assert StructureMatcher().fit(structure_of(made.crystal), real)
    assert made.crystal.volume == pytest.approx(KCL**3 / 4, rel=VOLUME_TOLERANCE)
    assert made.crystal.volume == pytest.approx(made.substitution.volume_ratio * rock_salt.volume)


def test_charges_of_every_candidate_balance(parents, many):
    """Charges of what stays are pymatgen's for the parent, that of what comes is read from the lineage."""
    by_id = {parent.material_id: parent for parent in parents}
    for made in many:
        counts = Composition(made.crystal.formula).get_el_amt_dict()
        parent = Composition(by_id[made.parent_id].formula).get_el_amt_dict()
        charges = Composition(parent).oxi_state_guesses(max_sites=-1)[0]
        old, new = (Species.from_str(ion) for ion in str(made.substitution).split("->"))
        assert old.oxi_state == charges[old.symbol]
        total = sum(counts[name] * (new.oxi_state if name == new.symbol else charges[name]) for name in counts)
        assert total == pytest.approx(0, abs=1e-9), made.crystal.material_id
    assert len(many) > 200


def test_candidate_has_the_sites_of_its_parent_and_the_new_element(parents, many):
    by_id = {parent.material_id: parent for parent in parents}
    for made in many:
        parent, rule = by_id[made.parent_id], made.substitution
        changed = made.crystal.atomic_numbers != parent.atomic_numbers
        assert {symbols()[z] for z in made.crystal.atomic_numbers[changed]} == {rule.new}
        assert {symbols()[z] for z in parent.atomic_numbers[changed]} == {rule.old}
        assert rule.new not in parent.elements, "an element that is there already would merge two kinds of site"
        np.testing.assert_array_equal(made.crystal.frac_coords, parent.frac_coords)


def test_probability_is_that_of_pymatgen(many):
    model = SubstitutionProbability()
    for made in many:
        old, new = (Species.from_str(ion) for ion in str(made.substitution).split("->"))
        assert made.substitution.probability == pytest.approx(model.cond_prob(new, old), rel=1e-8)


def test_what_replaces_sodium_is_what_the_predictor_of_pymatgen_finds(rock_salt):
    """The predictor has the condition the right way round: sodium is what is given."""
    found = SubstitutionPredictor(threshold=1e-3).list_prediction([Species("Na", 1)], to_this_composition=True)
    expected = {ion.symbol: one["probability"] for one in found for ion in one["substitutions"] if ion.oxi_state == 1}
    allowed = substituter(*sorted({*expected, "K", "Sr"} - {"Na", "D"}), scaling=1e6)
    made = {
        one.substitution.new: one.substitution.probability
        for one in allowed.candidates(rock_salt)
        if one.substitution.old == "Na"
    }
    assert made == pytest.approx({name: expected[name] for name in made}, rel=1e-8)
    assert made.keys() == expected.keys() - {"Na", "Cl"}


def test_threshold_and_scaling_bound_what_is_made(parents, many):
    ions = made_of(parents, substituter("Fe", "K", "La", "Mg", "Na", "S", threshold=0.05, scaling=1.3))
    expected = [m for m in many if m.substitution.probability >= 0.05 and 1 / 1.3 <= m.substitution.volume_ratio <= 1.3]
    assert [made.crystal.material_id for made in ions] == [made.crystal.material_id for made in expected]
    assert 0 < len(ions) < len(many)


@pytest.mark.parametrize(
    ("numbers", "reason"),
    [
        ([14, 14], "one element alone has no ions"),
        ([13, 28], "no oxidation states balance the charges of AlNi"),
        ([11] * 20 + [17] * 21, "41 atoms in the reduced formula are more than 30; raise --largest-formula"),
    ],
)
def test_parent_without_ions_is_refused(numbers, reason):
    places = np.linspace(0, 1, len(numbers), endpoint=False)[:, None] * np.ones(3)
    parent = Crystal("parent", np.array(numbers, np.uint8), 20 * np.eye(3), places)
    with pytest.raises(StructureError, match=f"^parent: {reason}"):
        substituter("K").candidates(parent)


def test_ion_of_mixed_valence_stays():
    """Magnetite: which iron has which charge, a composition does not tell."""
    places = np.linspace(0, 1, 7, endpoint=False)[:, None] * np.ones(3)
    magnetite = Crystal("magnetite", np.array([26] * 3 + [8] * 4, np.uint8), 5 * np.eye(3), places)
    assert {made.substitution.old for made in substituter("Co", "Mn", "S").candidates(magnetite)} == {"O"}


def test_element_without_ions_is_refused():
    with pytest.raises(ConfigError, match="pymatgen's probabilities hold no ion of He"):
        substituter("He", "K")


@pytest.mark.parametrize("words", [["--element", "K,Na"], ["--element", "K", "Na"], ["--element", "Na,K,K"]])
def test_elements_are_given_with_commas_or_spaces(words):
    assert read_options(SubstituteConfig, ["table", "--output", "out", *words], "substitute").element == ("K", "Na")


def test_unknown_element_is_refused():
    with pytest.raises(ConfigError, match="element: 'Xx' is not an element; .*H to Fm") as caught:
        validate(SubstituteConfig, {"table": "t", "output": "o", "element": "K,Xx"}, "test")
    assert "\n" not in str(caught.value)


def salt(name: str, cell: np.ndarray, shift: float = 0.0, other: int = 11) -> Crystal:
    """Rock salt in another cell, with another origin."""
    sites = Structure(5.64 * FCC, [symbols()[other], "Cl"], np.array([[0.0] * 3, [0.5] * 3]) + shift).make_supercell(
        cell, in_place=False
    )
    return Crystal.from_structure(sites, name)


CELLS = [np.eye(3, dtype=int), np.array([[-1, 1, 1], [1, -1, 1], [1, 1, -1]]), np.diag([1, 1, 2])]


def test_one_parent_in_many_cells_gives_one_candidate():
    twins = [salt(f"salt {i}", cell, shift=0.17 * i) for i, cell in enumerate(CELLS)]
    found = remove_duplicates(candidate_table(made_of(twins, substituter("K")), []))
    assert found["material_id"].to_pylist() == ["salt 0_Na-K"]
    assert found["duplicates"].to_pylist() == [2]


def test_more_probable_of_two_parents_gives_the_candidate():
    both = made_of([salt("sodium", CELLS[0]), salt("rubidium", CELLS[1], other=37)], substituter("K"))
    chances = {made.crystal.material_id: made.substitution.probability for made in both}
    assert remove_duplicates(candidate_table(both, []))["material_id"].to_pylist() == [max(chances, key=chances.get)]


def test_candidate_that_exists_is_named_by_what_it_is():
    sylvite = salt("sylvite", CELLS[1], other=19)
    found = remove_duplicates(candidate_table(made_of([salt("halite", CELLS[0])], substituter("K")), [sylvite]))
    assert found["known_as"].to_pylist() == ["sylvite"]


def test_order_of_parents_changes_nothing(many, parents):
    known = [parent for parent in parents if {"K", "Na"} & set(parent.elements)]
    table = candidate_table(many, known)
    order = np.random.default_rng(0).permutation(len(table))
    expected, found = (remove_duplicates(rows).sort_by("material_id") for rows in (table, table.take(order)))
    assert found.equals(expected)
    assert len(found) < len(many), "some are the same"


def test_candidates_are_told_apart_as_pymatgen_groups_them(many):
    """Its own grouping compares each structure with the first of every group before, which is our rule if the likely come first."""
    ranked = sorted(many, key=lambda made: (-made.substitution.probability, made.crystal.material_id))
    groups = StructureMatcher().group_structures(
        [structure_of(made.crystal).copy(properties={"at": i}) for i, made in enumerate(ranked)]
    )
    expected = {ranked[group[0].properties["at"]].crystal.material_id: len(group) - 1 for group in groups}
    found = remove_duplicates(candidate_table(many, []))
    assert dict(zip(found["material_id"].to_pylist(), found["duplicates"].to_pylist(), strict=True)) == expected


def test_rows_that_cannot_be_used_are_rejects_with_the_reason(spoilt):
    table, reasons = spoilt
    rows = ShardRows(table, [f"row {i}" for i in range(len(table))], {})
    made, rejects = substitute_rows(rows, substituter("K"))
    told = {one["material_id"]: one for one in rejects}
    for name in ("nan", "flat", "shapeless", "miscounted"):
        assert reasons[name] in told[name]["error"]
        assert told[name]["stage"] == "read"
    assert {one["stage"] for one in rejects} == {"read", "substitute"}
    assert not {one["material_id"] for one in rejects} & set(made["parent_id"].to_pylist())
