"""Symmetry that a CIF gives twice, in part, or under other tags: the crystal of the named group, or a reject."""

import gemmi
import numpy as np
import pytest

from mat2spec.structure.crystal import Crystal
from mat2spec.structure.readers.cif import read_cif
from mat2spec.structure.readers.space_groups import operations_of, setting_of_hall, settings_of_name
from mat2spec.structure.symmetry import space_group_number

CUBE = "".join(f"_cell_length_{axis} 5.64\n" for axis in "abc")
CUBE += "".join(f"_cell_angle_{angle} 90\n" for angle in ("alpha", "beta", "gamma"))
SALT = "Na1 Na 0 0 0\nCl1 Cl 0.5 0.5 0.5"
Z = "_chemical_formula_sum 'Na Cl'\n_cell_formula_units_Z 4\n"
FM3M = operations_of(gemmi.SpaceGroup(225))
P43M = operations_of(gemmi.find_spacegroup_by_name("F -4 3 m"))


def listed(operations, tag="_symmetry_equiv_pos_as_xyz") -> str:
    return "\n".join(["loop_", tag, *(f"'{operation}'" for operation in operations), ""])


def name(text: str, tag="_symmetry_space_group_name_H-M") -> str:
    return f"{tag} '{text}'\n"


def number(group: int) -> str:
    return f"_symmetry_Int_Tables_number {group}\n"


def rock_salt(symmetry: str, sites: str = SALT, cell: str = CUBE) -> str:
    columns = "".join(f"_atom_site_{column}\n" for column in ("label", "type_symbol", "fract_x", "fract_y", "fract_z"))
    return f"data_x\n{cell}{symmetry}loop_\n{columns}{sites}\n"


def only(text: str):
    [parsed] = read_cif(text, "it")
    return parsed.crystal


def refusal(text: str) -> str:
    error = only(text)
    assert not isinstance(error, Crystal), f"read as {len(error)} sites"
    assert "\n" not in error.rule
    return error.rule


READ = {
    "identity beside a name": listed(["x,y,z"]) + name("F m -3 m"),
    "identity beside a name and Z": listed(["x,y,z"]) + name("F m -3 m") + Z,
    "identity beside a number": listed(["x,y,z"]) + number(225),
    "a subgroup beside a name": listed(P43M) + name("F m -3 m"),
    "an operation missing": listed(FM3M[:-1]) + name("F m -3 m"),
    "all operations twice": listed(P43M + P43M) + name("F -4 3 m"),
    "P 1 beside a number": name("P 1") + number(225),
    "P 1 beside all operations, confirmed by Z": name("P 1") + listed(FM3M) + Z,
    "no name": listed(FM3M),
    "dotted operations": listed(FM3M, "_space_group_symop.operation_xyz"),
    "mmCIF operations": listed(FM3M, "_symmetry_equiv.pos_as_xyz"),
    "dotted name": name("F m -3 m", "_space_group.name_H-M_alt"),
    "full name": name("F 4/m -3 2/m", "_space_group_name_H-M_full"),
    "full name without spaces": name("F4/m-32/m"),
    "dotted full name": name("F 4/m -3 2/m", "_space_group.name_H-M_full"),
    "Hall": name("-F 4 2 3", "_space_group_name_Hall"),
    "Hall with underscores": name("-F_4_2_3", "_symmetry_space_group_name_Hall"),
    "Schoenflies": name("Oh^5", "_space_group_name_Schoenflies"),
    "old name": name("F m 3 m"),
}


@pytest.mark.parametrize("which", READ)
def test_rock_salt_is_read_whole_in_any_dialect_and_with_incomplete_operations(which):
    crystal = only(rock_salt(READ[which]))
    assert isinstance(crystal, Crystal), str(crystal)
    assert (crystal.formula, len(crystal), space_group_number(crystal)) == ("NaCl", 8, 225)


REFUSED = {
    "Z without a group": (Z, "not Z = 4 times Cl1 Na1"),
    "Z with P 1": (name("P 1") + Z, "not Z = 4 times Cl1 Na1"),
    "Z with a subgroup": (listed(["x,y,z"]) + Z, "not Z = 4 times Cl1 Na1"),
    "tetragonal without a group": ("_symmetry_cell_setting tetragonal\n", "it is tetragonal"),
    "triclinic without a group": ("_space_group_crystal_system triclinic\n", "it is triclinic"),
    "another group": (listed(operations_of(gemmi.SpaceGroup(62))) + name("P 63/m m c"), "P n m a"),
    "P 1 beside all operations": (name("P 1") + listed(FM3M), "(F m -3 m, 192 operations)"),
    "no closed group": (listed(FM3M[:-1]), "no complete group"),
    "an unreadable operation": (listed(["x,y,z", "x+0.1,y,z"]), "'x+0.1,y,z' cannot be read"),
    "unknown name beside the identity": (listed(["x,y,z"]) + name("Q 7"), "Q 7"),
    "unread dialect": (name("F m -3 m", "_space_group_name_H-M_ref"), "_space_group_name_H-M_ref"),
    "generators": (listed(["-x,-y,-z"], "_space_group_generator_xyz"), "_space_group_generator_xyz"),
}


