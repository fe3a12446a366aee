"""A table of labels to which rows are added, and the units that its schema names."""

import json
from pathlib import Path

import pyarrow as pa

from mat2spec.data.materials.whole_table import read_whole_table
from mat2spec.dos.grid import GRIDS
from mat2spec.errors import TableError
from mat2spec.storage.atomic import write_parquet

UNITS = {"phdos": "maximum 1", "edos": "states/eV per primitive cell, both spins"}
"""Unit of the labels on each grid."""

COLUMN_UNITS = {
    "lowest_frequency": "cm^-1",
    "band_gap": "eV",
    "efermi": "eV",
    "vbm": "eV",
    "cbm": "eV",
    "lattice": "angstrom",
}
"""Units of other columns of a table of labels."""


def existing_labels(output: Path, base: Path | None, label: str) -> pa.Table | None:
    """Read the table that rows are added to: the output if it exists, else the base if there is one.

    Raises:
        TableError: If it cannot be read, or lacks the column of labels.
    """
    start = output if output.exists() else base
    if start is None:
        return None
    table = read_whole_table(start, "table of labels", crystals=False)
    if label not in table.column_names:
        raise TableError(f"{start}: missing column {label}; it has {', '.join(table.column_names)}")
    return table


def write_labels(output: Path, table: pa.Table | None, rows: pa.Table, label: str) -> None:
    """Write rows after those of a table, with units and the grid in the metadata of the schema."""
    output.parent.mkdir(parents=True, exist_ok=True)
    write_parquet(output, _with_units(rows if table is None else _append_rows(table, rows), label))


def _with_units(table: pa.Table, label: str) -> pa.Table:
    """Name the unit of each column in its metadata, and the grid in that of the table."""
    units = COLUMN_UNITS | {label: UNITS[label]}
    fields = [
        field.with_metadata({"unit": units[field.name]}) if field.name in units else field for field in table.schema
    ]
    metadata = {"label": label, "unit": UNITS[label], "grid": json.dumps(GRIDS[label].to_json())}
    return table.cast(pa.schema(fields, metadata))


def _append_rows(table: pa.Table, rows: pa.Table) -> pa.Table:
    """Append rows to a table, cast to its types; a column that only one of them has is NULL for the other's rows."""
    fields = {field.name: field for field in rows.schema} | {field.name: field for field in table.schema}
    columns = {
        name: pa.chunked_array(
            [
                part[name].combine_chunks().cast(field.type)
                if name in part.column_names
                else pa.nulls(len(part), field.type)
                for part in (table, rows)
            ],
            field.type,
        )
        for name, field in fields.items()
    }
    return pa.table(columns)
