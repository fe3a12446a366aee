"""The materials table: its columns, and the conversion of crystals from and to its rows."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

import pyarrow as pa

from mat2spec.errors import StructureError, TableError
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.symmetry import primitive_nsites

CRYSTAL_SCHEMA = pa.schema(
    {
        "material_id": pa.string(),
        "formula_pretty": pa.string(),
        "nsites": pa.int32(),
        "atomic_numbers": pa.list_(pa.uint8()),
        "lattice": pa.list_(pa.float64(), 9),
        "frac_coords": pa.list_(pa.float64()),
    }
)
"""Columns of every materials table, in the types that are written; other columns are the user's."""

COLUMNS = tuple(CRYSTAL_SCHEMA.names)

MATERIALS_SCHEMA = CRYSTAL_SCHEMA.append(pa.field("content_hash", pa.string()))
"""Columns of every row that `materials_table` writes; extra columns follow."""

PRIMITIVE_SITES = "nsites_primitive"
"""Column with the number of sites of the primitive cell.

A screening uses it where it is an integer, and otherwise counts: 0.14 of the 0.48 ms per row of its graph stage.
"""

INGESTED_SCHEMA = pa.schema(
    [
        *MATERIALS_SCHEMA,
        pa.field(PRIMITIVE_SITES, pa.int32()),
        pa.field("source", pa.string()),
        pa.field("ordered_from", pa.string()),
        pa.field("duplicate_of", pa.string()),
    ]
)
"""Columns that an ingestion of files writes; those of the user's tables follow."""


def is_list(kind: pa.DataType) -> bool:
    """Whether a column holds lists: Arrow's list, large list or fixed-size list."""
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _holds_coordinates(kind: pa.DataType) -> bool:
    """Whether a column holds lists of numbers, or of rows of numbers; half precision moves atoms by up to 0.1 Å."""
    if not is_list(kind):
        return False
    numbers = kind.value_type.value_type if is_list(kind.value_type) else kind.value_type
    return pa.types.is_integer(numbers) or (pa.types.is_floating(numbers) and not pa.types.is_float16(numbers))


def _is_list_of_integers(kind: pa.DataType) -> bool:
    return is_list(kind) and pa.types.is_integer(kind.value_type)


_ACCEPTED = {
    "material_id": (_is_text, "VARCHAR"),
    "formula_pretty": (_is_text, "VARCHAR"),
    "nsites": (pa.types.is_integer, "integer"),
    "atomic_numbers": (_is_list_of_integers, "UTINYINT[] (integers, one per site)"),
    "lattice": (_holds_coordinates, "DOUBLE[9] (rows a, b, c; Å) in double or single precision"),
    "frac_coords": (_holds_coordinates, "DOUBLE[] (3 per site) in double or single precision"),
}
"""Types in which a column is read, as a test of the plain type and in words."""


def check_schema(schema: pa.Schema, source: str) -> None:
    """Refuse a table that lacks a column or has one in a type that cannot be read.

    Raises:
        TableError: Naming the table, the columns and their types.
    """
    if missing := [name for name in COLUMNS if name not in schema.names]:
        needed = ", ".join(f"{name} {_ACCEPTED[name][1]}" for name in missing)
        columns = "column" if len(missing) == 1 else "columns"
        similar = [name for name in schema.names if name.lower() in missing]
        rename = f"; {', '.join(similar)} must be in lower case" if similar else ""
        raise TableError(f"{source}: missing {columns} {needed}; a materials table has {', '.join(COLUMNS)}{rename}")
    for name, (accepts, description) in _ACCEPTED.items():
        kind = schema.field(name).type
        if not accepts(kind):
            raise TableError(f"{source}: column {name} is {kind}, must be {description}")


def read_crystals(table: pa.Table) -> Iterator[Crystal | StructureError]:
    """Convert each row to a crystal, or to the error that says why it is none."""
    names = [name for name in COLUMNS if name != "formula_pretty"]
    columns = [table[name].to_numpy() for name in names]
    for values in zip(*columns, strict=True):
        try:
            yield Crystal.from_row(dict(zip(names, values, strict=True)))
        except StructureError as error:
            yield error


def has_primitive_sites(schema: pa.Schema) -> bool:
    """Whether a table has the numbers of sites of the primitive cells; a row may lack it nonetheless."""
    return PRIMITIVE_SITES in schema.names and pa.types.is_integer(schema.field(PRIMITIVE_SITES).type)


def primitive_sites(crystals: Iterable[Crystal]) -> pa.Array:
    """Column `nsites_primitive` of crystals."""
    return pa.array([primitive_nsites(crystal) for crystal in crystals], pa.int32())


def materials_table(
    crystals: Iterable[Crystal], extra_columns: Mapping[str, Sequence[object] | pa.Array] = MappingProxyType({})
) -> pa.Table:
    """Make a materials table with one row per crystal, its content_hash and any extra columns."""
    rows = [crystal.to_row() for crystal in crystals]
    columns = [pa.array([row[field.name] for row in rows], field.type) for field in MATERIALS_SCHEMA]
    table = pa.table(columns, schema=MATERIALS_SCHEMA)
    for name, values in extra_columns.items():
        column = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values)
        table = table.append_column(name, column)
    return table
