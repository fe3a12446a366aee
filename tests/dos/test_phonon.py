"""Phonon densities of states on the grid of labels: against pymatgen's smoothing, and what is refused."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymatgen.phonon.dos import PhononDos
from scipy.constants import atomic_mass, c, e, eV, h

from mat2spec.data.materials.schema import read_crystals
from mat2spec.dos.grid import PHDOS_GRID
from mat2spec.dos.phonon import BROADENING, WAVENUMBERS_PER_THZ, resample_phonons
from mat2spec.dos.vibrations import HIGHEST_FREQUENCIES, STIFFNESSES, check_scale, stiffness
from mat2spec.errors import SpectrumError
from mat2spec.structure.crystal import Crystal

FINE = np.arange(-50.0, 900.0, 0.5)

TWO_PEAKS = np.exp(-0.5 * ((FINE - 233) / 15) ** 2) + 0.4 * np.exp(-0.5 * ((FINE - 611) / 30) ** 2)


def test_it_is_pymatgen_s_smoothing_at_the_points_of_the_grid():
    expected = np.interp(
        PHDOS_GRID.points, FINE, PhononDos(FINE, TWO_PEAKS).get_smeared_densities(BROADENING), right=0.0
    )
    np.testing.assert_allclose(resample_phonons("x", FINE, TWO_PEAKS).spectrum, expected / expected.max(), atol=2e-4)


def test_a_mode_becomes_a_gaussian_around_it():
    frequencies = np.array([0.0, 399.99, 400.0, 400.01, 800.0])
    resampled = resample_phonons("x", frequencies, np.array([0.0, 0, 1, 0, 0])).spectrum
    np.testing.assert_allclose(resampled, np.exp(-0.5 * ((PHDOS_GRID.points - 400) / BROADENING) ** 2), atol=1e-4)


@given(scale=st.floats(1e-6, 1e6), unit=st.sampled_from([1.0, WAVENUMBERS_PER_THZ]))
def test_the_scale_of_a_curve_does_not_matter(scale, unit):
    resampled = resample_phonons("x", (FINE / unit) * unit, TWO_PEAKS * scale)
    np.testing.assert_allclose(resampled.spectrum, resample_phonons("x", FINE, TWO_PEAKS).spectrum, atol=1e-9)


def test_what_lies_beyond_the_grid_is_counted():
    frequencies = np.arange(0.0, 2001.0)
    resampled = resample_phonons("x", frequencies, np.where(frequencies > 100, 1.0, 0.0))
    assert resampled.share_above_grid == pytest.approx(1000 / 1900, abs=1e-3)
    assert resampled.lowest_frequency == pytest.approx(101, abs=2.5)


@pytest.mark.parametrize(
    ("frequencies", "densities", "expected_text"),
    [
        (FINE - 300, TWO_PEAKS, "below -15 cm⁻¹; a stable crystal has at most 0.10%"),
        (FINE + 3000, TWO_PEAKS, "no states on the grid"),
        (FINE, 0 * TWO_PEAKS, "zero everywhere"),
        (FINE, TWO_PEAKS - 0.5, "a density is -0.5"),
        (FINE[::-1], TWO_PEAKS, "frequencies must ascend"),
        (FINE, np.where(FINE == 100, np.nan, TWO_PEAKS), "not finite"),
        (FINE[1:], TWO_PEAKS, "1900 densities at 1899 frequencies"),
        (FINE[:1], TWO_PEAKS[:1], "at least two"),
    ],
)
def test_what_is_no_label_is_refused_in_a_line(frequencies, densities, expected_text):
    with pytest.raises(SpectrumError) as caught:
        resample_phonons("mp-1", frequencies, densities)
    assert str(caught.value).startswith("mp-1: ")
    assert expected_text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_noise_around_gamma_is_no_instability():
    densities = np.where((FINE > -12) & (FINE < -5), 0.02, 0.0) + TWO_PEAKS
    assert resample_phonons("x", FINE, densities).lowest_frequency < 0


UNITS = {"THz": 1e-12, "meV": 1e3 * h / eV, "eV": h / eV, "Hz": 1.0}
"""Number of each unit in one Hz."""

PER_WAVENUMBER = 100 * c
"""[Hz] One cm⁻¹."""


@pytest.mark.parametrize("unit", UNITS)
def test_frequencies_in_another_unit_are_refused_by_their_scale(real_crystals, bundled, unit):
    """Twelve crystals, soft and stiff; each curve is read first as what it is."""
    labels = {row["material_id"]: row["phdos"] for row in pq.read_table(bundled).to_pylist()}
    for crystal in real_crystals:
        densities = labels[crystal.material_id]
        resample_phonons(crystal.material_id, PHDOS_GRID.points, densities, crystal)
        with pytest.raises(SpectrumError) as refusal:
            resample_phonons(crystal.material_id, PHDOS_GRID.points * PER_WAVENUMBER * UNITS[unit], densities, crystal)
        assert "convert the frequencies to cm⁻¹" in str(refusal.value)
        assert "\n" not in str(refusal.value)


def test_hertz_and_electronvolts_are_refused_without_a_crystal_too():
    for factor, guess in ((PER_WAVENUMBER, "Hz"), (PER_WAVENUMBER * 1e-12, "THz"), (PER_WAVENUMBER * h / eV, "eV")):
        with pytest.raises(SpectrumError, match=rf"that of a crystal is 30 … 5000; .*are they in {guess}\?"):
            resample_phonons("x", FINE * factor, np.where(FINE < 0, 0.0, TWO_PEAKS))


@pytest.mark.parametrize("unit", [1e3 * h / eV, 2 * np.pi * 1e-12], ids=["meV", "rad/ps"])
def test_frequencies_of_hydrides_in_another_unit_are_refused(bundled, unit):
    """Labels end at 1000 cm⁻¹, below the stretching modes: their stiffness varies too much to show the unit."""
    rows = [row for row in pq.read_table(bundled).to_pylist() if 1 in row["atomic_numbers"]]
    assert rows
    for row in rows:
        with pytest.raises(SpectrumError, match="that of a crystal with hydrogen is 200 … 5000"):
            check_scale(
                row["material_id"],
                PHDOS_GRID.points * PER_WAVENUMBER * unit,
                np.array(row["phdos"], np.float64),
                Crystal.from_row(row),
            )


@pytest.mark.parametrize("name", ["phdos_petretto", "phdos_phonondb"])
def test_no_bundled_spectrum_is_refused_for_its_scale(bundled, name):
    table = pq.read_table(bundled.with_name(f"{name}.parquet"))
    for crystal, densities in zip(read_crystals(table), table["phdos"].to_pylist(), strict=True):
        check_scale(crystal.material_id, PHDOS_GRID.points, np.array(densities, np.float64), crystal)


def test_stiffness_is_the_force_constant_of_a_chain_of_two_masses(rock_salt):
    """ω² of both branches add up to 2C/μ at every wave vector; the trace of an atom's force constants over 3 is 2C."""
    spring, sodium, chlorine = 60.0, 22.98977 * atomic_mass, 35.453 * atomic_mass
    inverse = 1 / sodium + 1 / chlorine
    sine = np.sin(np.linspace(0.01, np.pi / 2, 500))
    root = np.sqrt(inverse**2 - 4 * sine**2 / (sodium * chlorine))
    frequencies = np.sqrt(spring * np.concatenate([inverse - root, inverse + root])) / (2 * np.pi * PER_WAVENUMBER)
    expected = 2 * spring * (5.640e-10 / 2) ** 2 / e
    assert stiffness(frequencies, np.ones(1000), rock_salt) == pytest.approx(expected, rel=1e-4)
    assert STIFFNESSES[0] < expected < STIFFNESSES[1]
    assert HIGHEST_FREQUENCIES[0] < frequencies.max() < HIGHEST_FREQUENCIES[1]


