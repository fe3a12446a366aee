"""GPAW as an engine: what is asked of it, and what it refuses. A stand-in answers; GPAW itself is in test_gpaw_physics.py."""

import ast
from pathlib import Path

import numpy as np
import pytest

from mat2spec import dft
from mat2spec.config import GpawConfig
from mat2spec.dft.engine import Limits, calculation_key, check_size
from mat2spec.dft.gpaw_engine import SAFER, Gpaw, setups
from mat2spec.dft.gpaw_program import band_edges, k_mesh
from mat2spec.dos.edge_gaps import ValenceBandRule, vb_gaps
from mat2spec.dos.grid import EDOS_GRID
from mat2spec.errors import CalculationError, ConfigError
from mat2spec.structure.crystal import Crystal

LIMITS = Limits(4.0, 60.0)


def of_elements(crystal: Crystal, *numbers: int) -> Crystal:
    return Crystal("other", np.array(numbers, np.uint8), crystal.lattice, crystal.frac_coords)


def test_curve_becomes_a_spectrum_on_the_grid(fake_gpaw, silicon):
    found = Gpaw(GpawConfig()).calculate(silicon, LIMITS)
    spectrum = found.on_grid(EDOS_GRID)
    assert vb_gaps(spectrum[None], EDOS_GRID, ValenceBandRule())[0] == pytest.approx([-2.0, -0.5, 1.5], abs=0.0626)
    assert spectrum[-1] == pytest.approx(3.0)
    assert (found.engine, found.level, found.cpu_seconds) == ("gpaw 0", "dft", 1.5)
    assert len(fake_gpaw.asked) == 1


def test_second_attempt_is_with_safer_settings_and_says_so(fake_gpaw, silicon):
    engine = Gpaw(GpawConfig())
    engine.calculate(silicon, LIMITS)
    found = engine.calculate(silicon, LIMITS, safer=True)
    first, second = fake_gpaw.asked
    assert {name: second[name] for name in SAFER} == SAFER != {name: first[name] for name in SAFER}
    assert second["max_iterations"] == 3 * first["max_iterations"]
    assert found.settings["mixer_beta"] == SAFER["mixer_beta"], "what is kept says how it was computed"


def test_element_without_a_setup_is_refused(fake_gpaw, silicon, monkeypatch):
    monkeypatch.setattr("mat2spec.dft.gpaw_engine.setups", lambda: frozenset({"Na"}))
    with pytest.raises(CalculationError, match="silicon: no PAW setup for Si; leave it out"):
        Gpaw(GpawConfig()).check_crystal(silicon)


@pytest.mark.parametrize(("number", "symbol"), [(26, "Fe"), (28, "Ni"), (64, "Gd"), (92, "U")])
def test_open_shells_are_refused_unless_the_user_knows_better(fake_gpaw, silicon, monkeypatch, number, symbol):
    monkeypatch.setattr("mat2spec.dft.gpaw_engine.setups", lambda: frozenset({"Si", symbol}))
    crystal = of_elements(silicon, 14, number)
    with pytest.raises(
        CalculationError, match=f"other: {symbol}: PBE without spin does not describe .*say --without-spin"
    ):
        Gpaw(GpawConfig()).check_crystal(crystal)
    Gpaw(GpawConfig(without_spin=True)).check_crystal(crystal)
    assert Gpaw(GpawConfig()).settings(crystal) == Gpaw(GpawConfig(without_spin=True)).settings(crystal), (
        "the calculation is the same"
    )


@pytest.mark.parametrize("number", [21, 23, 29, 30, 57, 71])
def test_shells_that_are_empty_full_or_itinerant_are_not(fake_gpaw, silicon, monkeypatch, number):
    monkeypatch.setattr("mat2spec.dft.gpaw_engine.setups", lambda: frozenset({"Si", "Sc", "V", "Cu", "Zn", "La", "Lu"}))
    Gpaw(GpawConfig()).check_crystal(of_elements(silicon, 14, number))


def test_setups_are_those_of_all_folders_and_default_ones_only(fake_gpaw):
    (fake_gpaw.setups / "Xx.PBE.gz").touch()
    (fake_gpaw.setups / "Yy.11.PBE.gz").touch()
    assert "Xx" in setups()
    assert "Yy" not in setups()


def test_engine_that_is_not_installed_says_how_to_get_it(monkeypatch):
    monkeypatch.setenv("MAT2SPEC_GPAW_PYTHON", "/nowhere/python")
    with pytest.raises(ConfigError, match=r"engine gpaw: /nowhere/python cannot be run.*make dft"):
        Gpaw(GpawConfig()).check()


def test_engine_without_setups_says_how_to_get_them(fake_gpaw, monkeypatch):
    monkeypatch.setattr("mat2spec.dft.gpaw_engine.setups", frozenset)
    with pytest.raises(ConfigError, match=r"no PAW setups found; .*make dft"):
        Gpaw(GpawConfig()).check()


def test_large_cell_is_refused_with_the_limit(silicon):
    with pytest.raises(
        CalculationError, match="silicon: the primitive cell has 2 sites, more than 1; raise --max-sites"
    ):
        check_size(silicon, 1, 400.0)
    with pytest.raises(
        CalculationError, match="silicon: the primitive cell has 40 Å³, more than 30; raise --max-volume"
    ):
        check_size(silicon, 2, 30.0)
    check_size(silicon, 2, 41.0)


def test_cutoff_is_higher_with_hard_anions(silicon):
    chosen = [
        Gpaw(GpawConfig()).settings(of_elements(silicon, *numbers))["cutoff_ev"] for numbers in ((12, 8), (12, 16))
    ]
    assert chosen == [450.0, 350.0]
    assert Gpaw(GpawConfig(cutoff_ev=500)).settings(silicon)["cutoff_ev"] == 500


def test_key_is_that_of_crystal_and_settings_not_of_the_name(silicon):
    settings = Gpaw(GpawConfig()).settings(silicon)
    renamed = Crystal("another", silicon.atomic_numbers, silicon.lattice, silicon.frac_coords)
    assert calculation_key(silicon, settings) == calculation_key(renamed, settings)
    assert calculation_key(silicon, settings) != calculation_key(silicon, settings | {"kppra_dos": 3000.0})


def test_programs_import_nothing_of_ours():
    """Another Python runs them."""
    for name in ("process_main", "gpaw_program"):
        nodes = list(ast.walk(ast.parse(Path(dft.__file__).with_name(f"{name}.py").read_text())))
        modules = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
        modules |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        assert not {module for module in modules if module.startswith("mat2spec")}


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
