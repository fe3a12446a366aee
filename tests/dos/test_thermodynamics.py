import numpy as np
import pytest
from pymatgen.phonon.dos import PhononDos
from scipy.constants import N_A, R, c, h, k
from scipy.integrate import trapezoid

from mat2spec.dos.grid import PHDOS_GRID
from mat2spec.dos.thermodynamics import (
    cv_paper,
    heat_capacity,
    max_frequency,
    mean_frequency,
    vibrational_entropy,
    vibrational_free_energy,
)
from mat2spec.structure.crystal import Crystal

THZ = c * 100 / 1e12
"""One cm⁻¹ in THz."""


@pytest.fixture(scope="module")
def spectra(splits) -> np.ndarray:
    return splits.train.spectra.double().numpy()


@pytest.mark.parametrize("temperature", [100.0, 300.0, 1000.0])
def test_heat_capacity_is_that_of_pymatgen(spectra, temperature):
    """pymatgen gives J/K per mole of cells for a density in states per THz and cell: one of integral 3 is one atom."""
    frequencies = PHDOS_GRID.points[1:] * THZ  # pymatgen keeps ω = 0, we leave it out
    expected = []
    for spectrum in spectra:
        densities = 3 * spectrum[1:] / trapezoid(spectrum[1:], frequencies)
        expected.append(PhononDos(frequencies, densities).cv(temperature))
    np.testing.assert_allclose(
        heat_capacity(spectra, PHDOS_GRID, temperature), expected, rtol=1e-6
    )  # digits of the constants


