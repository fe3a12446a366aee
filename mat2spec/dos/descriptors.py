"""What a spectrum says: the derived columns of a predictions table."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float

from mat2spec.dos.edge_gaps import ConductionBandRule, ValenceBandRule, cb_gaps, low_masks, vb_gaps
from mat2spec.dos.grid import Spectra, SpectrumGrid
from mat2spec.dos.metrics import most_likely_gap
from mat2spec.dos.thermodynamics import heat_capacity, mean_frequency

END_OF_GRID_FRACTION = 0.05
"""A spectrum whose last bin exceeds this fraction of its maximum goes on beyond the grid: 83 of the 1,522 DFT spectra do."""


def phonon_columns(spectra: Spectra, grid: SpectrumGrid) -> dict[str, pa.Array]:
    """What a phonon spectrum says: cm⁻¹, J/K per mole of atoms, and whether the grid ends too early for it."""
    return {
        "mean_frequency": pa.array(mean_frequency(spectra, grid), pa.float64()),
        "heat_capacity_300K": pa.array(heat_capacity(spectra, grid, 300.0), pa.float64()),
        "exceeds_grid": pa.array(spectra[:, -1] > END_OF_GRID_FRACTION * spectra.max(axis=1), pa.bool_()),
    }


def electron_columns(
    spectra: Spectra, gaps: Float[np.ndarray, "crystals 2"] | None, grid: SpectrumGrid, inputs: pa.Table
) -> dict[str, pa.Array]:
    """What an electronic spectrum and the predicted gap say.

    dos_sum is the sum of the bins. Edges and widths of gaps are in eV, NULL where there is none; a mask has a bit for each bin of at most
    1 state/eV. Whether a crystal is a metal (is_metal) is for the input's band_gap to say where it has one (gap_source "input"), else for
    the prediction ("predicted"); where neither knows, it is NULL.
    """
    columns = {"dos_sum": pa.array(spectra.sum(axis=1), pa.float64())}
    vb_rule, cb_rule = ValenceBandRule(), ConductionBandRule()
    for name, edges in (("vb_gap", vb_gaps(spectra, grid, vb_rule)), ("cb_gap", cb_gaps(spectra, grid, cb_rule))):
        for part, values in zip(("lower", "upper", "width"), edges.T, strict=True):
            columns[f"{name}_{part}"] = pa.array(values, pa.float64(), from_pandas=True)
    for name, mask in zip(("vb_mask", "cb_mask"), low_masks(spectra, vb_rule.threshold), strict=True):
        columns[name] = pa.array(mask, pa.int64())
    rows = len(spectra)
    columns["band_gap_pred"] = optional_floats(None if gaps is None else most_likely_gap(gaps), rows, pa.float64())
    columns["is_metal_prob"] = optional_floats(None if gaps is None else gaps[:, 0], rows, pa.float64())
    known = _known_gaps(inputs)
    metal = np.where(np.isfinite(known), known <= 0, gaps is not None and gaps[:, 0] > 0.5)
    otherwise = None if gaps is None else "predicted"
    columns["gap_source"] = pa.array(["input" if there else otherwise for there in np.isfinite(known)], pa.string())
    columns["is_metal"] = pc.if_else(
        pc.is_null(columns["gap_source"]), pa.scalar(None, pa.bool_()), pa.array(metal, pa.bool_())
    )
    return columns


def _known_gaps(inputs: pa.Table) -> Float[np.ndarray, " crystals"]:
    """Band gaps that the input has [eV], NaN where it has none."""
    if "band_gap" not in inputs.column_names or not _is_number(inputs.schema.field("band_gap").type):
        return np.full(len(inputs), np.nan)
    return inputs["band_gap"].cast(pa.float64()).to_numpy()


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_floating(kind) or pa.types.is_integer(kind)


def optional_floats(values: Float[np.ndarray, " crystals"] | None, rows: int, kind: pa.DataType) -> pa.Array:
    """Make a column of numbers, or of NULLs where there are none."""
    return pa.nulls(rows, kind) if values is None else pa.array(values, kind)
