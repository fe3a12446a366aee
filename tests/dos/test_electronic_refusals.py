"""What is no density of states, or not all of one, is refused with a reason."""

import pickle

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure
from pymatgen.electronic_structure.core import Spin
from pymatgen.electronic_structure.dos import CompleteDos, Dos
from scipy.constants import eV, hbar, m_e

from mat2spec.dos.curves import as_numbers
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
    "point 7 of the energies is not finite": (altered(ENERGIES, 7, np.nan), ONES, 0.0, 1.0),
    "point 279 of the energies is not finite": (altered(ENERGIES, 279, np.inf), ONES, 0.0, 1.0),
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


SODIUM = Structure(Lattice.cubic(4.29), ["Na", "Na"], [[0, 0, 0], [0.5, 0.5, 0.5]])

FERMI_ENERGY = 3.15
"""[eV] Of the two electrons in SODIUM's cell if they are free: ħ²(3π²n)^⅔/2m."""


def free_electrons(scale: float = 1.0) -> Dos:
    """Density of states of free electrons in the cell of sodium: V/2π² (2m/ħ²)^(3/2) √E."""
    energies = np.arange(-6.0, 12.0, 0.01)
    per_ev = SODIUM.volume * 1e-30 / (2 * np.pi**2) * (2 * m_e * eV / hbar**2) ** 1.5
    return Dos(FERMI_ENERGY, energies, {Spin.up: scale * per_ev * np.sqrt(energies.clip(0))})


def test_free_electrons_have_as_many_states_as_electrons():
    assert resample_pymatgen("sodium", free_electrons(), electrons=2.0).is_metal
    halves = {spin: free_electrons(0.5).densities[Spin.up] for spin in (Spin.up, Spin.down)}
    assert resample_pymatgen("sodium", Dos(FERMI_ENERGY, free_electrons().energies, halves), electrons=2.0).is_metal


@pytest.mark.parametrize("scale", [0.5, 0.9, 2.0, 1 / SODIUM.volume])
def test_a_curve_on_another_scale_is_refused_where_the_electrons_are_known(scale):
    with pytest.raises(SpectrumError, match=r"sodium: the curve holds .* states below 3\.15 eV, for 2 electrons"):
        resample_pymatgen("sodium", free_electrons(scale), electrons=2.0)


@pytest.mark.parametrize("shift", [-1.0, 2.0])
def test_a_fermi_level_on_another_zero_is_refused_where_the_electrons_are_known(shift):
    dos = free_electrons()
    dos.efermi += shift
    with pytest.raises(SpectrumError, match="Fermi level on the curve's zero"):
        resample_pymatgen("sodium", dos, electrons=2.0)


def test_a_dos_stored_per_volume_is_refused_by_the_electrons_of_its_atoms():
    """Its file does not say that it was normalized; in pymatgen's object, the volume is known."""
    normalized = CompleteDos(SODIUM, free_electrons(), {}, normalize=True)
    assert resample_pymatgen("sodium", normalized).is_metal
    stored = CompleteDos.from_dict(normalized.as_dict())
    assert stored.norm_vol is None
    with pytest.raises(SpectrumError, match=r"its 2 atoms have 2 outer and 22 electrons in all; .* not per Å³"):
        resample_pymatgen("sodium", stored)
    with pytest.raises(SpectrumError, match=r"22 electrons in all"):
        resample_pymatgen("sodium", CompleteDos(SODIUM, free_electrons(SODIUM.volume), {}))


@pytest.mark.parametrize(
    ("fermi", "reason"), [(None, "is None; give it in eV"), (np.nan, "is nan"), (-1.0, "states on")]
)
def test_a_fermi_level_that_is_missing_or_has_no_states_on_one_side_is_refused(fermi, reason):
    dos = free_electrons()
    dos.efermi = fermi
    with pytest.raises(SpectrumError, match=f"sodium: the Fermi level.*{reason}"):
        resample_pymatgen("sodium", dos)


def test_a_curve_without_states_above_the_fermi_level_is_refused():
    energies = np.arange(-8.0, 8.0, 0.05)
    occupied = Dos(0.0, energies, {Spin.up: np.where(energies < -0.5, 1.0, 0.0)})
    with pytest.raises(SpectrumError, match=r"no states on one side; .* compute empty bands too"):
        resample_pymatgen("occupied", occupied)


def test_lists_are_read_as_arrays():
    lists = resample("lists", ENERGIES.tolist(), ONES.tolist(), 0.0, 1.0)
    np.testing.assert_array_equal(lists.spectrum, resample("arrays", ENERGIES, ONES, 0.0, 1.0).spectrum)
    dos = free_electrons()
    stored = Dos(dos.efermi, dos.energies.tolist(), {Spin.up: dos.densities[Spin.up].tolist()})
    np.testing.assert_array_equal(
        resample_pymatgen("lists", stored).spectrum, resample_pymatgen("arrays", dos).spectrum
    )


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (None, r"the energies are missing \(None\)"),
        (["high"], "the energies are no numbers"),
        ([None, 1.0], "the energies are no numbers"),
        ([True, False], "the energies are no numbers"),
        ([1.0, 2j], "the energies are complex numbers"),
        ([[1.0], [1.0, 2.0]], "the energies are lists of unequal length"),
    ],
)
def test_what_is_no_array_of_real_numbers_is_refused(values, reason):
    with pytest.raises(SpectrumError, match=f"mp-1: {reason}"):
        as_numbers("mp-1", "energies", values)


def spike(energies: np.ndarray, densities: np.ndarray, states: float) -> np.ndarray:
    """A curve as VASP writes it: its first point holds the states below the window."""
    return np.concatenate([[states / (energies[1] - energies[0])], densities[1:]])


def test_states_below_the_window_are_left_out():
    """The curve ends one point before the bins; with the spike, 20 states would enter the first bins."""
    energies = np.arange(-4.05, 8.0, 0.05)
    with_spike = spike(energies, np.ones_like(energies), 20.0)
    np.testing.assert_allclose(resample("spike", energies, with_spike, 0.0, 1.0).spectrum, 1.0, rtol=1e-9)


def test_a_curve_that_begins_within_the_bins_after_the_states_below_is_refused():
    energies = np.arange(-4.02, 8.0, 0.05)
    with_spike = spike(energies, np.ones_like(energies), 20.0)
    with pytest.raises(
        SpectrumError, match=r"begins 3\.970 eV below the VBM, without its first point, which holds all"
    ):
        resample("spike", energies, with_spike, 0.0, 1.0)


def test_states_below_the_window_count_as_electrons():
    dos = free_electrons()
    densities = spike(dos.energies, dos.densities[Spin.up], 12.0)
    assert resample_pymatgen("sodium", Dos(dos.efermi, dos.energies, {Spin.up: densities}), electrons=14.0).is_metal
