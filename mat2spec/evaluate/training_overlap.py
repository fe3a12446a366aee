"""Overlap of a material's elements with the training set."""

from collections import defaultdict
from collections.abc import Sequence

import pyarrow as pa

from mat2spec.data.labels.dataset import LabeledCrystals
from mat2spec.structure.crystal import Crystal


def training_neighbors(crystals: Sequence[Crystal], training: Sequence[Crystal]) -> list[int]:
    """Count, for each crystal, the other training crystals that contain all of its elements and possibly more."""
    ids_with: defaultdict[str, set[str]] = defaultdict(set)
    for row in training:
        for element in row.elements:
            ids_with[element].add(row.material_id)
    return [
        len(set.intersection(*(ids_with[element] for element in crystal.elements)) - {crystal.material_id})
        for crystal in crystals
    ]


def material_columns(materials: LabeledCrystals, training: Sequence[Crystal]) -> dict[str, pa.Array]:
    """Columns that identify each material, and the number of training crystals that contain all of its elements."""
    crystals = materials.crystals
    return {
        "material_id": pa.array(materials.material_ids, pa.string()),
        "formula_pretty": pa.array([crystal.formula for crystal in crystals], pa.string()),
        "nsites": pa.array([len(crystal) for crystal in crystals], pa.int32()),
        "elements": pa.array([crystal.elements for crystal in crystals], pa.list_(pa.string())),
        "training_neighbors": pa.array(training_neighbors(crystals, training), pa.int32()),
    }
