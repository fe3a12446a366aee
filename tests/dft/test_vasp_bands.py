"""Band edges of VASP runs: tight-binding chains with known edges, and the MgB2 run with points missing."""

from contextlib import suppress
from copy import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pymatgen.electronic_structure.core import Spin
from pymatgen.electronic_structure.dos import Dos
from pymatgen.io.vasp import Vasprun
from scipy.special import erfc

from mat2spec.dft.vasp_bands import curve_of, edges_of_bands, vasp_band_edges
from mat2spec.dos.electronic import resample
from mat2spec.errors import CalculationError, Mat2SpecError, SpectrumError

FINISHED = Path(__file__).parents[1] / "data" / "vasprun-MgB2.xml.gz"

CENTER, HOPPING, SEMICORE = 4.85, 1.5, -12.0
"""[eV] Middle of the chain's gap, its hopping, and a flat band of the same atoms."""

K_POINTS = 20
"""Of half a period; the band edges are at the last."""

Channel = dict[Spin, np.ndarray]


def chain(points: int, gap: float, shift: float = 0.0) -> np.ndarray:
    """Bands of a chain of two kinds of atoms: ± √(Δ²/4 + 4t²cos²k), with the gap Δ at k = π/2."""
    k = np.linspace(0, np.pi / 2, points)
    dispersion = np.sqrt((gap / 2) ** 2 + (2 * HOPPING * np.cos(k)) ** 2)
    return CENTER + shift + np.stack([np.full(points, SEMICORE), -dispersion, dispersion, dispersion + 8.0], axis=1)


def occupations(bands: np.ndarray, fermi: float, smearing: float) -> np.ndarray:
    return 0.5 * erfc((bands - fermi) / smearing)


def made_run(gap: float, *, electrons: float = 4, fermi: float = CENTER, smearing: float = 0.05, **curve: Any) -> Any:
    """What pymatgen reads of a run with one spin channel.

    Args:
        gap: Of the bands [eV].
        electrons: NELECT.
        fermi: Fermi level [eV].
        smearing: Of the occupations [eV].
        curve: Changes of the curve, see `made_curve`.
    """
    bands = chain(K_POINTS, gap)
    made = np.stack([bands, occupations(bands, fermi, smearing)], axis=-1)
    tdos, idos = made_curve(fermi, **{"gap": gap} | curve)
    return SimpleNamespace(
        eigenvalues={Spin.up: made},
        actual_kpoints_weights=[1 / K_POINTS] * K_POINTS,
        parameters={"NELECT": electrons},
        efermi=fermi,
        tdos=tdos,
        idos=idos,
    )


def made_curve(
    fermi: float, gap: float, *, low: float = -20.0, step: float = 0.02, broadening: float = 0.03, scale: float = 1.0
) -> tuple[Dos, Dos]:
    """Density of states and its integral as VASP writes them: the first point holds the states below the window."""
    energies = np.arange(low, 25.0, step)
    bands = chain(1000, gap).ravel()
    states = np.array([2 * 0.5 * erfc((bands - energy) / broadening).sum() / 1000 for energy in energies])
    densities = np.diff(states, prepend=0.0) / step
    return Dos(fermi, energies, {Spin.up: scale * densities}), Dos(fermi, energies, {Spin.up: states})


@pytest.mark.parametrize("smearing", [1e-4, 0.05, 0.2, 0.4])
def test_edges_of_an_insulator_are_those_of_its_bands_however_its_electrons_are_smeared(smearing):
    run = made_run(1.0, smearing=smearing)
    assert vasp_band_edges("chain", run) == pytest.approx((CENTER - 0.5, CENTER + 0.5), abs=1e-9)


def test_a_band_that_is_half_filled_makes_a_metal():
    half_filled = made_run(1.0, electrons=3, fermi=CENTER - 2.1)
    with pytest.raises(CalculationError, match=r"hold 3\.\d\d electrons, NELECT is 3; .*k-points"):
        vasp_band_edges("chain", half_filled)
    filled = half_filled.eigenvalues[Spin.up][..., 1]
    filled[:, 1] *= 0.5 / filled[:, 1].mean()
    middle = float(np.interp(3.0, half_filled.idos.densities[Spin.up], half_filled.idos.energies))
    half_filled.efermi = middle
    assert vasp_band_edges("chain", half_filled) == (middle, middle)


def test_each_spin_channel_of_a_magnet_fills_its_own_bands():
    """Three bands of one channel and one of the other, with four electrons; the gap is between channels."""
    up, down = chain(K_POINTS, 1.0, shift=-4.0), chain(K_POINTS, 1.0, shift=8.0)
    vbm, cbm = edges_of_bands(np.concatenate([up, down], axis=1), 4.0)
    assert vbm == pytest.approx(max(up[:, 2].max(), down[:, 0].max()))
    assert cbm == pytest.approx(min(up[:, 3].min(), down[:, 1].min()))


def test_bands_that_overlap_or_a_fraction_of_a_band_have_no_edges():
    overlapping = np.array([[0.0, 1.0], [1.5, 2.0]])
    vbm, cbm = edges_of_bands(overlapping, 1.0)
    assert vbm > cbm
    assert edges_of_bands(chain(K_POINTS, 1.0), 1.5) == (0.0, 0.0)


