"""Raw curves to 128 bins: on all real curves that ship, and on random ones."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymatgen.core import Lattice, Structure
from pymatgen.electronic_structure.core import Spin
from pymatgen.electronic_structure.dos import CompleteDos, Dos
from scipy.integrate import quad

from mat2spec.data.materials.schema import check_schema, read_crystals
from mat2spec.dos.electronic import METAL_GAP, band_edges, resample, resample_pymatgen
from mat2spec.dos.electronic_checks import check_fermi_level, check_outer_electrons, states_below
from mat2spec.dos.grid import EDOS_GRID
from mat2spec.structure.symmetry import primitive_nsites

WIDTH = 0.0625

MAX_EDGE_ERROR = 0.08
"""[eV] Largest error of pymatgen's edges, compared with eigenvalues: 0.0759 in the bundled curves (GaAs)."""

FERMI_IN_A_BAND = {"mp-1228340"}
"""Its smeared Fermi level lies above the conduction band minimum, so that pymatgen takes it for a metal."""


@pytest.fixture(scope="module")
def table(bundled) -> pa.Table:
    return pq.read_table(bundled.with_name("edos_gpaw.parquet"))


@pytest.fixture(scope="module")
def rows(table) -> list[dict]:
    rows = table.to_pylist()
    for row in rows:
        row |= {name: np.array(row[name], np.float32) for name in ("energies", "densities", "edos")}
    return rows


@pytest.fixture(scope="module")
def insulator(rows) -> dict:
    return next(row for row in rows if row["material_id"] == "mp-149")  # silicon


@pytest.fixture(scope="module")
def metal(rows) -> dict:
    return next(row for row in rows if row["is_metal"] and row["material_id"] == "mp-1002209")


def resampled(row: dict, **changes):
    row = {**row, **changes}
    return resample(row["material_id"], row["energies"], row["densities"], row["vbm"], row["cbm"])


def as_dos(row: dict, kind: type[Dos] = Dos) -> Dos:
    return kind(row["efermi"], row["energies"].astype(float), {Spin.up: row["densities"].astype(float)})


def edges_in(dos: Dos) -> tuple[float, float]:
    return band_edges("curve", np.asarray(dos.energies), np.array(list(dos.densities.values())), dos.efermi)


def states_between(energies: np.ndarray, densities: np.ndarray, low: float, high: float) -> float:
    """The trapezoid rule over the points between, and the two ends."""
    inside = (energies > low) & (energies < high)
    at = np.concatenate([[low], energies[inside], [high]])
    return float(np.trapezoid(np.interp(at, energies, densities), at))


def test_integral_over_each_side_is_conserved(rows):
    for row in rows:
        energies, densities = row["energies"].astype(float), row["densities"].astype(float)
        below, above = np.split(resampled(row).spectrum * WIDTH, 2)
        assert below.sum() == pytest.approx(
            states_between(energies, densities, row["vbm"] - 4, row["vbm"]), abs=1e-9
        ), row["material_id"]
        assert above.sum() == pytest.approx(
            states_between(energies, densities, row["cbm"], row["cbm"] + 4), abs=1e-9
        ), row["material_id"]


def test_sides_hold_the_states_that_a_sum_over_the_raw_points_counts(rows):
    """Without interpolation: points times their distance, half a step of leeway at each end of a side."""
    for row in rows:
        energies, densities = row["energies"].astype(float), row["densities"].astype(float)
        step = energies[1] - energies[0]
        for low, side in zip((row["vbm"] - 4, row["cbm"]), np.split(resampled(row).spectrum, 2), strict=True):
            inside = (energies >= low) & (energies <= low + 4)
            leeway = step * sum(densities[np.abs(energies - end) < 2 * step].max() for end in (low, low + 4))
            assert side.sum() * WIDTH == pytest.approx(densities[inside].sum() * step, abs=leeway + 1e-3), row[
                "material_id"
            ]


def test_each_bin_is_the_mean_of_a_dense_sampling_of_it(insulator, metal):
    for row in (insulator, metal):
        edges = np.array(EDOS_GRID.edges)
        starts = np.concatenate([row["vbm"] + edges[:64], row["cbm"] + edges[64:-1]])
        samples = starts[:, None] + WIDTH * (np.arange(4000) + 0.5) / 4000
        expected = np.interp(samples, row["energies"].astype(float), row["densities"].astype(float)).mean(axis=1)
        np.testing.assert_allclose(resampled(row).spectrum, expected, atol=1e-6 * expected.max())


