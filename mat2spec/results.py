"""The tables of a run: one row for each prediction, one for each reject."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from mat2spec.checkpoint import Checkpoint
from mat2spec.crystal import Crystal
from mat2spec.data.schema import COLUMNS
from mat2spec.spectrum import Spectra, SpectrumGrid
from mat2spec.thermo import heat_capacity, mean_frequency

REJECTS = pa.schema([(name, pa.string()) for name in ("material_id", "source", "stage", "error_type", "error")])
"""What is known of a row that has no prediction."""

END_OF_GRID_FRACTION = 0.05
"""A spectrum whose last bin exceeds this fraction of its maximum goes on beyond the grid: 83 of the 1,522 DFT spectra do."""


def prediction_table(
    inputs: pa.Table,
    crystals: Sequence[Crystal],
    nsites_primitive: Sequence[int],
    spectra: Spectra,
    spread: Float[np.ndarray, " crystals"] | None,
    checkpoint: Checkpoint,
) -> pa.Table:
    """Put predictions beside what they are predictions of.

    A material was seen in training if the network was fitted to it or chosen on it: training and validation rows.

    Args:
        inputs: The rows of the materials table.
        crystals: The crystal of each row.
        nsites_primitive: Sites of the primitive cell of each.
        spectra: The predictions.
        spread: Expected mean absolute error of each, if an ensemble predicted.
        checkpoint: What predicted.
    """
    known = frozenset(checkpoint.card.training.elements)
    elements = [crystal.elements for crystal in crystals]
    columns = {
        "material_id": inputs["material_id"].cast(pa.string()),
        "formula_pretty": inputs["formula_pretty"].cast(pa.string()),
        "nsites": inputs["nsites"].cast(pa.int32()),
        "nsites_primitive": pa.array(nsites_primitive, pa.int32()),
        "elements": pa.array(elements, pa.list_(pa.string())),
        "spectrum": _fixed_size_lists(spectra),
        "spread": pa.nulls(len(crystals), pa.float32()) if spread is None else pa.array(spread, pa.float32()),
        "seen_in_training": pa.array([c.material_id in checkpoint.training_ids for c in crystals], pa.bool_()),
        "unseen_elements": pa.array([[e for e in present if e not in known] for present in elements], pa.list_(pa.string())),
        **_phonon_columns(spectra, checkpoint.grid),
    }
    further = [name for name in inputs.column_names if name not in COLUMNS]
    for name in further:
        free = name
        while free in columns or (free != name and free in further):
            free = f"input_{free}"
        columns[free] = inputs[name]
    return pa.table(columns)


def _phonon_columns(spectra: Spectra, grid: SpectrumGrid) -> dict[str, pa.Array]:
    """What a phonon spectrum says: cm⁻¹, J/K per mole of atoms, and whether the grid ends too early for it."""
    return {
        "mean_frequency": pa.array(mean_frequency(spectra, grid), pa.float64()),
        "heat_capacity_300K": pa.array(heat_capacity(spectra, grid, 300.0), pa.float64()),
        "exceeds_grid": pa.array(spectra[:, -1] > END_OF_GRID_FRACTION * spectra.max(axis=1), pa.bool_()),
    }


def _fixed_size_lists(spectra: Spectra) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(spectra, np.float32).ravel()), spectra.shape[1])
