"""Files of selected rows: CSV, Parquet, CIF and SQL, written in batches."""

import zipfile
from collections.abc import Callable
from typing import BinaryIO

import pyarrow.csv
import pyarrow.parquet as pq

from mat2spec.errors import QueryError, RunError
from mat2spec.explore.reader import RunReader
from mat2spec.explore.selection import Selection
from mat2spec.query.flat import flat_batch, flat_schema
from mat2spec.structure.crystal import Crystal

MAX_CRYSTALS = 10_000
"""CIF files in an archive."""


def write_csv(reader: RunReader, selection: Selection, file: BinaryIO) -> None:
    """Write selected rows as CSV, with lists as JSON text."""
    with (
        reader.stream(selection.statement(reader.record), None) as batches,
        pyarrow.csv.CSVWriter(file, flat_schema(batches.schema)) as writer,
    ):
        for batch in batches:
            writer.write_batch(flat_batch(batch))


def write_parquet(reader: RunReader, selection: Selection, file: BinaryIO) -> None:
    """Write selected rows as Parquet."""
    with (
        reader.stream(selection.statement(reader.record), None) as batches,
        pq.ParquetWriter(file, batches.schema, compression="zstd") as writer,
    ):
        for batch in batches:
            writer.write_batch(batch)


def write_cifs(reader: RunReader, selection: Selection, file: BinaryIO) -> None:
    """Write the crystals of selected rows as a ZIP archive of CIF files.

    Raises:
        QueryError: If the rows have no material_id, or are too many.
        RunError: If the input of the run is gone, or has none of the crystals.
    """
    sql = f"SELECT DISTINCT material_id FROM (\n{selection.statement(reader.record)}\n) LIMIT {MAX_CRYSTALS + 1}"
    ids = reader.query(sql)["material_id"].to_pylist()
    if len(ids) > MAX_CRYSTALS:
        raise QueryError(f"more than {MAX_CRYSTALS:,} crystals are selected; narrow the selection down")
    crystals = [crystal for crystal in reader.crystals(ids).values() if isinstance(crystal, Crystal)]
    if not crystals:
        raise RunError(f"none of the {len(ids)} selected materials is in the input of the run")
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for crystal in crystals:
            archive.writestr(f"{crystal.material_id.replace('/', '_')}.cif", to_cif(crystal))


def write_sql(reader: RunReader, selection: Selection, file: BinaryIO) -> None:
    """Write the query that selects the rows."""
    file.write(f"{selection.statement(reader.record)};\n".encode())


def to_cif(crystal: Crystal) -> str:
    """Return a crystal as the text of a CIF file, in P1."""
    return str(crystal.to_structure().to(fmt="cif"))


EXPORTS: dict[str, tuple[str, Callable[[RunReader, Selection, BinaryIO], None]]] = {
    "csv": ("csv", write_csv),
    "parquet": ("parquet", write_parquet),
    "cif": ("zip", write_cifs),
    "sql": ("sql", write_sql),
}
"""Ending and writer of each kind of file."""