def test_each_bin_is_the_integral_that_scipy_finds(insulator):
    energies, densities = insulator["energies"].astype(float), insulator["densities"].astype(float)
    spectrum = resampled(insulator).spectrum
    for index in (0, 17, 40, 63, 64, 90, 127):
        start = (insulator["vbm"] if index < 64 else insulator["cbm"]) + EDOS_GRID.edges[index]
        kinks = energies[(energies > start) & (energies < start + WIDTH)]
        states, _ = quad(np.interp, start, start + WIDTH, args=(energies, densities), points=kinks)
        assert spectrum[index] == pytest.approx(states / WIDTH, rel=1e-9)


def test_a_peak_between_two_points_of_a_coarse_curve_is_counted():
    """Points 0.5 eV apart: a triangle of one state at −1 eV, whose bins hold no point but its top."""
    energies = np.arange(-5.0, 5.5, 0.5)
    densities = np.where(energies == -1.0, 2.0, 0.0)
    spectrum = resample("triangle", energies, densities, 0.0, 0.0).spectrum
    assert spectrum.sum() * WIDTH == pytest.approx(1.0, rel=1e-12)
    np.testing.assert_allclose(spectrum[48:56], 2 - (np.arange(8) + 0.5) * WIDTH * 4, rtol=1e-12)


@pytest.mark.parametrize("shift", [-137.03, 1 / 3, 12.5])
def test_the_zero_of_energy_changes_nothing(rows, shift):
    for row in rows[:40]:
        energies = row["energies"].astype(float)
        here = resampled(row, energies=energies)
        there = resampled(row, energies=energies + shift, vbm=row["vbm"] + shift, cbm=row["cbm"] + shift)
        np.testing.assert_allclose(there.spectrum, here.spectrum, atol=1e-9 * here.spectrum.max())
        assert there.band_gap == pytest.approx(here.band_gap, abs=1e-12)


def test_two_half_channels_are_their_sum(insulator, metal):
    for row in (insulator, metal):
        halves = np.stack([row["densities"] / 2] * 2)
        np.testing.assert_allclose(resampled(row, densities=halves).spectrum, resampled(row).spectrum, rtol=1e-12)
        dos = as_dos(row)
        spins = Dos(dos.efermi, dos.energies, {Spin.up: halves[0], Spin.down: halves[1]})
        np.testing.assert_allclose(
            resample_pymatgen("halves", spins, nonmagnetic=True).spectrum, resample_pymatgen("sum", dos).spectrum
        )


def test_a_metal_has_no_gap_and_both_references_at_the_fermi_level(metal):
    dos = resample_pymatgen(metal["material_id"], as_dos(metal))
    assert (dos.vbm, dos.cbm, dos.band_gap, dos.is_metal) == (metal["efermi"], metal["efermi"], 0.0, True)
    np.testing.assert_allclose(dos.spectrum, metal["edos"], rtol=1e-6)


def test_a_metal_whose_fermi_level_is_a_point_of_the_curve_is_a_metal(metal):
    """pymatgen skips such a point and then fails on the edges of the gap that it takes it for."""
    dos = as_dos(metal)
    dos.efermi = float(dos.energies[np.abs(dos.energies - metal["efermi"]).argmin()])
    with pytest.raises(ValueError, match="out of range"):
        dos.get_gap()
    assert edges_in(dos) == (dos.efermi, dos.efermi)


def test_edges_of_pymatgen_are_those_of_the_bands(rows):
    for row in rows:
        if row["is_metal"] or row["material_id"] in FERMI_IN_A_BAND:
            continue
        vbm, cbm = edges_in(as_dos(row))
        assert vbm == pytest.approx(row["vbm"], abs=MAX_EDGE_ERROR), row["formula_pretty"]
        assert cbm == pytest.approx(row["cbm"], abs=MAX_EDGE_ERROR), row["formula_pretty"]


def test_all_but_one_metal_are_metals_from_their_curve_alone(rows):
    """The one is germanium: PBE closes its gap at a single point, where there are next to no states."""
    gapped = [row["material_id"] for row in rows if row["is_metal"] and np.ptp(edges_in(as_dos(row))) > 0]
    assert gapped == ["mp-32"]


