"""How much training could know of a material."""

from collections import defaultdict
from collections.abc import Sequence

import pyarrow as pa

from mat2spec.data.labels.dataset import LabelledCrystals
from mat2spec.structure.crystal import Crystal


def training_neighbors(crystals: Sequence[Crystal], training: Sequence[Crystal]) -> list[int]:
    """Count for each crystal the other crystals in training that hold all of its elements, and maybe more."""
    holders: defaultdict[str, set[str]] = defaultdict(set)
    for row in training:
        for element in row.elements:
            holders[element].add(row.material_id)
    return [
        len(set.intersection(*(holders[element] for element in crystal.elements)) - {crystal.material_id})
        for crystal in crystals
    ]


def material_columns(materials: LabelledCrystals, training: Sequence[Crystal]) -> dict[str, pa.Array]:
    """Say of each material what it is, and how many training crystals hold all of its elements."""
    crystals = materials.crystals
    return {
        "material_id": pa.array(materials.material_ids, pa.string()),
        "formula_pretty": pa.array([crystal.formula for crystal in crystals], pa.string()),
        "nsites": pa.array([len(crystal) for crystal in crystals], pa.int32()),
        "elements": pa.array([crystal.elements for crystal in crystals], pa.list_(pa.string())),
        "training_neighbors": pa.array(training_neighbors(crystals, training), pa.int32()),
    }
