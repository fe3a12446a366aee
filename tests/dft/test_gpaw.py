"""GPAW as an engine: what is asked of it, what its failures become. A stand-in answers; GPAW itself is in test_gpaw_physics.py."""

from pathlib import Path

import numpy as np
import pytest

from mat2spec.config import GpawConfig
from mat2spec.crystal import Crystal
from mat2spec.dft.calculation import Limits, key_of, refuse_large
from mat2spec.dft.gpaw import SAFER, Gpaw
from mat2spec.dft.gpaw_process import band_edges, k_mesh
from mat2spec.errors import CalculationError, ConfigError
from mat2spec.gaps import ValenceBandRule, vb_gaps
from mat2spec.spectrum import EDOS_GRID

LIMITS = Limits(4.0, 60.0)


def calculate(crystal: Crystal, limits: Limits = LIMITS):
    return Gpaw(GpawConfig()).calculate(crystal, limits, Path())


def test_curve_becomes_a_spectrum_on_the_grid(fake_gpaw, silicon):
    found = calculate(silicon)
    spectrum = found.on(EDOS_GRID)
    assert vb_gaps(spectrum[None], EDOS_GRID, ValenceBandRule())[0] == pytest.approx([-2.0, -0.5, 1.5], abs=0.0626)
    assert spectrum[-1] == pytest.approx(3.0)
    assert (found.engine, found.level, found.cpu_seconds) == ("gpaw 0.0", "dft", 1.5)
    assert len(fake_gpaw.asked) == 1


@pytest.mark.parametrize("failure", ["crash", "unconverged"])
def test_second_attempt_is_with_safer_settings(fake_gpaw, silicon, failure):
    fake_gpaw.does({"silicon": [failure, "answer"]})
    found = calculate(silicon)
    first, second = fake_gpaw.asked
    assert {name: second[name] for name in SAFER} == SAFER != {name: first[name] for name in SAFER}
    assert second["max_iterations"] == 3 * first["max_iterations"]
    assert found.settings["mixer_beta"] == SAFER["mixer_beta"], "what is kept says how it was computed"


def test_crystal_that_never_converges_is_refused_after_two_attempts(fake_gpaw, silicon):
    fake_gpaw.does({"silicon": ["unconverged"]})
    with pytest.raises(CalculationError, match=r"^silicon: gpaw: Kohn.*Did not converge!; again with safer settings: Kohn.*!$"):
        calculate(silicon)
    assert len(fake_gpaw.asked) == 2


def test_time_that_runs_out_is_said_with_the_way_out(fake_gpaw, silicon):
    fake_gpaw.does({"silicon": ["hang"]})
    with pytest.raises(CalculationError, match="no answer within 1 s; raise --time_limit"):
        calculate(silicon, Limits(4.0, 1.0))


def test_element_without_a_setup_is_refused_before_anything_is_computed(fake_gpaw, silicon, monkeypatch):
    monkeypatch.setattr("mat2spec.dft.gpaw.setups", lambda: frozenset({"Na"}))
    with pytest.raises(CalculationError, match="silicon: no PAW setup for Si; leave it out"):
        calculate(silicon)
    assert not fake_gpaw.asked


def test_engine_that_is_not_installed_says_how_to_get_it(monkeypatch):
    monkeypatch.setenv("MAT2SPEC_GPAW_PYTHON", "/nowhere/python")
    with pytest.raises(ConfigError, match=r"engine gpaw: /nowhere/python cannot be run.*make dft"):
        Gpaw(GpawConfig()).check()


def test_large_cell_is_refused_with_the_limit(silicon):
    with pytest.raises(CalculationError, match="silicon: the primitive cell has 2 sites, more than 1; raise --max_sites"):
        refuse_large(silicon, 1)


def test_cutoff_is_higher_with_hard_anions(rock_salt, silicon):
    oxide = Crystal("oxide", np.array([12, 8], np.uint8), rock_salt.lattice, rock_salt.frac_coords)
    chosen = {crystal.material_id: Gpaw(GpawConfig()).settings(crystal)["cutoff_ev"] for crystal in (oxide, silicon)}
    assert chosen == {"oxide": 450.0, "silicon": 350.0}
    assert Gpaw(GpawConfig(cutoff_ev=500)).settings(silicon)["cutoff_ev"] == 500


def test_key_is_that_of_crystal_and_settings_not_of_the_name(silicon):
    settings = Gpaw(GpawConfig()).settings(silicon)
    renamed = Crystal("another", silicon.atomic_numbers, silicon.lattice, silicon.frac_coords)
    assert key_of(silicon, settings) == key_of(renamed, settings)
    assert key_of(silicon, settings) != key_of(silicon, settings | {"kppra_dos": 3000})


def test_mesh_is_as_even_as_whole_numbers_allow(silicon):
    assert k_mesh(silicon.lattice, 2, 1400.0, even=False) == [9, 9, 9]
    assert k_mesh(silicon.lattice, 2, 1400.0, even=True) == [8, 8, 8]
    assert k_mesh(np.diag([4.0, 4.0, 12.0]), 6, 1400.0, even=False) == [9, 9, 3]


def test_fermi_level_of_a_metal_holds_the_electrons():
    rng = np.random.default_rng(0)
    eigenvalues, weights = np.sort(rng.uniform(-5, 5, (40, 6)), axis=1), np.full(40, 1 / 40)
    fermi, vbm, cbm = band_edges(eigenvalues, weights, 5, 0.1)
    assert fermi == vbm == cbm
    filled = 2 * (weights @ (1 / (1 + np.exp((eigenvalues - fermi) / 0.1)))).sum()
    assert filled == pytest.approx(5, abs=1e-6)


def test_gap_below_a_twentieth_of_an_electronvolt_is_a_metal():
    weights = np.array([1.0])
    assert band_edges(np.array([[0.0, 1.0]]), weights, 2, 0.1) == (0.5, 0.0, 1.0)
    fermi, vbm, cbm = band_edges(np.array([[0.0, 0.04]]), weights, 2, 0.1)
    assert fermi == vbm == cbm