@pytest.mark.parametrize("points", [12, 20, 30])
@pytest.mark.parametrize("weights", ["of the file", "adding up to one"])
def test_a_metal_with_points_missing_is_no_insulator(points, weights):
    """Of MgB2's 40 irreducible k-points; occupations alone made it an insulator in 92, 74 and 45 % of the draws."""
    whole = Vasprun(str(FINISHED), parse_potcar_file=False)
    rng = np.random.default_rng(0)
    for _ in range(50):
        chosen = rng.choice(len(whole.actual_kpoints_weights), points, replace=False)
        run = copy(whole)
        run.eigenvalues = {spin: bands[chosen] for spin, bands in whole.eigenvalues.items()}
        thinned = np.array(whole.actual_kpoints_weights)[chosen]
        run.actual_kpoints_weights = list(thinned if weights == "of the file" else thinned / thinned.sum())
        with suppress(CalculationError):
            assert vasp_band_edges("boride", run) == (whole.efermi, whole.efermi)


REFUSALS = {
    "its curve has up to": {"gap": 0.0},
    "with points 0.9 eV apart; increase NEDOS": {"step": 0.9, "broadening": 0.05},
    "its densities hold 1 states in the 4 eV below 4.85 eV, VASP's integral 2": {"scale": 0.5},
}


@pytest.mark.parametrize("reason", REFUSALS)
def test_bands_and_a_curve_that_disagree_are_refused_with_both_numbers(reason):
    run = made_run(1.0)
    run.tdos, run.idos = made_curve(CENTER, **{"gap": 1.0} | REFUSALS[reason])
    with pytest.raises(CalculationError) as refusal:
        vasp_band_edges("chain", run)
    text = str(refusal.value)
    assert text.startswith("chain: ")
    assert reason in text
    assert "\n" not in text


@pytest.mark.parametrize("shift", [-0.45, -0.3, 0.3, 0.45])
def test_a_gap_of_the_curve_that_is_not_where_that_of_the_bands_is_is_refused(shift):
    """The Fermi level is in both gaps; a curve with its own zero would put states into other bins."""
    run = made_run(1.0)
    for curve in (run.tdos, run.idos):
        curve.energies = curve.energies + shift
    with pytest.raises(CalculationError, match=r"a gap of 1\.00 eV \(4\.35 … 5\.35\), its curve has"):
        vasp_band_edges("chain", run)


def test_bands_without_the_points_of_their_edges_are_refused():
    """The gap is at the last k-points; without them the bands alone show one of 1.72 eV."""
    run = made_run(1.0)
    run.eigenvalues = {spin: bands[:17] for spin, bands in run.eigenvalues.items()}
    run.actual_kpoints_weights = [1 / 17] * 17
    with pytest.raises(CalculationError, match=r"a gap of 1\.\d\d eV .*, its curve has up to"):
        vasp_band_edges("chain", run)


def test_a_curve_that_is_too_coarse_for_the_bins_is_refused():
    run = made_run(4.0)
    run.tdos, run.idos = made_curve(CENTER, 4.0, step=0.8, broadening=0.05)
    with pytest.raises(CalculationError, match=r"points of its curve are 0\.8 eV apart, at most 0\.5 eV .*NEDOS"):
        vasp_band_edges("chain", run)


def test_overlapping_bands_with_a_curve_that_has_a_gap_are_refused():
    run = made_run(0.0)
    run.tdos, run.idos = made_curve(CENTER, 2.0)
    with pytest.raises(CalculationError, match=r"no gap for 4 electrons, its curve has one of 1\.\d\d eV"):
        vasp_band_edges("chain", run)


@pytest.mark.parametrize("shift", [-CENTER, 6.0])
def test_a_fermi_level_on_another_zero_than_the_curve_is_refused(shift):
    for gap in (0.0, 1.0):
        run = made_run(gap)
        run.efermi = CENTER + shift
        with pytest.raises(CalculationError, match=r"Fermi level is|no gap for 4 electrons, its curve has one"):
            vasp_band_edges("chain", run)


def test_a_missing_fermi_level_or_one_without_states_above_is_refused():
    run = made_run(1.0)
    run.efermi = None
    with pytest.raises(SpectrumError, match="chain: the Fermi level is None"):
        vasp_band_edges("chain", run)
    run.efermi = 24.99
    with pytest.raises(Mat2SpecError, match=r"the Fermi level, 24\.99 eV, has no states on one side"):
        vasp_band_edges("chain", run)


@pytest.mark.parametrize("low", [-20.0, -5.0])
def test_states_below_the_window_are_no_states_of_the_first_bin(low):
    """The flat band at −7.15 eV is below the second window, whose first point holds it."""
    run = made_run(1.0, low=low)
    energies, channels = curve_of(run)
    edges = vasp_band_edges("chain", run)
    spectrum = resample("chain", energies, channels, *edges).spectrum
    assert spectrum[:64].sum() * 0.0625 == pytest.approx(2.0, abs=0.05), "the valence band alone"