def test_a_curve_that_is_zero_far_beyond_the_grid_needs_no_memory():
    wide = np.append(FINE, 1e12)
    resampled = resample_phonons("x", wide, np.append(TWO_PEAKS, 0.0)).spectrum
    other_points = 1e-4  # of the integral, as the interpolated points differ
    np.testing.assert_allclose(resampled, resample_phonons("x", FINE, TWO_PEAKS).spectrum, atol=other_points)


def test_lists_are_read_as_arrays():
    lists = resample_phonons("x", FINE.tolist(), TWO_PEAKS.tolist())
    np.testing.assert_array_equal(lists.spectrum, resample_phonons("x", FINE, TWO_PEAKS).spectrum)


@pytest.mark.parametrize(
    ("frequencies", "expected_text"),
    [
        (FINE + 1j, "frequencies are complex numbers; give real ones, imaginary frequencies as negative"),
        (["1 THz"] * len(FINE), "frequencies are no numbers"),
        ([[1.0], [1.0, 2.0]], "lists of unequal length"),
    ],
)
def test_what_is_no_array_of_real_numbers_is_refused_in_a_line(frequencies, expected_text):
    with pytest.raises(SpectrumError) as caught:
        resample_phonons("mp-1", frequencies, TWO_PEAKS)
    assert str(caught.value).startswith("mp-1: ")
    assert expected_text in str(caught.value)
