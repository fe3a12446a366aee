"""The VASP engine: inputs for the user to run, and a finished calculation (MgB2) that is read back."""

import gzip
import shutil
from copy import copy
from pathlib import Path

import ase.test
import numpy as np
import pytest
from pymatgen.io.vasp import Incar, Kpoints, Poscar, Vasprun

from mat2spec.dft.engine import Limits, PendingError
from mat2spec.dft.vasp_engine import Vasp, read_result
from mat2spec.dos.electronic import resample_pymatgen
from mat2spec.dos.grid import EDOS_GRID
from mat2spec.errors import CalculationError
from mat2spec.structure.crystal import Crystal

FINISHED = Path(__file__).parents[1] / "data" / "vasprun-MgB2.xml.gz"
ASE_FILES = Path(ase.test.__file__).parent / "testdata" / "vasp"
LIMITS = Limits(4.0, 60.0)


@pytest.fixture(scope="module")
def computed() -> Vasprun:
    return Vasprun(str(FINISHED), parse_potcar_file=False)


@pytest.fixture(scope="module")
def boride(computed) -> Crystal:
    return Crystal.from_structure(computed.final_structure, "boride")


def write_inputs(crystal: Crystal, folder: Path) -> Path:
    with pytest.raises(PendingError) as pending:
        Vasp(folder).calculate(crystal, LIMITS)
    return Path(str(pending.value))


def test_inputs_are_those_of_the_materials_project(silicon, tmp_path):
    folder = write_inputs(silicon, tmp_path)
    static, bands = (Incar.from_file(folder / name / "INCAR") for name in ("static", "dos"))
    assert (static["NSW"], static["ISMEAR"]) == (0, -5)
    assert (bands["ICHARG"], bands["ISMEAR"]) == (11, -5)
    meshes = [np.prod(Kpoints.from_file(folder / name / "KPOINTS").kpts[0]) for name in ("static", "dos")]
    assert meshes[1] >= meshes[0]
    assert Crystal.from_structure(Poscar.from_file(folder / "dos" / "POSCAR").structure, "silicon").formula == "Si"
    assert not list(tmp_path.rglob("POTCAR")), "potentials are the user's"


def test_inputs_that_the_user_has_edited_are_not_overwritten(silicon, tmp_path):
    incar = write_inputs(silicon, tmp_path) / "dos" / "INCAR"
    incar.write_text("ALGO = All\n")
    write_inputs(silicon, tmp_path)
    assert incar.read_text() == "ALGO = All\n"


def test_crystals_with_the_same_id_have_separate_folders(silicon, boride, tmp_path):
    renamed = Crystal("silicon", boride.atomic_numbers, boride.lattice, boride.frac_coords)
    assert write_inputs(silicon, tmp_path) != write_inputs(renamed, tmp_path)


def test_id_of_a_material_cannot_lead_out_of_the_folder(silicon, tmp_path):
    odd = Crystal("../../a b/c", silicon.atomic_numbers, silicon.lattice, silicon.frac_coords)
    assert write_inputs(odd, tmp_path).parent == tmp_path


@pytest.mark.parametrize("own", [False, True])
def test_finished_calculation_is_read_back(boride, computed, tmp_path, own):
    folder = tmp_path / "boride" if own else write_inputs(boride, tmp_path) / "dos"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(FINISHED, folder / "vasprun.xml.gz")
    result = Vasp(tmp_path).calculate(boride, LIMITS)
    expected = resample_pymatgen("boride", computed.tdos).spectrum
    np.testing.assert_allclose(result.on_grid(EDOS_GRID), expected, rtol=1e-5)
    assert result.numbers["efermi"] == computed.efermi
    assert (result.level, result.engine, result.settings["ISPIN"]) == ("dft", "vasp 5.3.5", 2)


def test_result_in_a_supercell_is_scaled_to_the_primitive_cell(computed, boride, monkeypatch):
    """As if VASP had computed two cells, with twice the states and energy."""
    run = copy(computed)
    run.final_structure = computed.final_structure * (1, 1, 2)
    monkeypatch.setattr("mat2spec.dft.vasp_engine.parse_vasprun", lambda name, file: run)
    result = read_result(boride, FINISHED, {})
    assert result.numbers["total_energy"] == pytest.approx(float(computed.final_energy) / 2)
    np.testing.assert_allclose(result.densities, computed.tdos.get_densities() / 2)


def test_result_for_another_crystal_is_refused(silicon, boride):
    with pytest.raises(CalculationError, match=r"MgB2, not Si"):
        read_result(silicon, FINISHED, {})
    stretched = Crystal("boride", boride.atomic_numbers, boride.lattice * 1.5, boride.frac_coords)
    with pytest.raises(CalculationError, match=r"another structure of MgB2"):
        read_result(stretched, FINISHED, {})


def test_calculation_that_did_not_converge_or_is_cut_off_is_refused(boride, tmp_path):
    text = gzip.decompress(FINISHED.read_bytes())
    whole = tmp_path / "vasprun.xml"
    half = tmp_path / "half.xml"
    half.write_bytes(text[: len(text) // 3])
    with pytest.raises(CalculationError, match=r"half.xml cannot be read") as refused:
        read_result(boride, half, {})
    assert "\n" not in str(refused.value)
    whole.write_bytes(text.replace(b'name="NELM">   100', b'name="NELM">     2'))
    with pytest.raises(CalculationError, match=r"converge.*ALGO = All"):
        read_result(boride, whole, {})


@pytest.mark.parametrize("name", ["vasprun_dfpt.xml", "vasprun_pstress.xml"])
def test_other_kinds_of_vasp_calculations_are_refused(boride, name):
    """Two that ship with ASE: one cut short for its tests, one of another crystal."""
    with pytest.raises(CalculationError):
        read_result(boride, ASE_FILES / name, {})
