from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure
from pymatgen.io.cif import CifWriter

from mat2spec.config import GraphConfig
from mat2spec.data.materials.schema import CRYSTAL_SCHEMA, check_schema, read_crystals
from mat2spec.data.materials.structure_files import is_structure_file, read_structure_file, read_structure_files
from mat2spec.errors import StructureError
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.graph import build_graph

CIF_DIGITS = 1e-5
"""[Å] Precision of a distance in a CIF of eight decimals and in a POSCAR."""


ROCK_SALT_CIF = """data_salt
_cell_length_a 5.64
_cell_length_b 5.64
_cell_length_c 5.64
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'F m -3 m'
_symmetry_Int_Tables_number 225
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
Na1 Na 0 0 0
Cl1 Cl 0.5 0.5 0.5
"""


def refusal(file: Path) -> str:
    with pytest.raises(StructureError) as caught:
        read_structure_file(file)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def bonds(crystal: Crystal) -> np.ndarray:
    """Sorted lengths of all edges: the same for any order of sites and any setting of the axes."""
    return np.sort(build_graph(crystal, GraphConfig()).distances)


@pytest.fixture(scope="module")
def disordered() -> Structure:
    lattice = Lattice.cubic(5.64)
    return Structure.from_spacegroup("Fm-3m", lattice, [{"Na": 0.5, "K": 0.5}, "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


@pytest.mark.parametrize("suffix", ["cif", "vasp", "poscar", "json"])
def test_each_format_gives_the_same_crystal(real_crystals, tmp_path, suffix):
    for crystal in real_crystals:
        file = tmp_path / f"{crystal.material_id}.{suffix}"
        crystal.to_structure().to(str(file), fmt="poscar" if suffix in ("vasp", "poscar") else suffix)
        result = read_structure_file(file)
        assert result.material_id == crystal.material_id
        assert result.formula == crystal.formula
        np.testing.assert_allclose(bonds(result), bonds(crystal), atol=CIF_DIGITS)


def test_poscar_and_contcar_are_recognized_without_an_extension(silicon, tmp_path):
    for name in ("POSCAR", "CONTCAR", "POSCAR_silicon"):
        silicon.to_structure().to(str(tmp_path / name), fmt="poscar")
        assert is_structure_file(tmp_path / name)
        assert read_structure_file(tmp_path / name).formula == "Si"


def test_symmetric_cif_is_expanded_to_all_its_sites(tmp_path):
    (tmp_path / "salt.cif").write_text(ROCK_SALT_CIF)
    salt = read_structure_file(tmp_path / "salt.cif")
    assert (len(salt), salt.formula) == (8, "NaCl")


def test_oxidation_states_are_dropped(rock_salt, tmp_path):
    charged = rock_salt.to_structure().add_oxidation_state_by_element({"Na": 1, "Cl": -1})
    charged.to(str(tmp_path / "salt.cif"))
    assert read_structure_file(tmp_path / "salt.cif").elements == ["Cl", "Na"]


def test_disordered_site_is_refused_with_its_occupancies(disordered, tmp_path):
    disordered.to(str(tmp_path / "mixed.cif"))
    message = refusal(tmp_path / "mixed.cif")
    assert message.startswith("mixed: site 0 Na1 ")
    assert "Na" in message
    assert "0.5" in message
    assert "ordered" in message


def test_partly_occupied_site_is_refused(tmp_path):
    vacant = Structure(Lattice.cubic(4.2), [{"Mg": 0.9}, "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    vacant.to(str(tmp_path / "vacant.cif"))
    assert "(Mg:0.9" in refusal(tmp_path / "vacant.cif")


def test_cif_of_several_structures_is_refused_and_counted(silicon, rock_salt, tmp_path):
    file = tmp_path / "two.cif"
    file.write_text("\n".join(str(CifWriter(crystal.to_structure())) for crystal in (silicon, rock_salt)))
    message = refusal(file)
    assert message.startswith("two: two.cif ")
    for fact in ("2 structures", "ingest files"):
        assert fact in message


@pytest.mark.parametrize("name", ["broken.cif", "broken.vasp", "broken.json", "POSCAR"])
@pytest.mark.parametrize(
    "content", ["", "data_\n_cell_length_a what\n", '{"lattice": 1}', "\x00\xff", "1\n2\n3\n4\n5\n6\n7\n8\n"]
)
def test_broken_file_is_refused_by_name(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    assert refusal(tmp_path / name).startswith(f"{Path(name).stem}: ")


def test_unreadable_file_is_refused(tmp_path):
    (tmp_path / "binary.cif").write_bytes(bytes(range(256)))
    assert "binary.cif cannot be read" in refusal(tmp_path / "binary.cif")
    assert "cannot be read" in refusal(tmp_path / "none.cif")


def test_dummy_species_is_refused(silicon, tmp_path):
    dummy = silicon.to_structure()
    dummy.replace(0, "X")
    dummy.to(str(tmp_path / "dummy.json"))
    assert "unknown element" in refusal(tmp_path / "dummy.json")


def test_files_become_rows_of_a_materials_table_or_errors(real_crystals, disordered, tmp_path):
    files = []
    for crystal in real_crystals[:3]:
        files.append(str(tmp_path / f"{crystal.material_id}.vasp"))
        crystal.to_structure().to(files[-1], fmt="poscar")
    disordered.to(str(tmp_path / "mixed.cif"))
    files.insert(1, str(tmp_path / "mixed.cif"))
    table, errors = read_structure_files(files)
    assert table.schema == CRYSTAL_SCHEMA
    check_schema(table.schema, "files")
    assert table["material_id"].to_pylist() == [Path(file).stem for file in files]
    assert list(errors) == [1]
    assert "disordered" in str(errors[1])
    rows = list(read_crystals(table))
    assert isinstance(rows.pop(1), StructureError)
    for crystal, expected in zip(rows, real_crystals, strict=False):
        np.testing.assert_allclose(bonds(crystal), bonds(expected), atol=CIF_DIGITS)
        assert crystal.formula == expected.formula


def test_no_files_give_an_empty_table():
    table, errors = read_structure_files([])
    assert (table.schema, len(table), errors) == (CRYSTAL_SCHEMA, 0, {})


@pytest.mark.parametrize(
    ("name", "known"), [("a.CIF", True), ("a.cif", True), ("notes.txt", False), ("a.parquet", False), ("a.md", False)]
)
def test_structure_files_are_recognized_by_name(name, known):
    assert is_structure_file(Path(name)) == known
