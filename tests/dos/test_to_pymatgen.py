"""Predictions as pymatgen's objects: they hold the same states, and pymatgen's tools read them."""

import matplotlib as mpl
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pymatgen.electronic_structure.core import Spin
from pymatgen.electronic_structure.dos import Dos
from pymatgen.electronic_structure.plotter import DosPlotter
from pymatgen.phonon.dos import PhononDos
from pymatgen.phonon.plotter import PhononDosPlotter
from scipy.constants import c

from mat2spec.dos.electronic import GAP_THRESHOLD, resample
from mat2spec.dos.grid import EDOS_GRID, PHDOS_GRID
from mat2spec.dos.thermodynamics import heat_capacity, mean_frequency
from mat2spec.dos.to_pymatgen import STEP, electronic_dos, phonon_dos, put_back_gap, to_pymatgen
from mat2spec.errors import SpectrumError

THZ = c * 100 / 1e12
"""One cm⁻¹ in THz."""


@pytest.fixture(scope="module")
def rows(bundled) -> list[dict]:
    """Real spectra as a perfect network would predict them."""
    table = pq.read_table(bundled.with_name("edos_gpaw.parquet"))
    return [
        {
            "material_id": row["material_id"],
            "spectrum": np.array(row["edos"], np.float32),
            "band_gap_pred": row["band_gap"],
            "is_metal": row["is_metal"],
            "gap_source": "predicted",
        }
        for row in table.to_pylist()
    ]


@pytest.fixture(scope="module")
def vibrations(bundled) -> list[dict]:
    """Real phonon spectra with three states per atom."""
    table = pq.read_table(bundled).slice(0, 300).to_pylist()
    spectra = np.array([row["phdos"] for row in table])
    spectra *= 3 / PHDOS_GRID.integrate(spectra)[:, None]
    return [
        {"material_id": row["material_id"], "spectrum": spectrum, "nsites_primitive": row["nsites"]}
        for row, spectrum in zip(table, spectra, strict=True)
    ]


def edges(dos: Dos) -> tuple[float, float]:
    return 0.0, max(2 * dos.efermi, 0.0)


def back(dos: Dos) -> np.ndarray:
    return resample("round trip", dos.energies, dos.densities[Spin.up], *edges(dos)).spectrum


def gap_is_visible(row: dict) -> bool:
    """Whether the bins beside the gap hold more than what pymatgen takes for nothing."""
    threshold = GAP_THRESHOLD * row["spectrum"].mean()
    return bool((row["spectrum"][62:66] > 2 * threshold).all())


def test_the_way_there_and_back_changes_no_spectrum(rows):
    for row in rows:
        spectrum = row["spectrum"].astype(float)
        np.testing.assert_allclose(
            back(electronic_dos(row)), spectrum, atol=1e-5 * spectrum.max(), err_msg=row["material_id"]
        )


def test_the_way_there_and_back_keeps_the_gap_to_half_a_step(rows):
    for row in rows:
        vbm, cbm = edges(electronic_dos(row))
        assert cbm - vbm == pytest.approx(row["band_gap_pred"], abs=STEP / 2 + 1e-12), row["material_id"]


def test_pymatgen_finds_the_gap_that_was_put_back(rows):
    visible = [row for row in rows if gap_is_visible(row)]
    assert len(visible) > 0.9 * len(rows)
    assert sum(not row["is_metal"] for row in visible) > 30
    for row in visible:
        dos = electronic_dos(row)
        assert dos.get_gap() == pytest.approx(row["band_gap_pred"], abs=2 * STEP), row["material_id"]
        cbm, vbm = dos.get_cbm_vbm()
        assert (vbm, cbm) == pytest.approx(edges(dos), abs=STEP)


def test_pymatgen_finds_no_gap_narrower_than_was_put_back(rows):
    for row in rows:
        assert electronic_dos(row).get_gap() >= row["band_gap_pred"] - STEP, row["material_id"]


