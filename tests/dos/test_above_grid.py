"""Modes above the grid count in every derived number, whatever their share."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.constants import N_A, R, c, h, k

from mat2spec.dft.engine import Calculation
from mat2spec.dos.above_grid import SHARE_OF_TAIL, ModesAboveGrid
from mat2spec.dos.descriptors import phonon_columns
from mat2spec.dos.grid import PHDOS_GRID
from mat2spec.dos.phonon import resample_phonons
from mat2spec.dos.thermodynamics import heat_capacity, mean_frequency, vibrational_entropy, vibrational_free_energy
from mat2spec.structure.crystal import Crystal

QUANTITIES = (mean_frequency, heat_capacity, vibrational_entropy, vibrational_free_energy)

FINE = np.arange(0.0, 4001.0)

HYDROXIDE = np.exp(-0.5 * ((FINE - 400) / 60) ** 2) + np.exp(-0.5 * ((FINE - 3600) / 60) ** 2) / 6.5
"""A spectrum of which 2 of 15 modes lie at 3600 cm⁻¹."""


def spectrum_at(*frequencies: int) -> np.ndarray:
    spectrum = np.zeros((1, 51))
    spectrum[0, [frequency // 20 for frequency in frequencies]] = 1.0
    return spectrum


def some_above(share: float, frequency: float, threshold: float = SHARE_OF_TAIL) -> ModesAboveGrid:
    return ModesAboveGrid(np.array([share]), np.array([frequency]), threshold)


@given(share=st.floats(0, 1), frequency=st.floats(1000, 4500))
def test_heat_capacity_at_high_temperature_is_3r_whatever_the_share(share, frequency):
    above = some_above(share, frequency)
    assert heat_capacity(spectrum_at(200, 600), PHDOS_GRID, 1e6, above)[0] == pytest.approx(3 * R, rel=1e-4)


@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_numbers_are_means_over_two_einstein_solids(share):
    low, high, above = 400.0, 3600.0, some_above(share, 3600.0)
    assert mean_frequency(spectrum_at(400), PHDOS_GRID, above)[0] == pytest.approx((1 - share) * low + share * high)
    expected = 0.0
    for weight, frequency in ((1 - share, low), (share, high)):
        x = h * c * 100 * frequency / (k * 300.0)
        expected += weight * 3 * R * x**2 * np.exp(x) / np.expm1(x) ** 2
    assert heat_capacity(spectrum_at(400), PHDOS_GRID, above=above)[0] == pytest.approx(expected)
    zero_point = 1.5 * N_A * h * c * 100 * ((1 - share) * low + share * high) / 1000
    assert vibrational_free_energy(spectrum_at(400), PHDOS_GRID, 0.5, above)[0] == pytest.approx(zero_point)


@pytest.mark.parametrize("temperature", [200.0, 800.0])
def test_entropy_is_the_slope_of_the_free_energy(temperature):
    spectra, above, step = spectrum_at(100, 700), some_above(0.3, 1500.0), 0.01
    below, beyond = (vibrational_free_energy(spectra, PHDOS_GRID, temperature + s * step, above)[0] for s in (-1, 1))
    slope = -1000 * (beyond - below) / (2 * step)
    assert vibrational_entropy(spectra, PHDOS_GRID, temperature, above)[0] == pytest.approx(slope, rel=1e-6)


def test_without_modes_above_nothing_changes(splits):
    spectra = splits.train.spectra.double().numpy()
    none = ModesAboveGrid(np.zeros(len(spectra)), np.full(len(spectra), 1000.0))
    for quantity in QUANTITIES:
        np.testing.assert_array_equal(quantity(spectra, PHDOS_GRID, above=none), quantity(spectra, PHDOS_GRID))


def test_columns_follow_the_share_and_without_one_the_last_bin():
    spectra = spectrum_at(400, 1000).repeat(2, axis=0).astype(np.float32)
    above = ModesAboveGrid(np.array([0.009, 0.011]), np.array([1200.0, 1300.0]), 0.01)
    known, unknown = phonon_columns(spectra, PHDOS_GRID, above), phonon_columns(spectra, PHDOS_GRID)
    assert known["exceeds_grid"].to_pylist() == [False, True]
    assert known["max_frequency"].is_null().to_pylist() == [False, True]
    assert known["share_above_grid"].to_pylist() == [0.009, 0.011]
    assert known["mean_frequency_above_grid"].to_pylist() == [1200.0, 1300.0]
    assert unknown["exceeds_grid"].to_pylist() == [True, True]
    assert unknown["share_above_grid"].null_count == unknown["mean_frequency_above_grid"].null_count == 2
    assert {name: column.type for name, column in known.items()} == {n: c.type for n, c in unknown.items()}


def test_computed_curve_says_what_lies_above_the_grid():
    resampled = resample_phonons("x", FINE, HYDROXIDE)
    assert resampled.share_above_grid == pytest.approx(2 / 15, rel=1e-3)
    assert resampled.mean_frequency_above_grid == pytest.approx(3600, abs=1)
    all_on_grid = resample_phonons("x", FINE, np.exp(-0.5 * ((FINE - 400) / 60) ** 2))
    assert all_on_grid.share_above_grid < 1e-12


def test_computed_spectrum_and_its_modes_above_the_grid_make_three_per_atom():
    brucite = Crystal(
        "Mg(OH)2",
        np.array([12, 8, 8, 1, 1], np.uint8),
        np.array([[3.142, 0, 0], [-1.571, 2.721, 0], [0, 0, 4.766]]),
        np.array([[0, 0, 0], *([1 / 3, 2 / 3, z] for z in (0.2216,)), *([2 / 3, 1 / 3, -z] for z in (0.2216,)),
                  [1 / 3, 2 / 3, 0.4303], [2 / 3, 1 / 3, -0.4303]]),
    )  # fmt: skip
    computed = Calculation(brucite, FINE, HYDROXIDE, {}, "x", "dft", {}, 0.0)
    spectrum, above = computed.on_grid(PHDOS_GRID)[None], computed.above_grid()
    assert above.exceed.tolist() == [True]
    assert PHDOS_GRID.integrate(spectrum)[0] == pytest.approx(3 * (1 - above.shares[0]), rel=1e-5)
    assert mean_frequency(spectrum, PHDOS_GRID, above)[0] == pytest.approx(400 * 13 / 15 + 3600 * 2 / 15, rel=2e-3)
