"""What is no density of states, or not all of one, is refused with a reason."""

import pickle

import numpy as np
import pytest
from pymatgen.electronic_structure.core import Spin
from pymatgen.electronic_structure.dos import Dos

from mat2spec.dos.electronic import resample, resample_pymatgen
from mat2spec.errors import SpectrumError

ENERGIES = np.arange(-6.0, 8.0, 0.05)
ONES = np.ones_like(ENERGIES)


def altered(values: np.ndarray, index: int, value: float) -> np.ndarray:
    return np.concatenate([values[:index], [value], values[index + 1 :]])


REFUSALS = {
    "begins 3.000 eV below the VBM": (ENERGIES[60:], ONES[60:], 0.0, 1.0),
    "ends 3.950 eV above the CBM": (ENERGIES[:-61], ONES[:-61], 0.0, 0.95),
    "energies must ascend, got 1 ≥ 0.95": (altered(ENERGIES, 141, 0.95), ONES, 0.0, 1.0),
    "energies must ascend, got 7.95 ≥ 7.9": (ENERGIES[::-1].copy(), ONES, 0.0, 1.0),
    "energy 7 is not finite": (altered(ENERGIES, 7, np.nan), ONES, 0.0, 1.0),
    "energy 279 is not finite": (altered(ENERGIES, 279, np.inf), ONES, 0.0, 1.0),
    "density at -5.65 eV is not finite": (ENERGIES, altered(ONES, 7, np.nan), 0.0, 1.0),
    "density at -5.6 eV is not finite": (ENERGIES, np.stack([ONES, altered(ONES, 8, np.inf)]), 0.0, 1.0),
    "279 densities at 280 energies": (ENERGIES, ONES[1:], 0.0, 1.0),
    "1 densities at 1 energies": (ENERGIES[:1], ONES[:1], 0.0, 1.0),
    "a density is -0.002 states/eV": (ENERGIES, altered(ONES, 100, -0.002), 0.0, 1.0),
    "a density is -1 states/eV": (ENERGIES, np.stack([ONES, -ONES]), 0.0, 1.0),
    "3 spin channels": (ENERGIES, np.stack([ONES] * 3), 0.0, 1.0),
    "the VBM, 1 eV, must not lie above the CBM, 0 eV": (ENERGIES, ONES, 1.0, 0.0),
    "the VBM, nan eV": (ENERGIES, ONES, np.nan, 0.0),
    "no states in the bins around 0 and 1 eV": (ENERGIES, np.where(ENERGIES < -5, 1.0, 0.0), 0.0, 1.0),
}


@pytest.mark.parametrize("reason", REFUSALS)
def test_what_is_no_curve_is_refused_in_one_line_that_names_the_material(reason):
    energies, densities, vbm, cbm = REFUSALS[reason]
    with pytest.raises(SpectrumError) as refusal:
        resample("mp-1", energies, densities, vbm, cbm)
    text = str(refusal.value)
    assert text.startswith("mp-1: ")
    assert reason in text
    assert "\n" not in text


def test_the_curve_behind_the_refused_ones_is_accepted():
    np.testing.assert_allclose(resample("flat", ENERGIES, ONES, 0.0, 1.0).spectrum, 1.0, rtol=1e-12)


def test_a_refusal_survives_the_way_from_a_worker():
    refusal = pickle.loads(pickle.dumps(SpectrumError("mp-1", "no curve")))
    assert (type(refusal), str(refusal), refusal.material_id) == (SpectrumError, "mp-1: no curve", "mp-1")


def test_a_curve_may_end_at_the_last_bin_up_to_rounding():
    energies = np.linspace(-4, 5, 181).astype(np.float32)
    shift = 9.1  # not a float32
    spectrum = resample(
        "exact", (energies + np.float32(shift)).astype(np.float32), np.ones(181), shift, 1 + shift
    ).spectrum
    np.testing.assert_allclose(spectrum, 1.0, rtol=1e-12)


def test_noise_below_zero_counts_as_zero():
    densities = np.where(ENERGIES < -1, 1.0, -5e-4)
    assert (resample("noise", ENERGIES, densities, 0.0, 1.0).spectrum[-64:] == 0).all()


def test_channels_that_differ_are_refused_only_where_they_must_not():
    ferromagnet = np.stack([ONES, ONES * 0.9])
    assert resample("iron", ENERGIES, ferromagnet, 0.0, 0.0).spectrum == pytest.approx(1.9)
    with pytest.raises(SpectrumError, match=r"iron: the spin channels differ by 5\.3% of the states; .* at most 1%"):
        resample("iron", ENERGIES, ferromagnet, 0.0, 0.0, nonmagnetic=True)
    resample("nearly", ENERGIES, np.stack([ONES, ONES * 0.99]), 0.0, 0.0, nonmagnetic=True)
    resample("one channel", ENERGIES, ONES, 0.0, 0.0, nonmagnetic=True)


def test_a_dos_with_channels_of_two_lengths_is_refused():
    with pytest.raises(SpectrumError, match=r"mp-1: 2 spin channels of \[279, 280\] densities"):
        resample_pymatgen("mp-1", Dos(0.0, ENERGIES, {Spin.up: ONES, Spin.down: ONES[1:]}))


def test_a_dos_is_refused_before_pymatgen_searches_it_for_a_gap():
    with pytest.raises(SpectrumError, match=r"mp-1: the density at -5\.65 eV is not finite"):
        resample_pymatgen("mp-1", Dos(0.0, ENERGIES, {Spin.up: altered(ONES, 7, np.nan)}))
    with pytest.raises(SpectrumError, match="mp-1: 279 densities at 280 energies"):
        resample_pymatgen("mp-1", Dos(0.0, ENERGIES, {Spin.up: ONES[1:]}))
