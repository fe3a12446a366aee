"""Export of computed spectra to a table of training labels."""

from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from mat2spec.config import LabelsConfig
from mat2spec.data.materials.schema import COLUMNS
from mat2spec.data.materials.whole_table import read_whole_table
from mat2spec.errors import RunError, TableError, counted
from mat2spec.query.catalog import parquet_files
from mat2spec.storage.atomic import write_parquet
from mat2spec.storage.run_directory import VERIFIED, RunDirectory

PROVENANCE = ("calculation", "level", "engine", "settings")
"""Columns that record the origin of a label, besides `source`, the name of the run."""

CURVES = (
    "energies",
    "frequencies",
    "densities",
    "efermi",
    "vbm",
    "cbm",
    "band_gap",
    "is_metal",
    "bands_cover_ev",
    "min_frequency",
)
"""Columns that a label takes from its calculation, if it has them."""


def add_labels(config: LabelsConfig, run: Path, base: Path | None, output: Path) -> str:
    """Add the computed spectra of a run to a table of labels, in the column edos or phdos.

    A material that the table has already stays unchanged. Electronic labels are in states/eV per primitive cell;
    phonon labels have maximum 1, as in the bundled tables. Where the table has a column `split`, new rows are
    training rows. Of several calculations of a material, DFT takes precedence.

    Args:
        config: The settings.
        run: The run's directory.
        base: Table that a new output starts from.
        output: The table of labels, absolute.

    Returns:
        One line with the number of labels added.

    Raises:
        RunError: If the run has no computed spectra of these levels.
        TableError: If a table cannot be read, or lacks the column of labels.
    """
    grid = RunDirectory(run).record.get("grid", {}).get("name")
    computed = _computed_spectra(run, config.level)
    start = output if output.exists() else base
    table = None if start is None else _read_labels(start, grid)
    labeled = set() if table is None else set(table["material_id"].to_pylist())
    new = computed.filter(pa.array([name not in labeled for name in computed["material_id"].to_pylist()], pa.bool_()))
    rows = _labels(new, grid, run.name)
    if table is not None and "split" in table.column_names:
        rows = rows.append_column("split", pa.array(["train"] * len(rows), pa.string()))
    output.parent.mkdir(parents=True, exist_ok=True)
    write_parquet(output, rows if table is None else _append_rows(table, rows))
    total = len(rows) + len(labeled)
    already = len(computed) - len(rows)
    return f"{output}: {counted(len(rows), 'label')} added, {total} in total; {already} of the run's were already in it"


def _computed_spectra(run: Path, levels: tuple[str, ...]) -> pa.Table:
    """Read one calculation of each material."""
    sql = f"""SELECT DISTINCT ON (material_id) * FROM {parquet_files(run, VERIFIED)}
              WHERE converged AND list_contains($levels, level) ORDER BY material_id, level, calculation"""
    computed = None
    if any((run / VERIFIED).glob("*.parquet")):
        with duckdb.connect() as connection:
            computed = connection.sql(sql, params={"levels": list(levels)}).to_arrow_table()
    if computed is None or not len(computed):
        raise RunError(f"{run}: no computed spectra of level {' or '.join(levels)}; compute some with mat2spec verify")
    return computed


def _labels(computed: pa.Table, label: str, source: str) -> pa.Table:
    """Convert computed spectra to rows of a table of labels."""
    spectra = [np.array(spectrum, np.float32) for spectrum in computed["spectrum"].to_pylist()]
    if label != "edos":
        spectra = [spectrum / spectrum.max() for spectrum in spectra]
    rows = computed.select([name for name in (*COLUMNS, *CURVES, *PROVENANCE) if name in computed.column_names])
    rows = rows.append_column("source", pa.array([source] * len(rows), pa.string()))
    return rows.append_column(label, pa.array(spectra, pa.list_(pa.float32())))


def _read_labels(path: Path, label: str) -> pa.Table:
    table = read_whole_table(path, "table of labels", crystals=False)
    if label not in table.column_names:
        raise TableError(f"{path}: missing column {label}; it has {', '.join(table.column_names)}")
    return table


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
