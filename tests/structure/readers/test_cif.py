import tarfile
import warnings
from pathlib import Path

import gemmi
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymatgen.core import Lattice, Structure
from pymatgen.io.cif import CifParser

from mat2spec.errors import StructureError
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.readers import cif
from mat2spec.structure.readers.cif import read_cif
from mat2spec.structure.readers.cif_blocks import text_for_pymatgen
from mat2spec.structure.readers.cif_cell import close_pairs
from mat2spec.structure.readers.cif_symmetry import declared_symmetries
from mat2spec.structure.symmetry import space_group_number

TOLERANCE = 1e-4
"""[Å] For the lattice; for fractional coordinates the tolerance within which pymatgen merges sites."""

ARCHIVE = Path(__file__).parents[2] / "data" / "cifs.tar.zst"

SETTINGS = settings(max_examples=500, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def real() -> dict[str, str]:
    """Text of 200 real CIFs."""
    with pa.CompressedInputStream(str(ARCHIVE), "zstd") as stream, tarfile.open(fileobj=stream, mode="r|") as members:
        return {Path(member.name).stem: members.extractfile(member).read().decode() for member in members}


def cif_text(
    cell: str,
    sites: str,
    *,
    name="",
    number=0,
    operations=(),
    columns=("label", "fract_x", "fract_y", "fract_z"),
    more="",
) -> str:
    """A CIF of a cell "a b c alpha beta gamma" and of sites, one per line."""
    tags = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
    lines = ["data_hand", *(f"_cell_{tag} {value}" for tag, value in zip(tags, cell.split(), strict=True))]
    lines += [f"_symmetry_space_group_name_H-M '{name}'"] * bool(name) + [
        f"_symmetry_Int_Tables_number {number}"
    ] * bool(number)
    if operations:
        lines += ["loop_", "_symmetry_equiv_pos_as_xyz", *(f"'{operation}'" for operation in operations)]
    return "\n".join([*lines, more, "loop_", *(f"_atom_site_{column}" for column in columns), sites, ""])


def only(text: str, **options) -> Crystal | StructureError:
    [parsed] = read_cif(text, "it", **options)
    if isinstance(parsed.crystal, StructureError):
        assert str(parsed.crystal).startswith("it: ")
        assert "\n" not in str(parsed.crystal)
    return parsed.crystal


def refusal(text: str, **options) -> str:
    error = only(text, **options)
    assert isinstance(error, StructureError), f"{error.formula} was read"
    return error.rule


def crystal(text: str, **options) -> Crystal:
    result = only(text, **options)
    assert isinstance(result, Crystal), str(result)
    return result


def by_pymatgen(text: str) -> Structure:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        [structure] = CifParser.from_str(text).parse_structures(primitive=False)
    return structure


def assert_same(crystal: Crystal, expected: Structure) -> None:
    """Species, lattice and sites are equal as sets."""
    assert len(crystal) == len(expected)
    np.testing.assert_allclose(crystal.lattice, expected.lattice.matrix, rtol=0, atol=TOLERANCE)
    offsets = crystal.frac_coords[:, None] - np.array(expected.frac_coords)
    near = (np.abs(offsets - np.rint(offsets)) < TOLERANCE).all(axis=2)
    same = near & np.equal.outer(crystal.atomic_numbers, np.array(expected.atomic_numbers))
    assert (same.sum(axis=0) == 1).all()
    assert (same.sum(axis=1) == 1).all()


@pytest.fixture
def without_pymatgen(monkeypatch):
    """pymatgen's reader is disabled, so that everything is read without it."""
    monkeypatch.setattr(cif, "_by_pymatgen", None)


@pytest.fixture
def pymatgen_calls(monkeypatch) -> list:
    """Arguments of each call of pymatgen's reader."""
    calls = []
    reader = cif._by_pymatgen
    monkeypatch.setattr(cif, "_by_pymatgen", lambda *arguments: calls.append(arguments) or reader(*arguments))
    return calls


def test_real_cifs_are_read_without_pymatgen_and_equal_its_result(real, without_pymatgen):
    assert len(real) == 200
    for text in real.values():
        without_geometry = text[: text.index("loop_\n_geom_bond")]  # one of these loops is empty, and stops pymatgen
        assert_same(crystal(text), by_pymatgen(without_geometry))


def test_real_cifs_give_the_same_crystal_by_both_readers(real, monkeypatch):
    by_gemmi = {name: crystal(text) for name, text in list(real.items())[::8]}
    monkeypatch.setattr(cif, "_expanded", lambda *_: None)
    for name, expected in by_gemmi.items():
        assert_same(expected, crystal(real[name]).to_structure())


QUARTZ = ("x,y,z", "-y,x-y,z+2/3", "-x+y,-x,z+1/3", "y,x,-z", "x-y,-y,-z+1/3", "-x,-x+y,-z+2/3")
PNMA = (
    "x,y,z",
    "-x+1/2,-y,z+1/2",
    "-x,y+1/2,-z",
    "x+1/2,-y+1/2,-z+1/2",
    "-x,-y,-z",
    "x+1/2,y,-z+1/2",
    "x,-y+1/2,z",
    "-x+1/2,y+1/2,z+1/2",
)
CORUNDUM_SITES = "Al1 0 0 0.35219\nO1 0.30624 0 0.25"
PEROVSKITE_SITES = "Ca1 0.00676 0.03602 0.25\nTi1 0 0.5 0\nO1 0.5711 -0.0161 0.25\nO2 0.2897 0.2888 0.0371"

SYMMETRIC = {
    "rock salt by symbol": (
        cif_text("5.64 5.64 5.64 90 90 90", "Na1 0 0 0\nCl1 .5 .5 .5", name="F m -3 m", number=225),
        225,
        "NaCl",
        8,
    ),
    "rock salt by old symbol": (
        cif_text("5.64 5.64 5.64 90 90 90", "Na1 0 0 0\nCl1 .5 .5 .5", name="Fm3m"),
        225,
        "NaCl",
        8,
    ),
    "rock salt by number": (cif_text("5.64 5.64 5.64 90 90 90", "Na1 0 0 0\nCl1 .5 .5 .5", number=225), 225, "NaCl", 8),
    "quartz": (
        cif_text(
            "4.9134 4.9134 5.4052 90 90 120",
            "Si1 0.4699 0 0.6667\nO1 0.4141 0.2681 0.7854",
            name="P 32 2 1",
            operations=QUARTZ,
        ),
        154,
        "SiO2",
        9,
    ),
    "corundum, hexagonal": (
        cif_text("4.7602 4.7602 12.9933 90 90 120", CORUNDUM_SITES, name="R -3 c :H"),
        167,
        "Al2O3",
        30,
    ),
    "corundum, axes by the cell": (
        cif_text("4.7602 4.7602 12.9933 90 90 120", CORUNDUM_SITES, name="R -3 c"),
        167,
        "Al2O3",
        30,
    ),
    "bismuth, rhombohedral": (
        cif_text("4.7459 4.7459 4.7459 57.23 57.23 57.23", "Bi1 .23389 .23389 .23389", name="R -3 m :R"),
        166,
        "Bi",
        2,
    ),
    "bismuth, axes by the cell": (
        cif_text("4.7459 4.7459 4.7459 57.23 57.23 57.23", "Bi1 .23389 .23389 .23389", name="R -3 m"),
        166,
        "Bi",
        2,
    ),
    "magnesium": (
        cif_text("3.2094 3.2094 5.2108 90 90 120", "Mg1 0.3333 0.6667 0.25", name="P 63/m m c", number=194),
        194,
        "Mg",
        2,
    ),
    "perovskite, Pbnm": (cif_text("5.3796 5.4423 7.6401 90 90 90", PEROVSKITE_SITES, name="P b n m"), 62, "CaTiO3", 20),
    "perovskite, Pnma": (
        cif_text(
            "5.4423 7.6401 5.3796 90 90 90",
            "Ca1 .03602 .25 -.00676\nTi1 .5 0 0\nO1 -.0161 .25 -.5711\nO2 .2888 .0371 -.2897",
            name="P n m a",
            operations=PNMA,
        ),
        62,
        "CaTiO3",
        20,
    ),
    "diamond, second origin": (
        cif_text("3.567 3.567 3.567 90 90 90", "C1 .125 .125 .125", name="F d -3 m :2"),
        227,
        "C",
        8,
    ),
    "diamond, as the ICSD has it": (
        cif_text("3.567 3.567 3.567 90 90 90", "C1 .125 .125 .125", name="F d -3 m Z"),
        227,
        "C",
        8,
    ),
    "zirconia": (
        cif_text(
            "5.1505 5.2116 5.3173 90 99.23 90",
            "Zr1 .2754 .0395 .2083\nO1 .07 .3317 .3447\nO2 .4496 .7569 .4792",
            name="P 21/c",
        ),
        14,
        "ZrO2",
        12,
    ),
}

PYMATGEN_MISREADS = {
    "rock salt by old symbol",
    "zirconia",
    "corundum, hexagonal",
    "bismuth, rhombohedral",
    "bismuth, axes by the cell",
    "diamond, second origin",
    "diamond, as the ICSD has it",
}
"""From a symbol alone it assumes hexagonal axes in any cell, and P 1 for short, old and extended symbols."""


@pytest.mark.parametrize("which", SYMMETRIC)
def test_symmetry_generates_the_crystal_of_the_declared_space_group(which, without_pymatgen):
    text, number, formula, sites = SYMMETRIC[which]
    expanded = crystal(text)
    assert (expanded.formula, len(expanded)) == (formula, sites)
    assert space_group_number(expanded) == number


@pytest.mark.parametrize("which", SYMMETRIC)
def test_symmetry_generates_the_same_sites_as_pymatgen(which):
    text = SYMMETRIC[which][0]
    if which in PYMATGEN_MISREADS:
        assert len(by_pymatgen(text)) != len(crystal(text)), (
            "if pymatgen reads it correctly now, remove it from the set"
        )
    else:
        assert_same(crystal(text), by_pymatgen(text))


@pytest.mark.parametrize("which", sorted(PYMATGEN_MISREADS))
def test_with_the_operations_listed_pymatgen_reads_every_symbol_correctly(which):
    text = SYMMETRIC[which][0]
    block = gemmi.cif.read_string(text).sole_block()
    [symmetry] = declared_symmetries(
        block, *(float(block.find_value(f"_cell_angle_{angle}")) for angle in ("alpha", "gamma"))
    )
    assert_same(crystal(text), by_pymatgen(text_for_pymatgen(block, symmetry.triplets)))


@pytest.mark.parametrize("number", [14, 62])
def test_a_space_group_number_with_several_settings_is_its_standard_one_as_in_pymatgen(number, pymatgen_calls):
    text = cif_text("5.4423 7.6401 5.3796 90 90 90", "Ca1 .03602 .25 -.00676\nTi1 .5 0 0", number=number)
    assert_same(crystal(text), by_pymatgen(text))
    assert not pymatgen_calls


def test_an_ambiguous_origin_is_refused():
    for symmetry in ({"name": "F d -3 m"}, {"number": 227}):
        assert "two origins" in refusal(cif_text("3.567 3.567 3.567 90 90 90", "C1 0 0 0", **symmetry))


def test_operations_that_do_not_fit_the_cell_are_refused():
    text = cif_text("4.7 4.7 4.7 57 57 57", "Bi1 0 0 .23", name="R -3 m :H")
    assert "do not fit the cell" in refusal(text)


def test_a_hall_symbol_determines_the_origin(without_pymatgen):
    text = cif_text(
        "3.567 3.567 3.567 90 90 90", "C1 .125 .125 .125", name="F d -3 m", more="_space_group_name_Hall '-F 4vw 2vw 3'"
    )
    assert space_group_number(crystal(text)) == 227


def test_an_unknown_space_group_is_refused_rather_than_taken_as_p1():
    assert "'Q 7'" in refusal(cif_text("5 5 5 90 90 90", "Na1 0 0 0", name="Q 7"))


def test_rounded_sixths_that_symmetry_separates_are_refused_with_the_way_out():
    text = cif_text("3.2 3.2 5.2 90 90 120", "Mg1 0.167 0.333 0.25", operations=("x,y,z", "-x+y,y,z"))
    assert "more digits" in refusal(text)


@pytest.mark.parametrize("formula", ["Na Cl", "Na4 Cl4", "Cl1 Na1"])
def test_equal_formulas_in_any_notation_agree(formula, without_pymatgen):
    more = f"_chemical_formula_sum '{formula}'\n_cell_formula_units_Z 4"
    assert (
        crystal(cif_text("5.64 5.64 5.64 90 90 90", "Na1 0 0 0\nCl1 .5 .5 .5", name="F m -3 m", more=more)).formula
        == "NaCl"
    )


def test_a_cell_of_another_formula_is_refused():
    more = "_chemical_formula_sum 'H2 Na Cl O'"
    text = cif_text("5.64 5.64 5.64 90 90 90", "Na1 0 0 0\nCl1 .5 .5 .5", name="F m -3 m", more=more)
    rule = refusal(text)
    for fact in ("Cl4 Na4", "Cl1 H2 Na1 O1", "_chemical_formula_sum"):
        assert fact in rule


def test_several_blocks_have_their_own_names_and_the_empty_one_is_left_out():
    salt, magnesium = (SYMMETRIC[which][0] for which in ("rock salt by symbol", "magnesium"))
    text = (
        "data_global\n_journal_year 2000\n"
        + salt.replace("data_hand", "data_salt")
        + cif_text("what 5 5 90 90 90", "Na 0 0 0").replace("data_hand", "data_broken")
    )
    parsed = read_cif(text + magnesium.replace("data_hand", "DATA_mg"), "file")
    assert [one.name for one in parsed] == ["salt", "broken", "mg"]
    assert [one.crystal.material_id for one in parsed] == ["salt", "broken", "mg"]
    assert parsed[0].crystal.formula == "NaCl"
    assert "_cell_length_a is 'what'" in parsed[1].crystal.rule
    assert parsed[2].crystal.formula == "Mg"


def test_a_broken_block_and_a_repeated_name_do_not_affect_other_blocks(pymatgen_calls):
    salt, magnesium = (SYMMETRIC[which][0] for which in ("rock salt by symbol", "magnesium"))
    parsed = read_cif(salt + magnesium + "data_bad\nloop_\n_atom_site_label\n_atom_site_fract_x\nNa 1 2\n", "file")
    assert [one.crystal.formula for one in parsed[:2]] == ["NaCl", "Mg"]
    assert "not a valid CIF" in parsed[2].crystal.rule
    assert not pymatgen_calls


def test_a_single_structure_has_the_name_of_the_file():
    [parsed] = read_cif("data_global\n_x 1\n" + SYMMETRIC["magnesium"][0], "file")
    assert (parsed.name, parsed.crystal.material_id) == ("", "file")


def test_a_block_with_a_repeated_tag_goes_to_pymatgen(pymatgen_calls):
    assert crystal(SYMMETRIC["magnesium"][0] + "_cell_length_a 3.2094\n").formula == "Mg"
    assert len(pymatgen_calls) == 1


def test_a_magnetic_cif_is_read_without_its_moments(pymatgen_calls):
    operations = "\n".join(
        ["loop_", "_space_group_symop_magn_operation.xyz", "x,y,z,+1", "-x,-y,-z,+1", "x+1/2,y+1/2,z+1/2,-1"]
    )
    moments = "\n".join(
        ["loop_", "_atom_site_moment.label", *(f"_atom_site_moment.crystalaxis_{axis}" for axis in "xyz"), "Cr1 0 0 1"]
    )
    chromium = crystal(cif_text("2.9 2.9 2.9 90 90 90", "Cr1 0 0 0", more=f"{operations}\n{moments}"))
    assert (chromium.formula, len(chromium)) == ("Cr", 2)
    assert len(pymatgen_calls) == 1


def test_oxidation_states_are_dropped(without_pymatgen):
    columns = ("label", "type_symbol", "fract_x", "fract_y", "fract_z")
    text = cif_text("5.64 5.64 5.64 90 90 90", "Na1 Na1+ 0 0 0\nCl1 Cl- .5 .5 .5", name="F m -3 m", columns=columns)
    assert crystal(text).elements == ["Cl", "Na"]


REFUSED = {
    "nothing": ("", "no data block"),
    "prose": ("See the supporting information.", "no data block"),
    "binary": ("data_a\0\1\2", "binary"),
    "no atoms": ("data_a\n_cell_length_a 5\n", "no atom sites"),
    "empty block": ("data_a\n_journal_year 2000\n", "none with a cell or atoms"),
    "empty loop": (cif_text("5 5 5 90 90 90", ""), "no atom sites"),
    "no cell": (cif_text("? ? ? ? ? ?", "Na1 0 0 0"), "no cell: _cell_length_a"),
    "negative length": (cif_text("5 -5 5 90 90 90", "Na1 0 0 0"), "_cell_length_b is -5"),
    "flat": (cif_text("5 5 5 90 90 180", "Na1 0 0 0"), "_cell_angle_gamma is 180"),
    "impossible angles": (cif_text("5 5 5 60 60 120", "Na1 0 0 0"), "volume would be zero"),
    "infinite": (cif_text("1e400 5 5 90 90 90", "Na1 0 0 0"), "_cell_length_a is '1e400'"),
    "isotope": (cif_text("5 5 5 90 90 90", "O1 0 0 0\nD1 .2 0 0"), "site D1 is D (deuterium)"),
    "dummy": (cif_text("5 5 5 90 90 90", "O1 0 0 0\nM1 .2 0 0"), "site M1 is 'M1'"),
    "ambiguous label": (
        cif_text("5 5 5 90 90 90", "O1 0 0 0\nCO1 .4 0 0"),
        "site CO1 is 'CO1'",
    ),
    "water": (cif_text("5 5 5 90 90 90", "Na1 0 0 0\nWat1 .5 0 0"), "site Wat1 is 'Wat1'"),
    "hydroxide": (cif_text("5 5 5 90 90 90", "Na1 0 0 0\nOH1 .5 0 0"), "site OH1 is 'OH1'"),
    "no coordinate": (cif_text("5 5 5 90 90 90", "O1 0 0 0\nNa1 .5 . 0"), "site Na1 has no coordinate y"),
    "modulated": (cif_text("5 5 5 90 90 90", "Na1 0 0 0", more="_cell_modulation_dimension 1"), "modulated"),
    "heavy element": (cif_text("5 5 5 90 90 90", "Lr1 0 0 0"), "known are H to Fm"),
    "two atoms on one site": (cif_text("5 5 5 90 90 90", "Na1 0 0 0\nCl1 0 0 0"), "Occupancy 2"),
}


@pytest.mark.parametrize("which", REFUSED)
def test_a_text_without_a_crystal_is_refused_with_the_reason(which):
    text, rule = REFUSED[which]
    assert rule in refusal(text)


def test_a_cell_too_large_is_refused_before_it_reaches_pymatgen(without_pymatgen):
    rows = np.random.default_rng(0).permutation(np.stack(np.meshgrid(*[np.arange(22) / 22] * 3), -1).reshape(-1, 3))[
        :10_000
    ]
    sites = "\n".join(f"Na{i} {x:.5f} {y:.5f} {z:.5f}" for i, (x, y, z) in enumerate(rows))
    text = cif_text("66 66 66 90 90 90", sites)
    rule = refusal(text)
    assert "10,000" in rule
    assert "5,000 (largest_cell)" in rule
    assert len(crystal(text, largest_cell=20_000)) == 10_000
    few = cif_text("66 66 66 90 90 90", "\n".join(sites.splitlines()[:200]), name="F m -3 m")
    assert "5,000 (largest_cell)" in refusal(few) or "symmetry images" in refusal(few)


@pytest.mark.parametrize(
    "change", ["\ufeff{}", "{}\r\n", "# Å, Müller\n{}", "{}\n_publ_author_name 'Müller \x80'\n", "{}\n\n\n\n"]
)
def test_encodings_and_line_ends_do_not_matter(change, without_pymatgen):
    text = change.format(SYMMETRIC["magnesium"][0])
    if "\r" in change:
        text = text.replace("\n", "\r\n")
    assert crystal(text).formula == "Mg"


def test_a_typographic_minus_is_refused_and_not_dropped():
    assert isinstance(only(cif_text("5 5 5 90 90 90", "Na1 −0.25 0 0")), StructureError)


def test_sites_of_zero_occupancy_are_dropped(without_pymatgen):
    columns = ("label", "fract_x", "fract_y", "fract_z", "occupancy")
    assert (
        crystal(cif_text("5 5 5 90 90 90", "Na1 0 0 0 1\nCl1 .5 .5 .5 .\nO1 .2 .2 .2 0", columns=columns)).formula
        == "NaCl"
    )
    assert "all 1 atom sites have zero occupancy" in refusal(cif_text("5 5 5 90 90 90", "Na1 0 0 0 0", columns=columns))
    assert "site O1 has an occupancy" in refusal(
        cif_text("5 5 5 90 90 90", "Na1 0 0 0 1\nO1 .2 .2 .2 -1", columns=columns)
    )


def test_two_fully_occupied_alternatives_are_refused():
    columns = ("label", "fract_x", "fract_y", "fract_z", "disorder_group")
    text = cif_text("5 5 5 90 90 90", "Na1 0 0 0 .\nCl1 .5 .5 .5 1\nCl2 .3 .5 .5 2", columns=columns)
    assert "site Cl2 is in disorder group 2" in refusal(text)


def test_hydrogens_without_coordinates_are_refused():
    columns = ("label", "fract_x", "fract_y", "fract_z", "attached_hydrogens")
    assert "site O1 has 2 attached hydrogens" in refusal(
        cif_text("5 5 5 90 90 90", "Na1 0 0 0 0\nO1 .5 .5 .5 2", columns=columns)
    )


def test_close_pairs_are_found_across_faces_of_an_oblique_cell():
    lattice = Lattice.from_parameters(4, 5, 6, 60, 70, 50)
    coords = np.random.default_rng(0).random((60, 3))
    pairs = close_pairs(coords, lattice.matrix.copy())
    distances = lattice.get_all_distances(coords, coords) + 9 * np.eye(60)
    assert {tuple(pair) for pair in pairs.tolist()} == {tuple(pair) for pair in np.argwhere(distances < 0.5).tolist()}
    assert len(pairs) > 10


def assert_read_or_refused(text: str) -> None:
    """Each structure is a crystal or an error of one line."""
    structures = read_cif(text, "fuzz", largest_cell=300)
    assert structures
    for structure in structures:
        assert "\n" not in str(structure.crystal) or isinstance(structure.crystal, Crystal)
        assert len(str(structure.crystal)) < 600 or isinstance(structure.crystal, Crystal)


SEEDS = [*(text for text, *_ in SYMMETRIC.values()), *(text for text, _ in REFUSED.values() if len(text) > 60)]
INSERTED = st.one_of(
    st.sampled_from(
        [
            "'",
            '"',
            ";",
            "\n;",
            "\nloop_\n",
            "data_",
            "\ndata_x\n",
            "?",
            ".",
            "-",
            "1e400",
            "nan",
            "0",
            "(",
            "D",
            "_",
            "#",
            "save_",
            "\0",
            "é",
        ]
    ),
    st.text(max_size=8),
)


@SETTINGS
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 60), st.integers(0, 2), INSERTED), min_size=1, max_size=4),
)
def test_a_damaged_cif_is_read_or_refused(seed, damages):
    text = seed
    for at, length, times, inserted in damages:  # a slice is deleted, kept or doubled, and something is inserted
        start = int(at * len(text))
        text = text[:start] + text[start : start + length] * times + inserted + text[start + length :]
    assert_read_or_refused(text)


@SETTINGS
@given(
    st.one_of(st.text(max_size=200), st.binary(max_size=200).map(lambda content: "data_\n" + content.decode("latin-1")))
)
def test_any_text_is_read_or_refused(text):
    assert_read_or_refused(text)