@pytest.mark.parametrize("temperature", [100.0, 300.0, 1000.0])
@pytest.mark.parametrize(
    ("ours", "theirs", "scale"),
    [
        (vibrational_entropy, PhononDos.entropy, 1),
        (vibrational_free_energy, PhononDos.helmholtz_free_energy, 1000),
    ],
)
def test_entropy_and_free_energy_are_those_of_pymatgen(spectra, temperature, ours, theirs, scale):
    frequencies = PHDOS_GRID.points[1:] * THZ
    expected = []
    for spectrum in spectra:
        densities = 3 * spectrum[1:] / trapezoid(spectrum[1:], frequencies)
        expected.append(theirs(PhononDos(frequencies, densities), temperature) / scale)
    np.testing.assert_allclose(ours(spectra, PHDOS_GRID, temperature), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("temperature", [200.0, 300.0, 800.0])
def test_entropy_is_the_slope_of_the_free_energy(spectra, temperature):
    step = 0.01
    below, above = (vibrational_free_energy(spectra, PHDOS_GRID, temperature + sign * step) for sign in (-1, 1))
    slope = -1000 * (above - below) / (2 * step)
    np.testing.assert_allclose(vibrational_entropy(spectra, PHDOS_GRID, temperature), slope, rtol=1e-6)


def test_free_energy_without_heat_is_that_of_zero_point_motion(spectra):
    zero_point = 1.5 * N_A * h * c * 100 * mean_frequency(spectra, PHDOS_GRID) / 1000
    np.testing.assert_allclose(vibrational_free_energy(spectra, PHDOS_GRID, 0.1), zero_point, rtol=1e-9)
    assert vibrational_entropy(spectra, PHDOS_GRID, 0.1).max() < 1e-6


def test_highest_frequency_is_where_a_line_to_the_last_density_crosses_a_twentieth():
    spectrum = np.zeros((2, 51))
    spectrum[:, 20], spectrum[0, 30] = 1.0, 0.2
    ends = max_frequency(spectrum, PHDOS_GRID)
    assert ends == pytest.approx([600 + 20 * (0.2 - 0.05) / 0.2, 400 + 20 * 0.95])


def test_spectrum_that_has_not_ended_has_its_highest_frequency_at_the_end_of_the_grid(spectra):
    flat = np.ones((1, 51))
    assert max_frequency(flat, PHDOS_GRID)[0] == PHDOS_GRID.points[-1]
    ends = max_frequency(spectra, PHDOS_GRID)
    assert (ends > mean_frequency(spectra, PHDOS_GRID)).all()
    beyond = np.where(PHDOS_GRID.points > ends[:, None] + 1e-9, spectra, 0)
    assert (beyond <= 0.05 * spectra[:, 1:].max(axis=1, keepdims=True) + 1e-12).all()


def test_mean_frequency_is_the_first_moment_of_pymatgens_density(spectra):
    for spectrum, mean in zip(spectra, mean_frequency(spectra, PHDOS_GRID), strict=True):
        dos = PhononDos(PHDOS_GRID.points[1:] * THZ, spectrum[1:])
        first_moment = trapezoid(dos.frequencies * dos.densities, dos.frequencies) / trapezoid(
            dos.densities, dos.frequencies
        )
        assert mean == pytest.approx(first_moment / THZ, rel=1e-12)


def test_heat_capacity_at_high_temperature_is_that_of_dulong_and_petit(spectra):
    np.testing.assert_allclose(heat_capacity(spectra, PHDOS_GRID, 1e5), 3 * R, rtol=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_heat_capacity_vanishes_at_low_temperature(spectra, temperature):
    """At 1 K a mode at 1000 cm⁻¹ has x = 719: sinh overflows, but the mode is merely frozen."""
    capacity = heat_capacity(spectra, PHDOS_GRID, temperature)
    assert (capacity >= 0).all()
    assert capacity.max() < 1e-2


def test_heat_capacity_rises_with_temperature(spectra):
    capacities = np.stack([heat_capacity(spectra, PHDOS_GRID, t) for t in (20.0, 50.0, 100.0, 300.0, 900.0)])
    assert (np.diff(capacities, axis=0) > 0).all()
    assert (capacities < 3 * R).all()


@pytest.mark.parametrize("peak", [1, 15, 49])
def test_one_frequency_is_an_einstein_solid(peak):
    spectrum = np.eye(51)[[peak]]
    y = h * c * 100 * PHDOS_GRID.points[peak] / (k * 300.0)
    einstein = 3 * R * y**2 * np.exp(y) / np.expm1(y) ** 2
    assert heat_capacity(spectrum, PHDOS_GRID)[0] == pytest.approx(einstein, rel=1e-9)
    assert mean_frequency(spectrum, PHDOS_GRID)[0] == pytest.approx(PHDOS_GRID.points[peak])


def test_neither_depends_on_scale_nor_on_the_point_at_zero(spectra):
    other = 7 * spectra
    other[:, 0] = 100
    np.testing.assert_allclose(mean_frequency(other, PHDOS_GRID), mean_frequency(spectra, PHDOS_GRID), rtol=1e-12)
    np.testing.assert_allclose(heat_capacity(other, PHDOS_GRID), heat_capacity(spectra, PHDOS_GRID), rtol=1e-12)


def test_negative_densities_count_as_zero(spectra):
    negative = np.where(spectra < 0.1, -3.0, spectra)
    for quantity in (mean_frequency, max_frequency, heat_capacity, vibrational_entropy, vibrational_free_energy):
        np.testing.assert_array_equal(quantity(negative, PHDOS_GRID), quantity(negative.clip(0), PHDOS_GRID))


@pytest.mark.parametrize(
    "nothing", [np.zeros((1, 51)), np.full((1, 51), -1.0), np.eye(51)[[0]]], ids=["zero", "negative", "only ω = 0"]
)
def test_spectrum_without_density_counts_as_flat(nothing):
    flat = np.ones((1, 51))
    assert mean_frequency(nothing, PHDOS_GRID)[0] == pytest.approx(510.0), "the middle of 20 … 1000 cm⁻¹"
    assert heat_capacity(nothing, PHDOS_GRID)[0] == heat_capacity(flat, PHDOS_GRID)[0]


def test_published_heat_capacity_is_that_of_the_cell_but_of_one_atom_for_elements(spectra, silicon, rock_salt):
    """pymatgen's is that of all modes in the density: 3 for each atom that counts."""
    conventional = Crystal(
        "rock salt, 8 sites",
        np.repeat(rock_salt.atomic_numbers, 4),
        5.640 * np.eye(3),
        np.array([*(corners := [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]), *(0.5 - np.array(corners))]),
    )
    crystals, counted = [silicon, rock_salt, conventional], [1, 2, 8]
    frequencies = PHDOS_GRID.points[1:] * THZ
    expected = [
        PhononDos(frequencies, 3 * atoms * g[1:] / trapezoid(g[1:], frequencies)).cv(300.0)
        for atoms, g in zip(counted, spectra[:3], strict=True)
    ]
    np.testing.assert_allclose(
        cv_paper(heat_capacity(spectra[:3], PHDOS_GRID), crystals), expected, rtol=1e-6
    )  # digits of the constants
