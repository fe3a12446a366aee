"""The predictions table: one row per material, with its spectrum and what follows from it."""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from mat2spec.data.materials.schema import COLUMNS, PRIMITIVE_SITES, has_primitive_sites
from mat2spec.dos.above_grid import ModesAboveGrid
from mat2spec.dos.descriptors import electron_columns, phonon_columns
from mat2spec.dos.grid import Spectra
from mat2spec.model.checkpoint import Checkpoint
from mat2spec.structure.crystal import Crystal

Column: TypeAlias = pa.Array | pa.ChunkedArray


class Prediction(NamedTuple):
    """What a checkpoint predicts for crystals, per atom.

    Args:
        spectra: States per unit of the grid and atom (phonons: states per cm⁻¹, integral 3 × (1 − share above the
            grid); electrons: states/eV).
        spread: Mean absolute error to be expected of each spectrum, in its unit; None without an ensemble.
        gaps: Probability of a metal, and band gap if it is none [eV]; None unless the checkpoint predicts them.
        above: Modes above the grid of phonons; None unless the checkpoint predicts them.
    """

    spectra: Spectra
    spread: Float[np.ndarray, " crystals"] | None = None
    gaps: Float[np.ndarray, "crystals 2"] | None = None
    above: ModesAboveGrid | None = None

    def take(self, rows: Int[np.ndarray, " rows"]) -> "Prediction":
        """Select crystals by number."""
        spectra, spread, gaps, above = self
        return Prediction(
            spectra[rows],
            None if spread is None else spread[rows],
            None if gaps is None else gaps[rows],
            None if above is None else above.take(rows),
        )


def prediction_table(
    inputs: pa.Table,
    crystals: Sequence[Crystal],
    nsites_primitive: Sequence[int],
    empty_radii: Sequence[float],
    prediction: Prediction,
    checkpoint: Checkpoint,
) -> pa.Table:
    """Join predictions with the rows of the input, whose other columns follow at the end.

    A material was seen in training if the network was fitted to its spectrum or chosen on it: training and validation
    rows. It is recognized by its structure, in whatever cell and under whatever name; `id_in_training` says whether
    one of these rows has its name.

    Args:
        inputs: Rows of a materials table.
        crystals: The crystal of each row.
        nsites_primitive: Sites of the primitive cell of each.
        empty_radii: Radius of the largest empty sphere in each [Å] (`structure.empty_space`).
        prediction: Of each row, per atom.
        checkpoint: Of the prediction.
    """
    spectra, spread, grid = prediction.spectra, prediction.spread, checkpoint.grid
    if grid.per_cell:
        sizes = np.array(nsites_primitive, np.float32)
        spectra = spectra * sizes[:, None]
        spread = None if spread is None else spread * sizes
    known_elements = frozenset(checkpoint.card.training.elements)
    elements = [crystal.elements for crystal in crystals]
    unseen_elements = [[element for element in row if element not in known_elements] for row in elements]
    ids_in_training = [crystal.material_id in checkpoint.training_ids for crystal in crystals]
    columns: dict[str, Column] = {
        "material_id": inputs["material_id"].cast(pa.string()),
        "formula_pretty": inputs["formula_pretty"].cast(pa.string()),
        "nsites": inputs["nsites"].cast(pa.int32()),
        "nsites_primitive": pa.array(nsites_primitive, pa.int32()),
        "volume_per_atom": pa.array([crystal.volume / len(crystal) for crystal in crystals], pa.float32()),
        "empty_radius": pa.array(empty_radii, pa.float32()),
        "elements": pa.array(elements, pa.list_(pa.string())),
        "spectrum": _fixed_size_lists(spectra),
        "spread": pa.nulls(len(crystals), pa.float32()) if spread is None else pa.array(spread, pa.float32()),
        "seen_in_training": pa.array([checkpoint.has_seen(crystal) for crystal in crystals], pa.bool_()),
        "id_in_training": pa.array(ids_in_training, pa.bool_()),
        "unseen_elements": pa.array(unseen_elements, pa.list_(pa.string())),
    }
    if grid.per_cell:
        columns |= electron_columns(spectra, prediction.gaps, grid, inputs)
    else:
        columns |= phonon_columns(spectra, grid, prediction.above)
    return pa.table(_with_extra_columns(columns, inputs))


def empty_prediction_table(inputs: pa.Table, checkpoint: Checkpoint) -> pa.Table:
    """Return a predictions table without rows, with the columns that rows of a materials table lead to."""
    spectra = np.empty((0, len(checkpoint.grid)), np.float32)
    return prediction_table(inputs.slice(0, 0), [], [], [], Prediction(spectra), checkpoint)


def _with_extra_columns(columns: dict[str, Column], inputs: pa.Table) -> dict[str, Column]:
    """Append the other columns of the input; a name that is taken gets the prefix input_, as often as needed.

    SQL ignores case, so MATERIAL_ID is taken.
    Sites of the primitive cell that the input has are those of the predictions.
    """
    ours = {*COLUMNS, PRIMITIVE_SITES} if has_primitive_sites(inputs.schema) else {*COLUMNS}
    extra = [name for name in inputs.column_names if name not in ours]
    joined = dict(columns)
    taken = {name.lower() for name in columns}
    others = {name.lower() for name in extra}
    for name in extra:
        free_name = name
        while free_name.lower() in taken or (free_name != name and free_name.lower() in others):
            free_name = f"input_{free_name}"
        taken.add(free_name.lower())
        joined[free_name] = inputs[name]
    return joined


def _fixed_size_lists(spectra: Spectra) -> pa.FixedSizeListArray:
    values = pa.array(np.ascontiguousarray(spectra, np.float32).ravel())
    return pa.FixedSizeListArray.from_arrays(values, spectra.shape[1])