@pytest.mark.parametrize("which", REFUSED)
def test_symmetry_that_contradicts_itself_is_refused_with_both_facts(which):
    symmetry, rule = REFUSED[which]
    assert rule in refusal(rock_salt(symmetry))


MONOCLINIC = CUBE.replace("_cell_angle_beta 90", "_cell_angle_beta 100")


@pytest.mark.parametrize("tag", ["_symmetry_cell_setting", "_space_group_crystal_system"])
def test_a_crystal_system_alone_needs_z_and_formula_even_where_the_sites_have_that_system(tag):
    """A cation and an anion on the axis are monoclinic; so are the eight sites of C 2/c that they may stand for."""
    sites = "Na1 Na 0 0 0\nCl1 Cl 0 0.5 0"
    system = f"{tag} monoclinic\n"
    assert "it is monoclinic, and neither a space group" in refusal(rock_salt(system, sites, MONOCLINIC))
    assert "not Z = 4 times" in refusal(rock_salt(system + Z, sites, MONOCLINIC))
    confirmed = only(rock_salt(system + Z.replace("Z 4", "Z 1"), sites, MONOCLINIC))
    assert isinstance(confirmed, Crystal), str(confirmed)
    assert len(confirmed) == 2


def test_sites_without_labels_are_read_where_pymatgen_reads_them_too():
    """A repeated tag makes the block one for pymatgen, which asks for labels."""
    text = rock_salt(name("F m -3 m"), "Na 0 0 0\nCl 0.5 0.5 0.5").replace("_atom_site_label\n", "")
    for more in ("", "_cell_length_a 5.64\n"):
        crystal = only(text + more)
        assert isinstance(crystal, Crystal), str(crystal)
        assert (crystal.formula, len(crystal)) == ("NaCl", 8)


def test_a_list_of_all_sites_beside_all_operations_is_refused_with_the_way_out():
    assert "list no image of a site, and each site once" in refusal(rock_salt(listed(FM3M), full_cell()))


@pytest.mark.parametrize("text", ["B 2/m 2/e 2/m", "C 2/m 2/m 2/e"])
def test_a_full_name_of_two_settings_is_refused_and_never_read_as_p_1(text):
    """e is a or b: the two groups have other origins."""
    sites = "Pb1 Pb 0.5 0.5 0.5\nF1 F 0.57 0.43 0"
    cell = CUBE.replace("length_a 5.64", "length_a 15").replace("length_b 5.64", "length_b 16")
    assert "its space group may be " in refusal(rock_salt(name(text, "_space_group_name_H-M_full"), sites, cell))


def test_a_number_alone_is_the_standard_setting_if_that_fits_the_cell():
    sites = "Na1 Na 0.1 0.2 0.3"
    assert len(only(rock_salt(number(14), sites, MONOCLINIC))) == 4
    about_c = CUBE.replace("_cell_angle_gamma 90", "_cell_angle_gamma 100")
    assert "do not fit the cell" in refusal(rock_salt(number(14), sites, about_c))


def full_cell(shift: float = 0.0) -> str:
    corners = [(0, 0, 0), (0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0)]
    sites = [("Na", corner) for corner in corners] + [("Cl", tuple(x + 0.5 for x in corner)) for corner in corners]
    return "\n".join(f"{e}{i} {e} " + " ".join(f"{x + shift:.4f}" for x in xyz) for i, (e, xyz) in enumerate(sites))


@pytest.mark.parametrize("shift", [0.0, 0.11, 0.25])
def test_a_cell_with_all_sites_listed_stays_as_it_is_beside_the_name_of_its_group(shift):
    """Many programs write P 1 positions and keep the name; the origin may be anywhere."""
    crystal = only(rock_salt(listed(["x,y,z"]) + name("F m -3 m"), full_cell(shift)))
    assert isinstance(crystal, Crystal), str(crystal)
    assert len(crystal) == 8


def test_a_primitive_cell_stays_as_it_is_beside_the_name_of_its_group():
    cell = CUBE.replace("5.64", "3.98808").replace(" 90", " 60")
    crystal = only(rock_salt(listed(["x,y,z"]) + name("F m -3 m"), cell=cell))
    assert isinstance(crystal, Crystal), str(crystal)
    assert len(crystal) == 2


def test_a_distorted_cell_beside_the_name_of_its_ideal_is_refused():
    sites = full_cell().replace("Na0 Na 0.0000", "Na0 Na 0.0300")
    assert "F m -3 m" in refusal(rock_salt(listed(["x,y,z"]) + name("F m -3 m"), sites))


def test_one_missing_atom_of_sixty_is_refused():
    grid = [(x / 3, y / 4, z / 5) for x in range(3) for y in range(4) for z in range(5)]
    sites = [f"C{i} C {x:.5f} {y:.5f} {z:.5f}" for i, (x, y, z) in enumerate(grid)]
    cell = CUBE.replace("5.64", "12")
    declared = "_chemical_formula_sum 'C60'\n_cell_formula_units_Z 1\n"
    assert len(only(rock_salt(declared, "\n".join(sites), cell))) == 60
    assert "its cell has C59, which is not Z = 1 times C60" in refusal(rock_salt(declared, "\n".join(sites[1:]), cell))


