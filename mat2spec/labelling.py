"""Computed spectra of a run as labels: rows that are added to a table from which networks learn."""

import json
import os
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mat2spec.computed_files import VERIFIED
from mat2spec.config import LabelsConfig
from mat2spec.data.schema import COLUMNS
from mat2spec.errors import RunError, TableError
from mat2spec.run_directory import RunDirectory

PROVENANCE = ("calculation", "level", "engine", "settings", "energies", "densities", "efermi", "vbm", "cbm", "band_gap", "is_metal")
"""What a label keeps of its calculation, besides the run from which it comes."""


def add_labels(config: LabelsConfig, run: Path, base: Path | None, output: Path) -> str:
    """Add the verified spectra of a run to a table of labels; a material that is there already stays as it is.

    Electronic labels are states/eV per primitive cell; phonon labels have maximum 1, as the tables that ship. Where the table has a
    column `split`, new rows are training rows.

    Args:
        config: The settings.
        run: The run's directory.
        base: Table with which the output begins.
        output: The table, absolute.

    Returns:
        A line that says what was added.

    Raises:
        RunError: If the run has no verified spectra.
        TableError: If a table cannot be read, or has no such column of labels.
    """
    per_cell = RunDirectory(run).read_record().get("grid", {}).get("name") == "edos"
    found = _verified(run, config)
    start = output if output.exists() else base
    table = None if start is None else _read(start, config.label)
    known = set() if table is None else set(table["material_id"].to_pylist())
    new = found.filter(pa.array([name not in known for name in found["material_id"].to_pylist()], pa.bool_()))
    spectra = np.array(new["spectrum"].to_pylist(), np.float32).reshape(len(new), -1)
    if not per_cell:
        spectra = spectra / spectra.max(axis=1, keepdims=True, initial=0.0)
    rows = new.select([name for name in (*COLUMNS, *PROVENANCE) if name in new.column_names])
    rows = rows.append_column(config.label, pa.array(list(spectra), pa.list_(pa.float32())))
    rows = rows.append_column("source", pa.array([str(run)] * len(rows), pa.string()))
    if table is not None and "split" in table.column_names:
        rows = rows.append_column("split", pa.array(["train"] * len(rows), pa.string()))
    _write(rows if table is None else _together(table, rows), output)
    kept = "" if table is None else f" to {len(table)} that were there"
    return f"{output}: {len(rows)} labels added{kept}; {len(found) - len(rows)} of the run's were there already"


def _verified(run: Path, config: LabelsConfig) -> pa.Table:
    files = str(run / VERIFIED / "*.parquet")
    levels = json.dumps(list(config.level)).replace('"', "'")
    try:
        with duckdb.connect() as connection:
            sql = "SELECT DISTINCT ON (material_id) * FROM read_parquet($files, union_by_name = true) WHERE converged"
            return connection.sql(f"{sql} AND level IN {levels} ORDER BY material_id", params={"files": files}).to_arrow_table()
    except duckdb.Error:
        raise RunError(f"{run}: no verified spectra of level {', '.join(config.level)}; compute some with jobs/verify.py") from None


def _read(path: Path, label: str) -> pa.Table:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise TableError(f"{path}: cannot read the table of labels ({str(error).splitlines()[0]})") from None
    if label not in table.column_names:
        raise TableError(f"{path}: missing column {label}; it has {', '.join(table.column_names)}")
    return table


def _together(table: pa.Table, rows: pa.Table) -> pa.Table:
    """Put rows below a table, in its types; columns that only one has are NULL in the other."""
    fields = {field.name: field for field in rows.schema} | {field.name: field for field in table.schema}
    columns = {}
    for name, field in fields.items():
        parts = [
            (part[name].combine_chunks().cast(field.type) if name in part.column_names else pa.nulls(len(part), field.type))
            for part in (table, rows)
        ]
        columns[name] = pa.chunked_array(parts, field.type)
    return pa.table(columns)


def _write(table: pa.Table, output: Path) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f".{output.name}.{os.getpid()}.partial")
    pq.write_table(table, partial, compression="zstd")
    partial.replace(output)
