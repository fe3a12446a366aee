"""Phonons by phonopy, with EMT (which supports copper) as an ASE calculator, and as a stand-in for GPAW's forces."""

import stat
import sys

import numpy as np
import pytest

from mat2spec.config import GpawConfig, PhononConfig
from mat2spec.dft.engine import AttemptError, Limits, calculation_key
from mat2spec.dft.forces import AseForces, GpawForces
from mat2spec.dft.phonopy_engine import Phonons
from mat2spec.dos.grid import PHDOS_GRID
from mat2spec.errors import CalculationError, ConfigError, SpectrumError
from mat2spec.structure.crystal import Crystal

EMT = "ase.calculators.emt:EMT"
LIMITS = Limits(4.0, 120.0)
SMALL = PhononConfig(supercell_length=7.0, q_length=40.0)

COPPER_TOP = (200.0, 300.0)
"""[cm⁻¹] Highest phonon of copper, about 240 by neutron scattering (Svensson et al., 10.1103/PhysRev.155.619).

EMT may be off by a fifth.
"""


def fcc(name: str, number: int, a: float) -> Crystal:
    lattice = a * np.array([[0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]])
    return Crystal(name, np.array([number], np.uint8), lattice, np.zeros((1, 3)))


@pytest.fixture(scope="module")
def copper():
    return Phonons(AseForces(EMT), SMALL).calculate(fcc("copper", 29, 3.61), LIMITS)


def test_curve_has_three_modes_per_atom(copper):
    assert np.trapezoid(copper.densities, copper.axis) == pytest.approx(3, rel=5e-3)
    assert COPPER_TOP[0] < copper.numbers["max_frequency"] < COPPER_TOP[1]
    assert copper.numbers["min_frequency"] == pytest.approx(0, abs=1.0), "acoustic modes at Γ"


def test_spectrum_on_the_grid_is_normalized_as_predictions_are(copper):
    spectrum = copper.on_grid(PHDOS_GRID)
    assert PHDOS_GRID.integrate(spectrum[None])[0] == pytest.approx(3, rel=1e-5)
    assert (spectrum >= 0).all()
    assert spectrum[PHDOS_GRID.points > 350].max() < 1e-6


def test_calculation_records_its_level_engine_and_supercell(copper):
    assert copper.level == "surrogate"
    assert copper.engine.startswith("phonopy 4.")
    assert EMT in copper.engine
    assert copper.settings["supercell"] == [3, 3, 3]


def test_unstable_crystal_is_refused():
    """Copper stretched by a fifth has modes that pull it apart."""
    stretched = Phonons(AseForces(EMT), SMALL).calculate(fcc("stretched", 29, 4.4), LIMITS)
    assert stretched.numbers["min_frequency"] < -15
    with pytest.raises(SpectrumError, match=r"stretched: .* -15 cm⁻¹"):
        stretched.on_grid(PHDOS_GRID)


def test_element_that_a_calculator_does_not_support_is_a_failed_attempt():
    with pytest.raises(AttemptError, match="NotImplementedError: No EMT-potential for W"):
        Phonons(AseForces(EMT), SMALL).calculate(fcc("tungsten", 74, 4.0), LIMITS)


@pytest.mark.parametrize(
    ("calculator", "fact"),
    [
        ("", "module:name"),
        ("ase.calculators.emt", "module:name"),
        ("nosuch.thing:Calculator", "module nosuch.thing .*pip install"),
        ("ase.nosuch:Calculator", "module ase.nosuch"),
    ],
)
def test_calculator_that_is_not_installed_is_refused(calculator, fact):
    with pytest.raises(ConfigError, match=f"engine phonopy:{calculator}: .*{fact}"):
        Phonons(AseForces(calculator), SMALL).check()


def test_version_of_the_calculator_is_part_of_the_key(monkeypatch):
    engine, crystal = Phonons(AseForces(EMT), SMALL), fcc("copper", 29, 3.61)
    before = engine.settings(crystal)
    assert before["calculator_version"] != "unknown"
    monkeypatch.setattr("mat2spec.dft.forces.version", lambda name: "0.1")
    assert calculation_key(crystal, before) != calculation_key(crystal, engine.settings(crystal))


GPAW_THAT_IS_EMT = """
import os

from ase.calculators.emt import EMT

__version__ = "0"

def PW(cutoff): return cutoff
FermiDirac = Mixer = Davidson = lambda *settings: settings

def GPAW(*, mode, kpts, maxiter, txt, **settings):
    with open({asked!r}, "a") as file:
        file.write(f"{{mode}} {{kpts['size']}} {{maxiter}}\\n")
    if maxiter < 2:
        os.kill(os.getpid(), 9)
    if maxiter < 10:
        raise RuntimeError("did not converge")
    return EMT()
"""


@pytest.fixture
def gpaw_that_is_emt(tmp_path, monkeypatch):
    """The log of requests to another Python, in which a package called gpaw computes the forces of EMT."""
    package = tmp_path / "gpaw"
    python = tmp_path / "python"
    asked = tmp_path / "asked"
    package.mkdir()
    (package / "__init__.py").write_text(GPAW_THAT_IS_EMT.format(asked=str(asked)))
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path} exec {sys.executable} "$@"\n')
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "Cu.PBE.gz").touch()
    monkeypatch.setenv("MAT2SPEC_GPAW_PYTHON", str(python))
    monkeypatch.setenv("GPAW_SETUP_PATH", str(tmp_path))
    return asked


def test_forces_of_another_python_give_the_same_spectrum(copper, gpaw_that_is_emt):
    engine, crystal = Phonons(GpawForces(GpawConfig()), SMALL), fcc("copper", 29, 3.61)
    engine.check()
    engine.check_crystal(crystal)
    by_program = engine.calculate(crystal, LIMITS)
    np.testing.assert_allclose(by_program.densities, copper.densities, atol=1e-9)
    assert by_program.numbers == pytest.approx(dict(copper.numbers))
    assert (by_program.level, copper.level) == ("dft", "surrogate")
    assert by_program.engine.endswith(" gpaw")
    assert "command" not in by_program.settings, "paths of this machine are not settings"
    assert gpaw_that_is_emt.read_text().splitlines() == ["350.0 [3, 3, 3] 100", "350.0 [8, 8, 8] 100"], (
        "a supercell of 27 atoms, and one"
    )


def test_second_attempt_at_forces_is_safer(gpaw_that_is_emt):
    engine, crystal = Phonons(GpawForces(GpawConfig(max_iterations=5)), SMALL), fcc("copper", 29, 3.61)
    with pytest.raises(AttemptError, match="RuntimeError: did not converge"):
        engine.calculate(crystal, LIMITS)
    assert engine.calculate(crystal, LIMITS, safer=True).settings["max_iterations"] == 15


def test_forces_whose_process_dies_are_a_failed_attempt_with_its_signal(gpaw_that_is_emt):
    with pytest.raises(AttemptError, match=r"RuntimeError: .*\(signal 9\)"):
        Phonons(GpawForces(GpawConfig(max_iterations=1)), SMALL).calculate(fcc("copper", 29, 3.61), LIMITS)


def test_phonons_by_gpaw_refuse_elements_that_need_spin(gpaw_that_is_emt):
    (gpaw_that_is_emt.parent / "Fe.PBE.gz").touch()
    with pytest.raises(CalculationError, match=r"iron: Fe: .*--gpaw\.without-spin"):
        Phonons(GpawForces(GpawConfig()), SMALL).check_crystal(fcc("iron", 26, 3.5))
