"""The materials table: its columns, and rows as crystals."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import pyarrow as pa

from mat2spec.elements import MAX_ATOMIC_NUMBER
from mat2spec.errors import StructureError, TableError
from mat2spec.structure.crystal import Crystal, content_hash, unknown_element

COLUMNS = {
    "material_id": "VARCHAR",
    "formula_pretty": "VARCHAR",
    "nsites": "integer",
    "atomic_numbers": "UTINYINT[] (integers, one per site)",
    "lattice": "DOUBLE[9] (rows a, b, c; Å)",
    "frac_coords": "DOUBLE[] (3 per site)",
}
"""What every materials table has; any further columns are the user's."""

_KINDS = {
    "material_id": lambda t: pa.types.is_string(t) or pa.types.is_large_string(t) or pa.types.is_string_view(t),
    "formula_pretty": lambda t: pa.types.is_string(t) or pa.types.is_large_string(t) or pa.types.is_string_view(t),
    "nsites": pa.types.is_integer,
    "atomic_numbers": lambda t: is_list(t) and pa.types.is_integer(t.value_type),
    "lattice": lambda t: is_list(t) and pa.types.is_floating(t.value_type),
    "frac_coords": lambda t: is_list(t) and pa.types.is_floating(t.value_type),
}


def is_list(kind: pa.DataType) -> bool:
    """Whether a column holds a list in each row, of any of the kinds of Arrow."""
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def check_schema(schema: pa.Schema, source: str) -> None:
    """Refuse a table that lacks a column or has it in another type.

    Raises:
        TableError: Naming the table, the columns and what they must be.
    """
    if missing := [name for name in COLUMNS if name not in schema.names]:
        needs = ", ".join(f"{name} {COLUMNS[name]}" for name in missing)
        raise TableError(
            f"{source}: missing column{'s'[: len(missing) > 1]} {needs}; a materials table has {', '.join(COLUMNS)}"
        )
    for name, fits in _KINDS.items():
        if not fits(schema.field(name).type):
            raise TableError(f"{source}: column {name} is {schema.field(name).type}, must be {COLUMNS[name]}")


def crystals(table: pa.Table) -> Iterator[Crystal | StructureError]:
    """Read each row as a crystal, or as the reason why it is none."""
    columns = [table[name].to_numpy() for name in COLUMNS]
    for material_id, _, nsites, atomic_numbers, lattice, frac_coords in zip(*columns, strict=True):
        try:
            yield _crystal(str(material_id), nsites, atomic_numbers, lattice, frac_coords)
        except StructureError as error:
            yield error


def _crystal(
    material_id: str,
    nsites: float | np.number | None,
    atomic_numbers: np.ndarray | None,
    lattice: np.ndarray | None,
    frac_coords: np.ndarray | None,
) -> Crystal:
    if atomic_numbers is None or lattice is None or frac_coords is None:
        raise StructureError(material_id, "atomic_numbers, lattice or frac_coords is NULL")
    if len(lattice) != 9:
        raise StructureError(material_id, f"the lattice has {len(lattice)} numbers; need 9, the rows a, b, c")
    if nsites is None or np.isnan(nsites) or nsites != len(atomic_numbers):
        raise StructureError(material_id, f"nsites is {nsites} but there are {len(atomic_numbers)} atomic numbers")
    if len(frac_coords) != 3 * len(atomic_numbers):
        raise StructureError(
            material_id, f"{len(frac_coords)} fractional coordinates for {len(atomic_numbers)} sites; need 3 per site"
        )
    if len(outside := atomic_numbers[~((atomic_numbers >= 1) & (atomic_numbers <= MAX_ATOMIC_NUMBER))]):
        raise StructureError(material_id, unknown_element(outside[0]))
    return Crystal(
        material_id,
        atomic_numbers.astype(np.uint8),
        lattice.astype(np.float64).reshape(3, 3),
        frac_coords.astype(np.float64).reshape(-1, 3),
    )


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


def materials_table(
    crystals: Iterable[Crystal], further: Mapping[str, Sequence[object] | pa.Array] = MappingProxyType({})
) -> pa.Table:
    """Make a table of crystals.

    Args:
        crystals: One per row.
        further: More columns, by name.
    """
    rows = [
        (c.material_id, c.formula, len(c), c.atomic_numbers, c.lattice.ravel(), c.frac_coords.ravel(), content_hash(c))
        for c in crystals
    ]
    columns = zip(*rows, strict=True) if rows else ([] for _ in SCHEMA)
    table = pa.table(
        [pa.array(list(column), field.type) for column, field in zip(columns, SCHEMA, strict=True)], schema=SCHEMA
    )
    for name, values in further.items():
        table = table.append_column(
            name, values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values)
        )
    return table