def test_densities_are_never_negative_and_zero_in_the_gap(rows):
    for row in rows:
        dos = electronic_dos(row)
        densities = dos.get_densities()
        assert (densities >= 0).all()
        vbm, cbm = edges(dos)
        if cbm > vbm:
            assert (densities[(dos.energies >= vbm) & (dos.energies <= cbm)] == 0).all()


def test_energies_are_uniform_and_end_where_the_grid_does(rows):
    """`get_smeared_densities` takes the mean step for every step."""
    for row in rows:
        dos = electronic_dos(row)
        assert (np.diff(dos.energies) == STEP).all()
        assert dos.energies[[0, -1]].tolist() == [-4.0, edges(dos)[1] + 4]


def test_smearing_keeps_the_states(rows):
    row = next(row for row in rows if row["material_id"] == "mp-149")
    dos = electronic_dos(row)
    smeared = dos.get_smeared_densities(0.05)[Spin.up]
    assert smeared.shape == dos.energies.shape
    assert smeared[1:-1].sum() * STEP == pytest.approx(row["spectrum"].sum() * 0.0625, rel=0.01)


def test_the_fermi_level_is_in_the_middle_of_the_gap_and_zero_in_a_metal(rows):
    for row in rows:
        fermi = electronic_dos(row).efermi
        assert fermi == pytest.approx(row["band_gap_pred"] / 2, abs=STEP / 4 + 1e-8)


def test_a_gap_that_rounds_to_nothing_leaves_a_dos_without_gap(rows):
    row = {**rows[0], "is_metal": False, "band_gap_pred": 0.003}
    dos = electronic_dos(row)
    assert len(dos.energies) == 1025
    assert dos.get_gap() == 0.0


@pytest.mark.parametrize(
    ("known", "gap"),
    [
        ({"gap_source": "input", "band_gap": 1.5, "band_gap_pred": 0.7, "is_metal": False}, 1.5),
        ({"gap_source": "input", "band_gap": 0.0, "band_gap_pred": 0.7, "is_metal": True}, 0.0),
        ({"gap_source": "input", "band_gap": 1.5, "band_gap_pred": None, "is_metal": True}, 1.5),
        ({"gap_source": "predicted", "band_gap": 1.5, "band_gap_pred": 0.7, "is_metal": False}, 0.7),
        ({"gap_source": "predicted", "band_gap_pred": 0.7, "is_metal": np.True_}, 0.0),
        ({"gap_source": "predicted", "band_gap_pred": None, "is_metal": True}, 0.0),
        ({"gap_source": "predicted", "band_gap_pred": np.float32(0.5), "is_metal": None}, 0.5),
        ({"gap_source": "predicted", "band_gap_pred": 0.5, "is_metal": np.nan}, 0.5),
        ({"gap_source": "predicted", "band_gap_pred": -0.2, "is_metal": False}, 0.0),
    ],
)
def test_the_known_gap_comes_before_the_metal_and_that_before_the_predicted_gap(known, gap):
    assert put_back_gap(known) == gap


@pytest.mark.parametrize(
    "unknown",
    [
        {},
        {"gap_source": None, "band_gap_pred": None, "is_metal": None},
        {"gap_source": "predicted", "band_gap_pred": np.nan, "is_metal": False},
        {"gap_source": "input", "band_gap": None, "band_gap_pred": 0.7},
    ],
)
def test_without_any_gap_there_is_no_dos_but_a_way_out(rows, unknown):
    row = {"material_id": "mp-1", "spectrum": rows[0]["spectrum"], **unknown}
    with pytest.raises(SpectrumError, match=r"mp-1: neither .* set band_gap"):
        electronic_dos(row)


@given(
    arrays(np.float32, 128, elements=st.floats(2**-20, 1e4, width=32) | st.just(0.0)),
    st.floats(0, 12),
    st.booleans(),
)
def test_random_predictions_survive_the_way_there_and_back(spectrum, gap, is_metal):
    dos = electronic_dos({"spectrum": spectrum, "gap_source": "predicted", "band_gap_pred": gap, "is_metal": is_metal})
    densities = dos.get_densities()
    assert (densities >= 0).all()
    dos.get_gap()  # pymatgen fails on some metals' Fermi levels
    if spectrum.any():
        np.testing.assert_allclose(back(dos), spectrum, atol=1e-5 * float(spectrum.max()))


