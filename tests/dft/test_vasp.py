"""VASP as an engine: inputs for somebody else to run, and a calculation that somebody has run (MgB2), read back."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from pymatgen.io.vasp import Incar, Vasprun

from mat2spec.crystal import Crystal
from mat2spec.dft.calculation import Limits, PendingError
from mat2spec.dft.vasp import Vasp, read_result
from mat2spec.errors import CalculationError

FINISHED = Path(__file__).parents[1] / "data" / "vasprun-MgB2.xml.gz"
LIMITS = Limits(4.0, 60.0)


@pytest.fixture(scope="module")
def computed() -> Vasprun:
    return Vasprun(str(FINISHED), parse_potcar_file=False)


@pytest.fixture(scope="module")
def boride(computed) -> Crystal:
    structure = computed.final_structure
    numbers = np.array(structure.atomic_numbers, np.uint8)
    return Crystal("boride", numbers, np.array(structure.lattice.matrix), np.array(structure.frac_coords))


def test_inputs_are_written_and_wait(silicon, tmp_path):
    with pytest.raises(PendingError, match="silicon"):
        Vasp(tmp_path).calculate(silicon, LIMITS, tmp_path)
    static, bands = (Incar.from_file(tmp_path / "silicon" / name / "INCAR") for name in ("static", "dos"))
    assert static["NSW"] == 0
    assert bands["ICHARG"] == 11
    assert not list(tmp_path.rglob("POTCAR"))


def test_finished_calculation_is_read_back(boride, computed, tmp_path):
    folder = tmp_path / "boride" / "dos"
    folder.mkdir(parents=True)
    shutil.copy(FINISHED, folder / "vasprun.xml.gz")
    found = Vasp(tmp_path).calculate(boride, LIMITS, tmp_path)
    np.testing.assert_allclose(found.densities, computed.tdos.get_densities())
    assert found.numbers["efermi"] == computed.efermi
    assert found.level == "dft"


def test_calculation_of_another_crystal_or_half_written_is_refused(silicon, tmp_path):
    with pytest.raises(CalculationError, match=r"is of MgB2, not Si"):
        read_result(silicon, FINISHED, {})
    half = tmp_path / "vasprun.xml"
    half.write_text("<modeling><generator>")
    with pytest.raises(CalculationError, match="cannot be read"):
        read_result(silicon, half, {})
