"""All rows of a table that fits in memory, such as labels for a training: one Parquet file or many."""

import glob
from pathlib import Path

import pyarrow as pa

from mat2spec.data.ingest.listing import list_input
from mat2spec.data.materials.schema import check_schema
from mat2spec.errors import TableError, counted
from mat2spec.storage.location import error_reason
from mat2spec.storage.run_directory import MATERIALS
from mat2spec.storage.tables import read_parquet_table, read_schema


def read_whole_table(path: Path, what: str = "table", *, crystals: bool = True) -> pa.Table:
    """Read a table with an id in every row.

    Args:
        path: A Parquet file of any name; or a folder or glob of them, or the directory of an ingestion.
        what: What it is, for errors.
        crystals: Whether it must be a materials table.

    Raises:
        TableError: If it cannot be read, lacks a column, or an id is NULL or empty.
    """
    try:
        files = [str(path)] if path.is_file() else _list(path)
        for file in files:
            schema = read_schema(file)
            if crystals:
                check_schema(schema, file)
            elif "material_id" not in schema.names:
                raise TableError(f"{file}: lacks column material_id, which identifies rows")
        table = pa.concat_tables(map(read_parquet_table, files), promote_options="permissive")
    except (OSError, pa.ArrowException) as error:
        raise TableError(f"{path}: cannot read the {what} ({error_reason(error)})") from None
    if missing := sum(name in (None, "") for name in table["material_id"].to_pylist()):
        raise TableError(
            f"{path}: material_id is NULL or empty in {counted(missing, 'row')}; give every row a unique id"
        )
    return table


def _list(path: Path) -> list[str]:
    if not path.exists() and not glob.has_magic(str(path)):
        raise FileNotFoundError("it does not exist")
    listing, _ = list_input(path / MATERIALS if (path / MATERIALS).is_dir() else path)
    if not listing.holds_only_parquet:
        raise TableError(f"{path}: holds other files than Parquet tables; name the tables with a glob")
    return [source.url for source in listing.sources]