def test_negative_predictions_count_as_zero(rows):
    row = {**rows[0], "spectrum": rows[0]["spectrum"] - 1}
    np.testing.assert_allclose(back(electronic_dos(row)), row["spectrum"].clip(0), atol=1e-5 * row["spectrum"].max())


def test_the_grid_says_what_a_row_becomes(rows, vibrations):
    assert type(to_pymatgen(rows[0], EDOS_GRID)) is Dos
    assert type(to_pymatgen(vibrations[0], PHDOS_GRID)) is PhononDos


def test_a_row_on_another_grid_is_refused(rows, vibrations):
    with pytest.raises(SpectrumError, match=f"{rows[0]['material_id']}: 128 densities for 51 bins of phdos"):
        to_pymatgen(rows[0], PHDOS_GRID)
    with pytest.raises(SpectrumError, match="51 densities for 128 bins of edos"):
        to_pymatgen({**vibrations[0], "is_metal": True}, EDOS_GRID)


def test_a_row_without_an_id_is_refused_as_such():
    with pytest.raises(SpectrumError, match="a row without material_id: 3 densities"):
        phonon_dos({"spectrum": [1.0, 2.0, 3.0], "nsites_primitive": 1}, PHDOS_GRID)


def test_a_phonon_dos_holds_three_vibrations_per_site(vibrations):
    for row in vibrations:
        dos = phonon_dos(row, PHDOS_GRID)
        assert np.trapezoid(dos.densities, dos.frequencies) == pytest.approx(3 * row["nsites_primitive"], rel=1e-9)
        assert dos.frequencies[-1] == pytest.approx(29.9792458)  # 1000 cm⁻¹


def test_heat_capacity_of_pymatgen_is_ours_without_the_point_at_zero(vibrations):
    """Per mole of cells and of atoms; ours is of the area above ω = 0 scaled to one, theirs of all the density."""
    ours = heat_capacity(np.array([row["spectrum"] for row in vibrations]), PHDOS_GRID)
    for row, per_atom in zip(vibrations, ours, strict=True):
        dos = phonon_dos(row, PHDOS_GRID)
        above = PhononDos(dos.frequencies[1:], dos.densities[1:])
        states = np.trapezoid(above.densities, above.frequencies)
        assert above.cv(300.0) / states == pytest.approx(per_atom / 3, rel=1e-6)  # digits of the constants
        assert dos.cv(300.0) / row["nsites_primitive"] == pytest.approx(per_atom, rel=0.02)


def test_mean_frequency_is_the_first_moment_of_the_phonon_dos(vibrations):
    """The point at zero adds only to the norm: it lowers bundled means by 0.5 % in the median, and by 13 % at most."""
    ours = mean_frequency(np.array([row["spectrum"] for row in vibrations]), PHDOS_GRID)
    ratios = []
    for row, mean in zip(vibrations, ours, strict=True):
        dos = phonon_dos(row, PHDOS_GRID)
        omega, g = dos.frequencies, dos.densities
        above = np.trapezoid(omega[1:] * g[1:], omega[1:]) / np.trapezoid(g[1:], omega[1:])
        assert above / THZ == pytest.approx(mean, rel=1e-12)
        ratios.append(np.trapezoid(omega * g, omega) / np.trapezoid(g, omega) / THZ / mean)
    assert min(ratios) > 0.86
    assert max(ratios) < 1.01
    assert np.median(ratios) == pytest.approx(1, abs=0.01)


def test_the_plotters_of_pymatgen_draw_them(rows, vibrations):
    mpl.use("Agg")
    electrons = DosPlotter()
    electrons.add_dos("predicted", electronic_dos(rows[1]))
    vibrational = PhononDosPlotter()
    vibrational.add_dos("predicted", phonon_dos(vibrations[0], PHDOS_GRID))
    for plotter in (electrons, vibrational):
        axes = plotter.get_plot()
        assert any(len(line.get_xdata()) >= 51 for line in axes.lines)
        mpl.pyplot.close(axes.figure)
