"""The materials table that we write: crystals as rows, each with the hash of its content."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import pyarrow as pa

from mat2spec.crystal import Crystal

MATERIALS = "materials"
"""Folder of the rows, in the directory that an ingestion writes; rejects lie beside it."""

SCHEMA = pa.schema(
    {
        "material_id": pa.string(),
        "formula_pretty": pa.string(),
        "nsites": pa.int32(),
        "atomic_numbers": pa.list_(pa.uint8()),
        "lattice": pa.list_(pa.float64(), 9),
        "frac_coords": pa.list_(pa.float64()),
        "content_hash": pa.string(),
    }
)
"""What every row has; further columns follow."""

HASH_DECIMALS = 5
"""Digits of a length [Å] or a fractional coordinate that count; files seldom give more."""


def materials_table(crystals: Iterable[Crystal], further: Mapping[str, Sequence[object] | pa.Array] = MappingProxyType({})) -> pa.Table:
    """Make a table of crystals.

    Args:
        crystals: One per row.
        further: More columns, by name.
    """
    rows = [
        (c.material_id, c.formula, len(c), c.atomic_numbers, c.lattice.ravel(), c.frac_coords.ravel(), content_hash(c)) for c in crystals
    ]
    columns = zip(*rows, strict=True) if rows else ([] for _ in SCHEMA)
    table = pa.table([pa.array(list(column), field.type) for column, field in zip(columns, SCHEMA, strict=True)], schema=SCHEMA)
    for name, values in further.items():
        table = table.append_column(name, values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values))
    return table


def content_hash(crystal: Crystal) -> str:
    """Hash what a crystal consists of: 32 hexadecimal digits, the same for any name and any order of sites.

    Descriptions of one crystal in different cells differ; pymatgen's `StructureMatcher` knows better, at a thousand times the cost.
    """
    places = np.mod(crystal.frac_coords, 1.0).round(HASH_DECIMALS) % 1.0
    sites = np.column_stack([crystal.atomic_numbers, places])
    digest = hashlib.sha256((crystal.lattice.round(HASH_DECIMALS) + 0.0).tobytes())  # -0.0 is 0.0
    digest.update(sites[np.lexsort(sites.T[::-1])].tobytes())
    return digest.hexdigest()[:32]
