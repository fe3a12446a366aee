"""The GPAW engine: its requests and refusals, with a stand-in. GPAW itself is tested in test_gpaw_physics.py."""

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
from mat2spec.dos.electronic import METAL_GAP
from mat2spec.dos.grid import EDOS_GRID
from mat2spec.errors import CalculationError, ConfigError
from mat2spec.structure.crystal import Crystal

LIMITS = Limits(4.0, 60.0)


def with_elements(crystal: Crystal, *numbers: int) -> Crystal:
    return Crystal("other", np.array(numbers, np.uint8), crystal.lattice, crystal.frac_coords)


def test_curve_becomes_a_spectrum_on_the_grid(fake_gpaw, silicon):
    calculation = Gpaw(GpawConfig()).calculate(silicon, LIMITS)
    spectrum = calculation.on_grid(EDOS_GRID)
    assert vb_gaps(spectrum[None], EDOS_GRID, ValenceBandRule())[0] == pytest.approx([-2.0, -0.5, 1.5], abs=0.0626)
    assert spectrum[-1] == pytest.approx(3.0)
    assert (calculation.engine, calculation.level, calculation.cpu_seconds) == ("gpaw 0", "dft", 1.5)
    assert len(fake_gpaw.requests) == 1


def test_second_attempt_uses_safer_settings_and_records_them(fake_gpaw, silicon):
    engine = Gpaw(GpawConfig())
    engine.calculate(silicon, LIMITS)
    second_attempt = engine.calculate(silicon, LIMITS, safer=True)
    first, second = fake_gpaw.requests
    assert {name: second[name] for name in SAFER} == SAFER != {name: first[name] for name in SAFER}
    assert second["max_iterations"] == 3 * first["max_iterations"]
    assert second_attempt.settings["mixer_beta"] == SAFER["mixer_beta"]


def test_element_without_a_setup_is_refused(fake_gpaw, silicon, monkeypatch):
    monkeypatch.setattr("mat2spec.dft.gpaw_engine.setups", lambda: frozenset({"Na"}))
    with pytest.raises(CalculationError, match="silicon: no PAW setup for Si"):
        Gpaw(GpawConfig()).check_crystal(silicon)


@pytest.mark.parametrize(("number", "symbol"), [(26, "Fe"), (28, "Ni"), (64, "Gd"), (92, "U")])
def test_open_shells_are_refused_unless_spin_is_ignored_on_request(fake_gpaw, silicon, monkeypatch, number, symbol):
    monkeypatch.setattr("mat2spec.dft.gpaw_engine.setups", lambda: frozenset({"Si", symbol}))
    crystal = with_elements(silicon, 14, number)
    with pytest.raises(CalculationError, match=rf"other: {symbol}: .*--gpaw\.without-spin"):
        Gpaw(GpawConfig()).check_crystal(crystal)
    Gpaw(GpawConfig(without_spin=True)).check_crystal(crystal)
    assert Gpaw(GpawConfig()).settings(crystal) == Gpaw(GpawConfig(without_spin=True)).settings(crystal), (
        "the calculation is the same"
    )


@pytest.mark.parametrize("number", [21, 23, 29, 30, 57, 71])
def test_shells_that_are_empty_full_or_itinerant_are_not_refused(fake_gpaw, silicon, monkeypatch, number):
    monkeypatch.setattr("mat2spec.dft.gpaw_engine.setups", lambda: frozenset({"Si", "Sc", "V", "Cu", "Zn", "La", "Lu"}))
    Gpaw(GpawConfig()).check_crystal(with_elements(silicon, 14, number))


def test_setups_are_the_default_ones_of_all_folders(fake_gpaw):
    (fake_gpaw.setups / "Xx.PBE.gz").touch()
    (fake_gpaw.setups / "Yy.11.PBE.gz").touch()
    assert "Xx" in setups()
    assert "Yy" not in setups()


def test_engine_that_is_not_installed_is_refused_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setenv("MAT2SPEC_GPAW_PYTHON", "/nowhere/python")
    with pytest.raises(ConfigError, match=r"engine gpaw: /nowhere/python .*make dft"):
        Gpaw(GpawConfig()).check()


