"""Phonon densities of states on the grid of labels: against pymatgen's smoothing, and what is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymatgen.phonon.dos import PhononDos

from mat2spec.dos.grid import PHDOS_GRID
from mat2spec.dos.phonon import BROADENING, WAVENUMBERS_PER_THZ, resample_phonons
from mat2spec.errors import SpectrumError

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
