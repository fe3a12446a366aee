"""The tables of a run: one row for each prediction, one for each reject."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from mat2spec.data.materials.schema import COLUMNS
from mat2spec.dos.descriptors import electron_columns, optional_floats, phonon_columns
from mat2spec.dos.grid import Spectra
from mat2spec.model.checkpoint import Checkpoint
from mat2spec.predict.predictor import Prediction
from mat2spec.structure.crystal import Crystal


def prediction_table(
    inputs: pa.Table,
    crystals: Sequence[Crystal],
    nsites_primitive: Sequence[int],
    prediction: Prediction,
    checkpoint: Checkpoint,
) -> pa.Table:
    """Put predictions beside what they are predictions of.

    A material was seen in training if the network was fitted to its spectrum or chosen on it: training and validation rows.

    Args:
        inputs: The rows of the materials table.
        crystals: The crystal of each row.
        nsites_primitive: Sites of the primitive cell of each.
        prediction: What is predicted of each.
        checkpoint: What predicted.
    """
    spectra, spread, grid = prediction.spectra, prediction.spread, checkpoint.grid
    if grid.per_cell:  # networks predict per atom
        sizes = np.array(nsites_primitive, np.float32)
        spectra, spread = spectra * sizes[:, None], None if spread is None else spread * sizes
    known = frozenset(checkpoint.card.training.elements)
    elements = [crystal.elements for crystal in crystals]
    columns = {
        "material_id": inputs["material_id"].cast(pa.string()),
        "formula_pretty": inputs["formula_pretty"].cast(pa.string()),
        "nsites": inputs["nsites"].cast(pa.int32()),
        "nsites_primitive": pa.array(nsites_primitive, pa.int32()),
        "elements": pa.array(elements, pa.list_(pa.string())),
        "spectrum": _fixed_size_lists(spectra),
        "spread": optional_floats(spread, len(crystals), pa.float32()),
        "seen_in_training": pa.array([c.material_id in checkpoint.training_ids for c in crystals], pa.bool_()),
        "unseen_elements": pa.array(
            [[e for e in present if e not in known] for present in elements], pa.list_(pa.string())
        ),
        **(
            electron_columns(spectra, prediction.gaps, grid, inputs) if grid.per_cell else phonon_columns(spectra, grid)
        ),
    }
    further = [name for name in inputs.column_names if name not in COLUMNS]
    for name in further:
        free = name
        while free in columns or (free != name and free in further):
            free = f"input_{free}"
        columns[free] = inputs[name]
    return pa.table(columns)


def _fixed_size_lists(spectra: Spectra) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(
        pa.array(np.ascontiguousarray(spectra, np.float32).ravel()), spectra.shape[1]
    )
