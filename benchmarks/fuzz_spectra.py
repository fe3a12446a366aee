"""Electronic and phonon curves with known band edges and units: VASP runs, pymatgen's objects, plain arrays."""

import inspect
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from pymatgen.core import Lattice, Structure
from pymatgen.electronic_structure.core import Spin
from pymatgen.electronic_structure.dos import CompleteDos, Dos
from pymatgen.io.vasp import Vasprun
from scipy.constants import c, e, h
from scipy.ndimage import gaussian_filter1d
from scipy.optimize import brentq
from scipy.special import erfc

from mat2spec.dft.vasp_bands import curve_of, vasp_band_edges
from mat2spec.dos.electronic import ElectronicDos, resample, resample_pymatgen
from mat2spec.dos.grid import EDOS_GRID
from mat2spec.dos.phonon import resample_phonons
from mat2spec.structure.crystal import Crystal

PHONONS = Path(__file__).parents[1] / "mat2spec/data/bundled/phdos_petretto.parquet"

EDGES = 0.3
"""[eV] Largest error of a band edge: a mesh and a broadened curve show no more."""

SPECTRUM = 0.15
"""Largest difference of two spectra, as a fraction of the states."""

DENSE = 24
"""Points of the mesh of the true edges along each axis; a multiple of every mesh of a run."""