@pytest.mark.parametrize(("formula", "z", "read"), [("Na4 Cl4", 4, True), ("Na4 Cl4", 1, True), ("Na Cl", 8, False)])
def test_the_formula_of_the_whole_cell_agrees_with_the_z_of_the_reduced_one(formula, z, read):
    declared = f"_chemical_formula_sum '{formula}'\n_cell_formula_units_Z {z}\n"
    assert isinstance(only(rock_salt(name("F m -3 m") + declared)), Crystal) == read


def test_a_general_position_of_the_old_name_has_192_atoms_and_one_on_a_mirror_plane_96():
    cell = CUBE.replace("5.64", "16")
    assert len(only(rock_salt(name("F m 3 m"), "Na1 Na 0.06 0.16 0.26", cell))) == 192
    assert len(only(rock_salt(name("F m 3 m"), "Na1 Na 0.07 0.31 0.19", cell))) == 96


def test_dummies_are_no_atoms():
    flagged = "Na1 Na 0 0 0 d\nCl1 Cl 0.5 0.5 0.5 calc\nCn1 C 0.25 0.25 0.25 dum"
    text = rock_salt(name("F m -3 m"), flagged)
    crystal = only(text.replace("_atom_site_fract_z\n", "_atom_site_fract_z\n_atom_site_calc_flag\n"))
    assert (crystal.formula, len(crystal)) == ("NaCl", 8)


def test_dummies_are_no_atoms_in_a_block_that_pymatgen_reads():
    flagged = "Na1 Na 0 0 0 d\nCl1 Cl 0.5 0.5 0.5 d\nCn1 C 0.25 0.25 0.25 dum"
    text = rock_salt(name("F m -3 m"), flagged) + "_cell_length_a 5.64\n"  # a repeated tag
    crystal = only(text.replace("_atom_site_fract_z\n", "_atom_site_fract_z\n_atom_site_calc_flag\n"))
    assert (crystal.formula, len(crystal)) == ("NaCl", 8)


@pytest.mark.parametrize("occupancy", ["1.000001", "0.9999", "1.0"])
def test_an_occupancy_of_one_within_rounding_is_a_whole_atom(occupancy):
    text = rock_salt(name("F m -3 m"), f"Na1 Na 0 0 0 {occupancy}\nCl1 Cl 0.5 0.5 0.5 1")
    crystal = only(text.replace("_atom_site_fract_z\n", "_atom_site_fract_z\n_atom_site_occupancy\n"))
    assert (crystal.formula, len(crystal)) == ("NaCl", 8)


def test_an_occupancy_over_one_is_refused():
    text = rock_salt(name("F m -3 m"), "Na1 Na 0 0 0 1.2\nCl1 Cl 0.5 0.5 0.5 1")
    rule = refusal(text.replace("_atom_site_fract_z\n", "_atom_site_fract_z\n_atom_site_occupancy\n"))
    assert "site Na1 has an occupancy of 1.2" in rule


def test_two_atoms_closer_than_their_elements_allow_are_refused():
    sites = "O1 O 0 0 0\nO2 O 0.0917 0 0\nNa1 Na 0.5 0.5 0.5"
    assert "sites 0 (O) and 1 (O) are 0.517 Å apart" in refusal(rock_salt(name("P 1"), sites))


def test_names_in_any_spelling_are_the_groups_of_the_tables():
    """Against gemmi's table: names with underscores and Hall symbols of all settings."""
    for group in gemmi.spacegroup_table_itb():
        alpha, gamma = (90.0, 120.0) if group.ext == "H" else (60.0, 60.0) if group.ext == "R" else (90.0, 90.0)
        for spelled in (group.hm, group.hm.replace(" ", "_")):
            settings = settings_of_name(spelled, alpha, gamma)
            assert {setting.number for setting in settings} == {group.number}, spelled
        assert setting_of_hall(group.hall.replace(" ", "_")).number == group.number, group.hall


def test_operations_in_a_setting_outside_the_tables_are_recognized():
    """A primitive cell of rock salt in axes that no table lists."""
    change = np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    turns = [np.array(gemmi.Op(operation).rot) / gemmi.Op.DEN for operation in FM3M]
    rotations = {tuple((np.linalg.inv(change) @ turn @ change).round().ravel()) for turn in turns}
    axes = "xyz"
    texts = [
        ",".join(
            "".join(f"{'+' if n > 0 else '-'}{axis}" for axis, n in zip(axes, row, strict=True) if n)
            for row in np.array(rotation, int).reshape(3, 3)
        )
        for rotation in sorted(rotations)
    ]
    assert len(texts) == 48
    cell = CUBE.replace("5.64", "3.98808").replace(" 90", " 60")
    crystal = only(rock_salt(listed(texts) + name("F m -3 m"), cell=cell))
    assert isinstance(crystal, Crystal), str(crystal)
    assert len(crystal) == 2