def test_engine_without_setups_is_refused_with_the_command_that_installs_them(fake_gpaw, monkeypatch):
    monkeypatch.setattr("mat2spec.dft.gpaw_engine.setups", frozenset)
    with pytest.raises(ConfigError, match=r"PAW setups.*make dft"):
        Gpaw(GpawConfig()).check()


def test_large_cell_is_refused_with_the_limit(silicon):
    with pytest.raises(CalculationError, match=r"silicon: .* 2 sites, .* 1; .*--limits.max-sites"):
        check_size(silicon, 1, 400.0)
    with pytest.raises(CalculationError, match=r"silicon: .* 40 Å³, .* 30; .*--limits.max-volume"):
        check_size(silicon, 2, 30.0)
    check_size(silicon, 2, 41.0)


def test_cutoff_is_higher_with_hard_anions(silicon):
    cutoffs = [
        Gpaw(GpawConfig()).settings(with_elements(silicon, *numbers))["cutoff_ev"] for numbers in ((12, 8), (12, 16))
    ]
    assert cutoffs == [450.0, 350.0]
    assert Gpaw(GpawConfig(cutoff_ev=500)).settings(silicon)["cutoff_ev"] == 500


def test_key_depends_on_crystal_and_settings_and_not_on_the_id(silicon):
    settings = Gpaw(GpawConfig()).settings(silicon)
    renamed = Crystal("another", silicon.atomic_numbers, silicon.lattice, silicon.frac_coords)
    assert calculation_key(silicon, settings) == calculation_key(renamed, settings)
    assert calculation_key(silicon, settings) != calculation_key(silicon, settings | {"kppra_dos": 3000.0})


def test_programs_import_nothing_of_mat2spec():
    """They run under another Python."""
    for name in ("process_main", "gpaw_program", "phonopy_program"):
        nodes = list(ast.walk(ast.parse(Path(dft.__file__).with_name(f"{name}.py").read_text())))
        modules = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
        modules |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        assert not {module for module in modules if module.startswith("mat2spec")}


def test_mesh_is_as_evenly_spaced_as_integers_allow(silicon):
    assert k_mesh(silicon.lattice, 2, 1400.0, even=False) == [9, 9, 9]
    assert k_mesh(silicon.lattice, 2, 1400.0, even=True) == [8, 8, 8]
    assert k_mesh(np.diag([4.0, 4.0, 12.0]), 6, 1400.0, even=False) == [9, 9, 3]


def test_bands_below_the_fermi_level_of_a_metal_hold_all_electrons():
    rng = np.random.default_rng(0)
    eigenvalues, weights = np.sort(rng.uniform(-5, 5, (40, 6)), axis=1), np.full(40, 1 / 40)
    fermi, vbm, cbm = band_edges(eigenvalues, weights, 5, 0.1, METAL_GAP)
    assert fermi == vbm == cbm
    filled = 2 * (weights @ (1 / (1 + np.exp((eigenvalues - fermi) / 0.1)))).sum()
    assert filled == pytest.approx(5, abs=1e-6)


def test_gap_narrower_than_a_bin_of_the_grid_is_a_metal():
    weights = np.array([1.0])
    assert EDOS_GRID.widths[0] == METAL_GAP
    assert band_edges(np.array([[0.0, 1.0]]), weights, 2, 0.1, METAL_GAP) == (0.5, 0.0, 1.0)
    for gap, is_metal in ((0.06, True), (0.0625, False)):
        fermi, vbm, cbm = band_edges(np.array([[0.0, gap]]), weights, 2, 0.1, METAL_GAP)
        assert (fermi == vbm == cbm) == is_metal, gap


def test_threshold_of_metals_is_requested_from_gpaw_but_is_not_part_of_the_key(fake_gpaw, silicon):
    engine = Gpaw(GpawConfig())
    calculation = engine.calculate(silicon, LIMITS)
    assert fake_gpaw.requests[0]["metal_gap"] == METAL_GAP
    assert "metal_gap" not in calculation.settings
    assert "metal_gap" not in engine.settings(silicon)