@dataclass(frozen=True)
class Bands:
    """Bands of a simple cubic crystal, eₙ + tₙ·cos k, which mix where they cross; edges are those of a dense mesh.

    Args:
        centers: eₙ [eV].
        hoppings: tₙ along three axes [eV].
        electrons: In the cell.
    """

    centers: np.ndarray
    hoppings: np.ndarray
    electrons: int

    def on_mesh(self, points: int) -> tuple[np.ndarray, np.ndarray]:
        """Energies at the irreducible points of a mesh, and the weights of these, which add up to one."""
        axis = np.arange(points // 2 + 1)
        grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
        weights = np.prod(np.where((grid == 0) | (grid == points // 2), 1, 2), axis=1) / points**3
        return np.sort(self.centers + np.cos(2 * np.pi * grid / points) @ self.hoppings.T, axis=1), weights

    @property
    def edges(self) -> tuple[float, float]:
        """VBM and CBM; of a metal, the Fermi level twice."""
        energies, weights = self.on_mesh(DENSE)
        filled = self.electrons // 2
        if self.electrons % 2 == 0 and energies[:, filled].min() > energies[:, filled - 1].max():
            return float(energies[:, filled - 1].max()), float(energies[:, filled].min())
        fermi = fermi_level(energies, weights, self.electrons, 0.02)
        return fermi, fermi

    @property
    def is_clear(self) -> bool:
        """Whether gap or overlap is so large that no mesh may hide it."""
        energies, _ = self.on_mesh(DENSE)
        filled = self.electrons // 2
        gap = float(energies[:, filled].min() - energies[:, filled - 1].max())
        return self.electrons % 2 == 1 or gap > 0.6 or gap < -0.6


def random_bands(rng: random.Random) -> Bands:
    while True:
        count = rng.randint(4, 8)
        centers = np.cumsum([rng.uniform(0.3, 4.0) for _ in range(count)])
        hoppings = np.array([[rng.uniform(-0.7, 0.7) for _ in range(3)] for _ in range(count)])
        electrons = rng.choice((2 * rng.randint(1, count - 2), rng.randint(2, 2 * count - 3)))
        bands = Bands(centers - centers[electrons // 2] + rng.uniform(-3, 3), hoppings, electrons)
        if bands.is_clear:
            return bands


def fermi_level(energies: np.ndarray, weights: np.ndarray, electrons: float, smearing: float) -> float:
    """Level at which smeared occupations hold all electrons."""

    def excess(level: float) -> float:
        return float(2 * weights @ occupations(energies, level, smearing).sum(axis=1)) - electrons

    return float(brentq(excess, energies.min() - 3, energies.max() + 3))


def occupations(energies: np.ndarray, level: float, smearing: float) -> np.ndarray:
    return 0.5 * erfc((energies - level) / smearing)


def curve(bands: Bands, axis: np.ndarray, broadening: float = 0.04) -> np.ndarray:
    """Density of states of a dense mesh on an axis of equal steps [states/eV per cell], as the mean over each step."""
    energies, weights = bands.on_mesh(DENSE)
    fine = np.arange(-40.0, 60.0, 0.01)
    histogram, _ = np.histogram(energies, bins=fine, weights=np.repeat(2 * weights[:, None], energies.shape[1], axis=1))
    states = np.concatenate([[0.0], np.cumsum(gaussian_filter1d(histogram, broadening / 0.01))])
    step = axis[1] - axis[0]
    return np.diff(np.interp(np.append(axis, axis[-1] + step) - step / 2, fine, states)) / step


@dataclass(frozen=True)
class SpectrumCase:
    """A kind of input, the function that reads it, and the judgement of what it returns."""

    kind: str
    read: Callable[[], Any]
    is_true: Callable[[Any], bool]
    by_pymatgen: Callable[[], bool] | None = None
    """Whether pymatgen's reading of the same input is true; raises where it refuses."""


def _true_spectrum(bands: Bands) -> np.ndarray:
    axis = np.arange(-30.0, 40.0, 0.02)
    return resample("true", axis, curve(bands, axis), *bands.edges).spectrum


def _is_true(bands: Bands, found: ElectronicDos) -> bool:
    """Whether edges and densities are those of the bands."""
    vbm, cbm = bands.edges
    if (found.band_gap == 0) != (vbm == cbm) or max(abs(found.vbm - vbm), abs(found.cbm - cbm)) > EDGES:
        return False
    true = _true_spectrum(bands)
    shifted = resample("found", *_moved(bands, vbm, cbm, found)).spectrum
    return bool(min(_difference(found.spectrum, other) for other in (true, shifted)) < SPECTRUM)


def _moved(bands: Bands, vbm: float, cbm: float, found: ElectronicDos) -> tuple[Any, ...]:
    """The true curve, binned from the edges that were found: bins shift with them."""
    axis = np.arange(-30.0, 40.0, 0.02)
    return axis, curve(bands, axis), found.vbm, found.cbm


def _difference(one: np.ndarray, other: np.ndarray) -> float:
    """Of the states that are below each energy, so that a state in a neighboring bin does not matter."""
    total = other.sum() * EDOS_GRID.widths[0]
    sums = np.abs(np.cumsum(one - other)) * EDOS_GRID.widths[0]
    return float(sums.max() / max(total, 1e-9))


def vasp_case(rng: random.Random) -> SpectrumCase:
    """A VASP run as pymatgen's Vasprun holds it, whole, thinned, smeared or wrong."""
    bands = random_bands(rng)
    run = _run(bands, rng)
    kind = rng.choice(sorted(VASP_CHANGES))
    VASP_CHANGES[kind](run, bands, rng)

    def read() -> ElectronicDos:
        edges = vasp_band_edges("case", run)
        return resample("case", *curve_of(run), *edges)

    def by_pymatgen() -> bool:
        gap, cbm, vbm, _ = inspect.getattr_static(Vasprun, "eigenvalue_band_properties").fget(run)
        true_vbm, true_cbm = bands.edges
        if true_vbm == true_cbm:
            return bool(gap < 0.0625)
        return bool(gap > 0 and max(abs(vbm - true_vbm), abs(cbm - true_cbm)) < EDGES)

    return SpectrumCase(f"VASP {kind}", read, partial(_is_true, bands), by_pymatgen)


def _run(bands: Bands, rng: random.Random) -> Any:
    energies, weights = bands.on_mesh(rng.choice((6, 8, 12)))
    smearing = rng.choice((0.01, 0.05))
    fermi = fermi_level(energies, weights, bands.electrons, smearing)
    vbm, cbm = bands.edges
    if vbm != cbm:
        fermi = rng.uniform(vbm + 0.2, cbm - 0.2)
    run = SimpleNamespace(
        eigenvalues={Spin.up: np.stack([energies, occupations(energies, fermi, smearing)], axis=-1)},
        actual_kpoints_weights=list(weights),
        parameters={"NELECT": float(bands.electrons)},
        efermi=fermi,
        occu_tol=1e-8,
        separate_spins=False,
    )
    _set_curve(run, bands, np.arange(-25.0, 35.0, rng.choice((0.01, 0.02, 0.05))))
    return run


def _set_curve(run: Any, bands: Bands, axis: np.ndarray, scale: float = 1.0) -> None:
    """Curve and its integral; the first point holds the states below it, as VASP writes them."""
    densities, step = curve(bands, axis), axis[1] - axis[0]
    everything = np.arange(-40.0, axis[0] - step / 2, 0.01)
    below = float(curve(bands, everything).sum() * 0.01) if len(everything) > 1 else 0.0
    densities[0] += below / step
    run.idos = Dos(run.efermi, axis, {Spin.up: np.cumsum(densities) * step})
    run.tdos = Dos(run.efermi, axis, {Spin.up: scale * densities})


def _thinned(run: Any, bands: Bands, rng: random.Random, normalized: bool) -> None:
    count = len(run.actual_kpoints_weights)
    chosen = sorted(rng.sample(range(count), max(2, int(count * rng.uniform(0.2, 0.9)))))
    run.eigenvalues = {spin: channel[chosen] for spin, channel in run.eigenvalues.items()}
    weights = np.array(run.actual_kpoints_weights)[chosen]
    run.actual_kpoints_weights = list(weights / weights.sum() if normalized else weights)


def _smeared(run: Any, bands: Bands, rng: random.Random) -> None:
    smearing = rng.uniform(0.1, 0.6)
    energies, weights = run.eigenvalues[Spin.up][..., 0], np.array(run.actual_kpoints_weights)
    run.efermi = fermi_level(energies, weights, bands.electrons, smearing)
    run.eigenvalues[Spin.up][..., 1] = occupations(energies, run.efermi, smearing)


def _windowed(run: Any, bands: Bands, rng: random.Random) -> None:
    """A curve that begins 3 to 9 eV below the VBM, behind the states below it."""
    _set_curve(run, bands, np.arange(bands.edges[0] - rng.uniform(3, 9), 35.0, 0.02))


def _coarse(run: Any, bands: Bands, rng: random.Random) -> None:
    _set_curve(run, bands, np.arange(-25.0, 35.0, rng.uniform(0.2, 1.2)))


def _scaled(run: Any, bands: Bands, rng: random.Random) -> None:
    _set_curve(run, bands, np.arange(-25.0, 35.0, 0.02), scale=rng.choice((0.5, 2.0, 0.01, 1 / bands.electrons)))


def _shifted(run: Any, bands: Bands, rng: random.Random) -> None:
    run.efermi += rng.choice((-1, 1)) * rng.uniform(0.5, 8.0)


def _curve_to_zero(run: Any, bands: Bands, rng: random.Random) -> None:
    """A curve with the Fermi level at zero, beside bands on the absolute scale."""
    run.tdos = Dos(0.0, run.tdos.energies - run.efermi, run.tdos.densities)
    run.idos = Dos(0.0, run.idos.energies - run.efermi, run.idos.densities)


def _two_channels(run: Any, bands: Bands, rng: random.Random) -> None:
    run.eigenvalues[Spin.down] = run.eigenvalues[Spin.up].copy()
    for dos in (run.tdos, run.idos):
        dos.densities = dict.fromkeys((Spin.up, Spin.down), dos.densities[Spin.up] / 2)


def _one_channel_lost(run: Any, bands: Bands, rng: random.Random) -> None:
    _two_channels(run, bands, rng)
    for dos in (run.tdos, run.idos):
        del dos.densities[Spin.down]


def _miscounted(run: Any, bands: Bands, rng: random.Random) -> None:
    run.parameters["NELECT"] += rng.choice((-2.0, -1.0, 1.0, 2.0))


VASP_CHANGES: dict[str, Callable[[Any, Bands, random.Random], None]] = {
    "whole mesh": lambda run, bands, rng: None,
    "thinned mesh": partial(_thinned, normalized=False),
    "thinned mesh, weights normalized": partial(_thinned, normalized=True),
    "smeared occupations": _smeared,
    "first-point spike": _windowed,
    "coarse curve": _coarse,
    "scaled curve": _scaled,
    "Fermi level shifted": _shifted,
    "curve on another zero": _curve_to_zero,
    "two spin channels": _two_channels,
    "a spin channel of the curve lost": _one_channel_lost,
    "NELECT wrong": _miscounted,
}


def dos_case(rng: random.Random) -> SpectrumCase:
    """A pymatgen Dos with its number of electrons, or a CompleteDos with its crystal."""
    bands = random_bands(rng)
    axis = np.arange(-25.0, 35.0, rng.choice((0.01, 0.02, 0.05)))
    vbm, cbm = bands.edges
    fermi = vbm if vbm == cbm else rng.uniform(vbm + 0.2, cbm - 0.2)
    dos = Dos(fermi, axis, {Spin.up: curve(bands, axis, 0.02)})
    kind = rng.choice(sorted(DOS_CHANGES))
    changed = DOS_CHANGES[kind](dos, bands, rng)
    electrons = None if isinstance(changed, CompleteDos) else float(bands.electrons)

    def by_pymatgen() -> bool:
        found_cbm, found_vbm = changed.get_cbm_vbm(1e-4)
        if vbm == cbm:
            return bool(found_cbm - found_vbm < 0.0625)
        return bool(max(abs(found_vbm - vbm), abs(found_cbm - cbm)) < EDGES)

    return SpectrumCase(
        f"Dos {kind}",
        lambda: resample_pymatgen("case", changed, electrons=electrons),
        partial(_is_true, bands),
        by_pymatgen,
    )


def _with(dos: Dos, **values: Any) -> Dos:
    return Dos(
        values.get("efermi", dos.efermi), values.get("energies", dos.energies), values.get("densities", dos.densities)
    )


def _times(dos: Dos, factor: float) -> Dos:
    return _with(dos, densities={spin: densities * factor for spin, densities in dos.densities.items()})


def _complete(dos: Dos, bands: Bands, rng: random.Random, scale: str) -> CompleteDos:
    """In a cell of beryllium and, for an odd electron, lithium: 12 Å³ for each atom."""
    symbols = ["Be"] * (bands.electrons // 2) + ["Li"] * (bands.electrons % 2)
    places = [[index / len(symbols), 0, 0] for index in range(len(symbols))]
    structure = Structure(Lattice.orthorhombic(3.0 * len(symbols), 2, 2), symbols, places)
    if scale == "stored per volume":
        return CompleteDos.from_dict(CompleteDos(structure, dos, {}, normalize=True).as_dict())
    factor = {"per volume": 1 / structure.volume, "times volume": structure.volume, "as it is": 1.0}[scale]
    return CompleteDos(structure, _times(dos, factor), {}, normalize=scale == "as it is" and rng.random() < 0.3)


def _with_spike(dos: Dos, bands: Bands, rng: random.Random) -> Dos:
    run = SimpleNamespace(efermi=dos.efermi)
    _set_curve(run, bands, np.arange(bands.edges[0] - rng.uniform(3.0, 9.0), 35.0, 0.02))
    return run.tdos


DOS_CHANGES: dict[str, Callable[[Dos, Bands, random.Random], Dos]] = {
    "as it is": lambda dos, bands, rng: dos,
    "lists": lambda dos, bands, rng: _with(
        dos, energies=dos.energies.tolist(), densities={Spin.up: dos.densities[Spin.up].tolist()}
    ),
    "two channels": lambda dos, bands, rng: _with(dos, densities=dict.fromkeys(Spin, dos.densities[Spin.up] / 2)),
    "one channel lost": lambda dos, bands, rng: _times(dos, 0.5),
    "scaled": lambda dos, bands, rng: _times(dos, rng.choice((0.01, 0.1, 0.8, 1.25, 2.0, 10.0))),
    "first-point spike": _with_spike,
    "Fermi level None": lambda dos, bands, rng: _with(dos, efermi=None),
    "Fermi level shifted": lambda dos, bands, rng: _with(
        dos, efermi=dos.efermi + rng.choice((-1, 1)) * rng.uniform(2.0, 9.0)
    ),
    "axis shifted": lambda dos, bands, rng: _with(
        dos, energies=dos.energies - rng.choice((-1, 1)) * rng.uniform(2.0, 9.0)
    ),
    "descending": lambda dos, bands, rng: _with(dos, energies=dos.energies[::-1].copy()),
    "cut at the Fermi level": lambda dos, bands, rng: _with(
        dos,
        energies=dos.energies[dos.energies <= dos.efermi],
        densities={Spin.up: dos.densities[Spin.up][dos.energies <= dos.efermi]},
    ),
    "axis in Hartree": lambda dos, bands, rng: _with(dos, energies=dos.energies / 27.2114, efermi=dos.efermi / 27.2114),
    "CompleteDos": partial(_complete, scale="as it is"),
    "CompleteDos per volume": partial(_complete, scale="per volume"),
    "CompleteDos times volume": partial(_complete, scale="times volume"),
    "CompleteDos stored per volume": partial(_complete, scale="stored per volume"),
}


@cache
def _phonons() -> list[dict[str, Any]]:
    return [row for row in pq.read_table(PHONONS).to_pylist() if row["phdos"] is not None]


FACTORS = {
    "cm⁻¹": 1.0,
    "THz": 100 * c * 1e-12,
    "rad/ps": 2 * np.pi * 100 * c * 1e-12,
    "meV": h * 100 * c / e * 1e3,
    "eV": h * 100 * c / e,
    "Hz": 100 * c,
    "Hartree": h * 100 * c / e / 27.2114,
}
"""Unit per cm⁻¹."""


def phonon_case(rng: random.Random) -> SpectrumCase:
    """A bundled phonon spectrum of a crystal, labeled cm⁻¹, in this unit or another, or broken."""
    row = rng.choice(_phonons())
    frequencies, densities = np.arange(51) * 20.0, np.array(row["phdos"], float)
    crystal = Crystal.from_row(row)
    mean = float(frequencies @ densities / densities.sum())
    kind = rng.choice(("cm⁻¹", *FACTORS, *PHONON_CHANGES))
    if kind in FACTORS:
        points, values = frequencies * FACTORS[kind], densities / FACTORS[kind]
    else:
        points, values = PHONON_CHANGES[kind](frequencies, densities)
    with_crystal = kind in ("meV", "rad/ps") or rng.random() < 0.8  # without, these frequencies are possible

    def is_true(found: Any) -> bool:
        found_mean = float(frequencies @ found.spectrum / found.spectrum.sum())
        return abs(found_mean - mean) < 0.1 * mean

    known = "" if with_crystal else ", crystal unknown"
    hydrogen = ", with H" if with_crystal and 1 in crystal.atomic_numbers else ""
    read = partial(resample_phonons, "case", points, values, crystal if with_crystal else None)
    return SpectrumCase(f"phonons in {kind}{known}{hydrogen}", read, is_true)


PHONON_CHANGES: dict[str, Callable[[np.ndarray, np.ndarray], tuple[Any, Any]]] = {
    "lists": lambda x, y: (x.tolist(), y.tolist()),
    "complex numbers": lambda x, y: (x + 1j, y),
    "descending order": lambda x, y: (x[::-1].copy(), y),
    "an unstable crystal": lambda x, y: (x - 300.0, y),
    "no numbers": lambda x, y: (x, [None] * len(y)),
}
