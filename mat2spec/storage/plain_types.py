"""Plain Arrow types: what a column holds, without the encodings that Arrow's kernels and our readers do not know."""

from collections import Counter

import pyarrow as pa

from mat2spec.errors import TableError

_PLAIN = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}


def plain_schema(schema: pa.Schema, source: str) -> pa.Schema:
    """Columns of a table in plain types.

    Args:
        schema: The columns as they are stored.
        source: Name of the table in errors.

    Raises:
        TableError: If a name occurs twice.
    """
    for name, times in Counter(schema.names).items():
        if times > 1:
            raise TableError(f"{source}: {times} columns are named {name}; rename them")
    return pa.schema([field.with_type(plain_type(field.type)) for field in schema], schema.metadata)


def plain_table(table: pa.Table, source: str) -> pa.Table:
    """Convert the columns of a table to plain types; those that are plain are not copied.

    Raises:
        TableError: If a name occurs twice.
    """
    schema = plain_schema(table.schema, source)
    if schema.equals(table.schema):
        return table
    columns = zip(table.columns, schema.types, strict=True)
    return pa.table([_plain_column(column, kind) for column, kind in columns], schema=schema)


def _plain_column(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if column.type == kind:
        return column
    if "list_view" in str(column.type):  # Arrow 25 casts a slice of list views to other values, without an error
        return pa.chunked_array([column.to_pylist()], kind)
    return column.cast(kind)


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Type without views and dictionaries; a tensor of fixed shape is the list of its numbers, row by row."""
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if isinstance(kind, pa.FixedShapeTensorType) and _is_row_major(kind):
        return kind.storage_type
    if pa.types.is_map(kind):
        return pa.map_(_plain_field(kind.key_field), _plain_field(kind.item_field), kind.keys_sorted)
    if pa.types.is_struct(kind):
        return pa.struct([_plain_field(kind.field(i)) for i in range(kind.num_fields)])
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_plain_field(kind.value_field), kind.list_size)
    if pa.types.is_large_list(kind) or pa.types.is_large_list_view(kind):
        return pa.large_list(_plain_field(kind.value_field))
    if pa.types.is_list(kind) or pa.types.is_list_view(kind):
        return pa.list_(_plain_field(kind.value_field))
    return _PLAIN.get(kind, kind)


def _plain_field(field: pa.Field) -> pa.Field:
    return field.with_type(plain_type(field.type))


def _is_row_major(tensor: pa.FixedShapeTensorType) -> bool:
    """Whether numbers are stored in the order of their indices; else a lattice would be read as its transpose."""
    return tensor.permutation in (None, list(range(len(tensor.shape))))
