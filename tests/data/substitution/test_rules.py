"""Ionic substitution: charges stay balanced, volumes fit, probable ions come first, and duplicates are removed."""

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
from mat2spec.data.shards.shard import ShardRows
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


def candidates_of(parents: Sequence[Crystal], rule: Substituter) -> list[Candidate]:
    candidates = []
    for parent in parents:
        try:
            candidates += rule.candidates(parent)
        except StructureError:
            continue
    return candidates


@pytest.fixture(scope="module")
def parents(materials: pa.Table) -> list[Crystal]:
    """400 real structures."""
    return [row for row in read_crystals(materials) if isinstance(row, Crystal)]


@pytest.fixture(scope="module")
def many(parents) -> list[Candidate]:
    return candidates_of(parents, substituter("Fe", "K", "La", "Mg", "Na", "S"))


def test_table_salt_with_potassium_is_sylvite(rock_salt):
    (candidate,) = substituter("K").candidates(rock_salt)
    assert candidate.crystal.formula == "KCl"
    assert candidate.crystal.material_id == "rock salt_Na-K"
    assert (candidate.parent_id, str(candidate.substitution)) == ("rock salt", "Na1+->K1+")
    real = Structure.from_spacegroup("Fm-3m", Lattice.cubic(KCL), ["K", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    assert StructureMatcher().fit(candidate.crystal.to_structure(), real)
    assert candidate.crystal.volume == pytest.approx(KCL**3 / 4, rel=VOLUME_TOLERANCE)
    assert candidate.crystal.volume == pytest.approx(candidate.substitution.volume_ratio * rock_salt.volume)


def test_charges_of_every_candidate_balance(parents, many):
    """Charges of unchanged ions are pymatgen's for the parent; that of the new ion is read from the lineage."""
    by_id = {parent.material_id: parent for parent in parents}
    for candidate in many:
        counts = Composition(candidate.crystal.formula).get_el_amt_dict()
        parent = Composition(by_id[candidate.parent_id].formula).get_el_amt_dict()
        charges = Composition(parent).oxi_state_guesses(max_sites=-1)[0]
        old, new = (Species.from_str(ion) for ion in str(candidate.substitution).split("->"))
        assert old.oxi_state == charges[old.symbol]
        total = sum(counts[name] * (new.oxi_state if name == new.symbol else charges[name]) for name in counts)
        assert total == pytest.approx(0, abs=1e-9), candidate.crystal.material_id
    assert len(many) > 200


def test_candidate_has_the_sites_of_its_parent_and_the_new_element(parents, many):
    by_id = {parent.material_id: parent for parent in parents}
    for candidate in many:
        parent, rule = by_id[candidate.parent_id], candidate.substitution
        changed = candidate.crystal.atomic_numbers != parent.atomic_numbers
        assert {symbols()[z] for z in candidate.crystal.atomic_numbers[changed]} == {rule.new}
        assert {symbols()[z] for z in parent.atomic_numbers[changed]} == {rule.old}
        assert rule.new not in parent.elements, "an element that the parent has would merge two kinds of site"
        np.testing.assert_array_equal(candidate.crystal.frac_coords, parent.frac_coords)


def test_probability_is_that_of_pymatgen(many):
    model = SubstitutionProbability()
    for candidate in many:
        old, new = (Species.from_str(ion) for ion in str(candidate.substitution).split("->"))
        assert candidate.substitution.probability == pytest.approx(model.cond_prob(new, old), rel=1e-8)


def test_replacements_of_sodium_are_those_of_pymatgen_s_predictor(rock_salt):
    """The predictor conditions on the right ion: sodium is given."""
    predicted = SubstitutionPredictor(threshold=1e-3).list_prediction([Species("Na", 1)], to_this_composition=True)
    expected = {
        ion.symbol: one["probability"] for one in predicted for ion in one["substitutions"] if ion.oxi_state == 1
    }
    allowed = substituter(*sorted({*expected, "K", "Sr"} - {"Na", "D"}), scaling=1e6)
    probabilities = {
        candidate.substitution.new: candidate.substitution.probability
        for candidate in allowed.candidates(rock_salt)
        if candidate.substitution.old == "Na"
    }
    assert probabilities == pytest.approx({name: expected[name] for name in probabilities}, rel=1e-8)
    assert probabilities.keys() == expected.keys() - {"Na", "Cl"}


def test_threshold_and_scaling_limit_the_candidates(parents, many):
    ions = candidates_of(parents, substituter("Fe", "K", "La", "Mg", "Na", "S", threshold=0.05, scaling=1.3))
    expected = [m for m in many if m.substitution.probability >= 0.05 and 1 / 1.3 <= m.substitution.volume_ratio <= 1.3]
    assert [candidate.crystal.material_id for candidate in ions] == [
        candidate.crystal.material_id for candidate in expected
    ]
    assert 0 < len(ions) < len(many)


@pytest.mark.parametrize(
    ("numbers", "reason"),
    [
        ([14, 14], "one element"),
        ([13, 28], "oxidation states .*AlNi"),
        ([11] * 20 + [17] * 21, "41 atoms .* 30; .*--largest-formula"),
    ],
)
def test_parent_without_ions_is_refused(numbers, reason):
    coords = np.linspace(0, 1, len(numbers), endpoint=False)[:, None] * np.ones(3)
    parent = Crystal("parent", np.array(numbers, np.uint8), 20 * np.eye(3), coords)
    with pytest.raises(StructureError, match=f"^parent: .*{reason}"):
        substituter("K").candidates(parent)


def test_ions_of_mixed_valence_are_not_replaced():
    """Magnetite: a composition does not determine the charge of each iron."""
    coords = np.linspace(0, 1, 7, endpoint=False)[:, None] * np.ones(3)
    magnetite = Crystal("magnetite", np.array([26] * 3 + [8] * 4, np.uint8), 5 * np.eye(3), coords)
    assert {candidate.substitution.old for candidate in substituter("Co", "Mn", "S").candidates(magnetite)} == {"O"}


def test_element_without_ions_is_refused():
    with pytest.raises(ConfigError, match=r"element: .* He; "):
        substituter("He", "K")


@pytest.mark.parametrize("words", [["--element", "K,Na"], ["--element", "K", "Na"], ["--element", "Na,K,K"]])
def test_elements_are_separated_by_commas_or_spaces(words):
    assert read_options(SubstituteConfig, ["table", "--output", "out", *words], "substitute").element == ("K", "Na")


def test_unknown_element_is_refused():
    with pytest.raises(ConfigError, match=r"element: 'Xx' is not an element; .*H to Fm") as caught:
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
    distinct = remove_duplicates(candidate_table(candidates_of(twins, substituter("K")), []))
    assert distinct["material_id"].to_pylist() == ["salt 0_Na-K"]
    assert distinct["duplicates"].to_pylist() == [2]


def test_more_probable_of_two_parents_gives_the_candidate():
    both = candidates_of([salt("sodium", CELLS[0]), salt("rubidium", CELLS[1], other=37)], substituter("K"))
    probabilities = {candidate.crystal.material_id: candidate.substitution.probability for candidate in both}
    distinct = remove_duplicates(candidate_table(both, []))
    assert distinct["material_id"].to_pylist() == [max(probabilities, key=probabilities.get)]


def test_candidate_that_matches_a_known_crystal_has_its_id():
    sylvite = salt("sylvite", CELLS[1], other=19)
    candidates = candidates_of([salt("halite", CELLS[0])], substituter("K"))
    distinct = remove_duplicates(candidate_table(candidates, [sylvite]))
    assert distinct["known_as"].to_pylist() == ["sylvite"]


def test_order_of_parents_changes_nothing(many, parents):
    known = [parent for parent in parents if {"K", "Na"} & set(parent.elements)]
    table = candidate_table(many, known)
    order = np.random.default_rng(0).permutation(len(table))
    expected, shuffled = (remove_duplicates(rows).sort_by("material_id") for rows in (table, table.take(order)))
    assert shuffled.equals(expected)
    assert len(shuffled) < len(many), "some are duplicates"


def test_duplicates_are_those_of_pymatgen_s_grouping(many):
    """It compares each structure with the first of every earlier group: our rule, if probable ones come first."""
    ranked = sorted(many, key=lambda candidate: (-candidate.substitution.probability, candidate.crystal.material_id))
    groups = StructureMatcher().group_structures(
        [candidate.crystal.to_structure().copy(properties={"at": i}) for i, candidate in enumerate(ranked)]
    )
    expected = {ranked[group[0].properties["at"]].crystal.material_id: len(group) - 1 for group in groups}
    distinct = remove_duplicates(candidate_table(many, []))
    assert dict(zip(distinct["material_id"].to_pylist(), distinct["duplicates"].to_pylist(), strict=True)) == expected


def test_rows_that_cannot_be_used_are_rejects_with_the_reason(table_with_bad_rows):
    table, bad_rows = table_with_bad_rows
    rows = ShardRows(table, [f"row {i}" for i in range(len(table))], {})
    candidates, rejects = substitute_rows(rows, substituter("K"))
    by_id = {row["material_id"]: row for row in rejects}
    for material_id in ("nan", "flat", "no lattice", "wrong nsites"):
        stage, error_type, part = bad_rows[material_id]
        row = by_id[material_id]
        assert (row["stage"], row["error_type"]) == (stage, error_type)
        assert part in row["error"]
    assert {row["stage"] for row in rejects} == {"read", "substitute"}
    assert not by_id.keys() & set(candidates["parent_id"].to_pylist())
