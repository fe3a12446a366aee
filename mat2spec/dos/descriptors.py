"""Columns derived from spectra: frequencies and thermodynamics of phonons, gaps and metallicity of electrons."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float

from mat2spec.dos.above_grid import ModesAboveGrid
from mat2spec.dos.edge_gaps import ConductionBandRule, ValenceBandRule, cb_gaps, low_masks, mean_densities, vb_gaps
from mat2spec.dos.grid import Spectra, SpectrumGrid
from mat2spec.dos.metrics import most_likely_gap
from mat2spec.dos.thermodynamics import (
    heat_capacity,
    max_frequency,
    mean_frequency,
    vibrational_entropy,
    vibrational_free_energy,
)

END_OF_GRID_FRACTION = 0.05
"""Where the share of the modes above the grid is unknown, phonon spectra with more than this fraction of their maximum
in the last bin exceed it: 83 of 1,522 by DFT. Bands that lie wholly above the grid are missed."""

GAP_PARTS = ("lower", "upper", "width", "density")
"""Columns of a gap: edges and width [eV], mean density inside [states/eV per primitive cell]."""


def phonon_columns(spectra: Spectra, grid: SpectrumGrid, above: ModesAboveGrid | None = None) -> dict[str, pa.Array]:
    """Return the derived columns of phonon spectra, per mole of atoms where they are extensive.

    mean_frequency and max_frequency [cm⁻¹], the latter NULL for a spectrum that exceeds the grid (exceeds_grid);
    heat_capacity_300K and entropy_300K [J/K]; free_energy_300K [kJ]; share_above_grid and mean_frequency_above_grid
    [cm⁻¹] of the modes above the grid, which all of these but max_frequency include; NULL where they are unknown.

    Args:
        spectra: Phonon densities of states in any scale.
        grid: Frequencies [cm⁻¹].
        above: Modes above the grid; None: unknown, and the last bin decides whether a spectrum exceeds the grid.
    """
    exceeds_grid = spectra[:, -1] > END_OF_GRID_FRACTION * spectra.max(axis=1) if above is None else above.exceed
    unknown = pa.nulls(len(spectra), pa.float64())
    return {
        "mean_frequency": pa.array(mean_frequency(spectra, grid, above), pa.float64()),
        "max_frequency": pa.array(max_frequency(spectra, grid), pa.float64(), mask=exceeds_grid),
        "heat_capacity_300K": pa.array(heat_capacity(spectra, grid, above=above), pa.float64()),
        "entropy_300K": pa.array(vibrational_entropy(spectra, grid, above=above), pa.float64()),
        "free_energy_300K": pa.array(vibrational_free_energy(spectra, grid, above=above), pa.float64()),
        "exceeds_grid": pa.array(exceeds_grid, pa.bool_()),
        "share_above_grid": pa.array(above.shares, pa.float64()) if above else unknown,
        "mean_frequency_above_grid": pa.array(above.frequencies, pa.float64()) if above else unknown,
    }


def electron_columns(
    spectra: Spectra, gaps: Float[np.ndarray, "crystals 2"] | None, grid: SpectrumGrid, inputs: pa.Table
) -> dict[str, pa.Array]:
    """Return the derived columns of electronic spectra.

    dos_sum is the sum of the bins. Edges and widths of vb_gap and cb_gap are in eV, their densities the mean inside the
    gap [states/eV per primitive cell]; all NULL where there is no gap. A mask has a bit for each bin of at most
    1 state/eV. band_gap_pred [eV] and is_metal_prob are the network's; is_metal is
    decided by the input's band_gap where it has one (gap_source "input"), else by the network ("predicted"), and is
    NULL without both.

    Args:
        spectra: Electronic densities of states [states/eV per primitive cell].
        gaps: Predicted probability of a metal, and band gap if it is none [eV]; None without a prediction.
        grid: Their bins [eV].
        inputs: Rows of the materials table, perhaps with a column band_gap [eV].
    """
    return {
        "dos_sum": pa.array(spectra.sum(axis=1), pa.float64()),
        **_edge_gap_columns(spectra, grid),
        **_band_gap_columns(gaps, _known_gaps(inputs)),
    }


def _edge_gap_columns(spectra: Spectra, grid: SpectrumGrid) -> dict[str, pa.Array]:
    vb_rule = ValenceBandRule()
    columns = {}
    for name, gaps in (
        ("vb_gap", vb_gaps(spectra, grid, vb_rule)),
        ("cb_gap", cb_gaps(spectra, grid, ConductionBandRule())),
    ):
        parts = (*gaps.T, mean_densities(spectra, grid, gaps))
        for part, values in zip(GAP_PARTS, parts, strict=True):
            columns[f"{name}_{part}"] = pa.array(values, pa.float64(), from_pandas=True)
    for name, mask in zip(("vb_mask", "cb_mask"), low_masks(spectra, vb_rule.threshold), strict=True):
        columns[name] = pa.array(mask, pa.int64())
    return columns


def _band_gap_columns(
    gaps: Float[np.ndarray, "crystals 2"] | None, known: Float[np.ndarray, " crystals"]
) -> dict[str, pa.Array]:
    is_known = np.isfinite(known)
    source_of_others = None if gaps is None else "predicted"
    source = pa.array(["input" if is_input else source_of_others for is_input in is_known], pa.string())
    predicted_metal = False if gaps is None else gaps[:, 0] > 0.5
    is_metal = pa.array(np.where(is_known, known <= 0, predicted_metal), pa.bool_())
    nulls = pa.nulls(len(known), pa.float64())
    return {
        "band_gap_pred": nulls if gaps is None else pa.array(most_likely_gap(gaps), pa.float64()),
        "is_metal_prob": nulls if gaps is None else pa.array(gaps[:, 0], pa.float64()),
        "gap_source": source,
        "is_metal": pc.if_else(pc.is_null(source), pa.scalar(None, pa.bool_()), is_metal),
    }


def _known_gaps(inputs: pa.Table) -> Float[np.ndarray, " crystals"]:
    """Band gaps of the input [eV]; NaN where it has none, or the column holds no numbers."""
    if "band_gap" not in inputs.column_names or not _is_number(inputs.schema.field("band_gap").type):
        return np.full(len(inputs), np.nan)
    return inputs["band_gap"].cast(pa.float64()).to_numpy()


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_floating(kind) or pa.types.is_integer(kind)