@pytest.mark.parametrize(("gap", "has_gap"), [(0.04, False), (0.09, True)])
def test_a_gap_narrower_than_a_bin_is_none(gap, has_gap):
    energies = np.arange(-5, 5, 0.005) + 0.0021
    dos = Dos(0.0, energies, {Spin.up: np.where(np.abs(energies) < gap / 2, 0.0, 1.0)})
    vbm, cbm = edges_in(dos)
    assert (cbm - vbm >= METAL_GAP) == has_gap
    assert (vbm == cbm == 0.0) != has_gap


def test_a_complete_dos_counts_states_of_the_cell_also_if_it_is_normalized_to_volume(insulator):
    structure = Structure(Lattice.cubic(5.0), ["Si"], [[0, 0, 0]])
    energies, densities = insulator["energies"].astype(float), {Spin.up: insulator["densities"].astype(float)}
    plain = CompleteDos(structure, Dos(insulator["efermi"], energies, densities), {})
    normalized = CompleteDos(structure, Dos(insulator["efermi"], energies, densities), {}, normalize=True)
    assert normalized.densities[Spin.up].max() == pytest.approx(plain.densities[Spin.up].max() / 125)
    here, there = resample_pymatgen("per cell", plain), resample_pymatgen("per volume", normalized)
    np.testing.assert_allclose(there.spectrum, here.spectrum, rtol=1e-12)
    assert np.abs(here.spectrum - insulator["edos"]).max() < 0.2  # pymatgen's edges lie some meV off the eigenvalues


def test_the_bundled_spectra_are_those_of_the_raw_curves_beside_them(rows):
    for row in rows:
        dos = resampled(row)
        np.testing.assert_array_equal(row["edos"], dos.spectrum.astype(np.float32), err_msg=row["material_id"])
        assert dos.is_metal == row["is_metal"]
        assert dos.band_gap == pytest.approx(row["band_gap"], abs=1e-12)


@pytest.mark.parametrize("name", ["edos_gpaw.parquet", "edos_gpaw/part-001.parquet", "edos_gpaw/part-002.parquet"])
def test_no_bundled_curve_is_refused_for_its_number_of_states(bundled, name):
    for row in pq.read_table(bundled.parent / name).to_pylist():
        energies, channels = np.array(row["energies"], float), np.array([row["densities"]], float)
        middle = (row["vbm"] + row["cbm"]) / 2
        states = states_below(energies, channels, middle)
        check_outer_electrons(row["material_id"], states, np.array(row["atomic_numbers"]), middle)
        check_fermi_level(row["material_id"], energies, channels, row["efermi"])


def test_the_bundled_table_is_a_materials_table_of_primitive_cells(table):
    check_schema(table.schema, "edos_gpaw.parquet")
    assert len(set(table["material_id"].to_pylist())) == len(table)
    for crystal, formula in zip(read_crystals(table), table["formula_pretty"].to_pylist(), strict=True):
        assert primitive_nsites(crystal) == len(crystal), crystal.material_id
        assert crystal.formula == formula


curves = st.builds(
    lambda seed, points, scale, spins: (np.random.default_rng(seed), points, scale, spins),
    st.integers(0, 2**32 - 1),
    st.integers(2, 300),
    st.sampled_from([1e-6, 1.0, 1e6]),
    st.sampled_from([1, 2]),
)


@given(curves)
def test_random_curves_keep_their_states(curve):
    """Points at random distances, any two edges, some densities slightly negative."""
    rng, points, scale, spins = curve
    vbm, gap = rng.normal(0, 10), rng.choice([0.0, rng.exponential(2.0)])
    low, high = vbm - 4 - rng.exponential(), vbm + gap + 4 + rng.exponential()
    energies = np.unique(np.concatenate([[low, vbm - 2, high], rng.uniform(low, high, points)]))
    densities = scale * rng.exponential(size=(spins, len(energies))) * rng.integers(0, 2, (spins, len(energies)))
    densities[:, energies == vbm - 2] = scale
    densities[:, 0] = 0.0  # a first density far above the second would hold the states below the curve
    noisy = densities - 1e-4 * scale * (densities == 0)
    dos = resample("random", energies, noisy, vbm, vbm + gap)
    assert (dos.spectrum >= 0).all()
    for start, side in zip((vbm - 4, vbm + gap), np.split(dos.spectrum, 2), strict=True):
        states = sum(states_between(energies, channel, start, start + 4) for channel in densities)
        assert side.sum() * WIDTH == pytest.approx(states, rel=1e-9, abs=1e-9 * scale)
