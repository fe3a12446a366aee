"""Computed spectra of a run as labels: rows that are added to a table from which networks learn."""

from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mat2spec.config import LabelsConfig
from mat2spec.data.materials.schema import COLUMNS
from mat2spec.errors import RunError, TableError
from mat2spec.storage.location import put
from mat2spec.storage.run_directory import VERIFIED, RunDirectory

PROVENANCE = ("calculation", "level", "engine", "settings")
"""Columns that say where a label comes from, besides `source`, the run."""

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
"""What a label keeps of its calculation, where it has it."""


def add_labels(config: LabelsConfig, run: Path, base: Path | None, output: Path) -> str:
    """Add the computed spectra of a run to a table of labels, in column edos or phdos; a material that is there already stays as it is.

    Electronic labels are states/eV per primitive cell; phonon labels have maximum 1, as the tables that ship. Where the table has a
    column `split`, new rows are training rows. Of several calculations of a material DFT goes first.

    Args:
        config: The settings.
        run: The run's directory.
        base: Table with which the output begins.
        output: The table, absolute.

    Returns:
        A line that says what was added.

    Raises:
        RunError: If the run has no computed spectra of these levels.
        TableError: If a table cannot be read, or has no such column of labels.
    """
    grid = RunDirectory(run).read_record().get("grid", {}).get("name")
    found = _computed(run, config.level)
    start = output if output.exists() else base
    table = None if start is None else _read(start, grid)
    known = set() if table is None else set(table["material_id"].to_pylist())
    new = found.filter(pa.array([name not in known for name in found["material_id"].to_pylist()], pa.bool_()))
    rows = _labels(new, grid, run.name)
    if table is not None and "split" in table.column_names:
        rows = rows.append_column("split", pa.array(["train"] * len(rows), pa.string()))
    content = pa.BufferOutputStream()
    pq.write_table(rows if table is None else _together(table, rows), content, compression="zstd")
    output.parent.mkdir(parents=True, exist_ok=True)
    put(output, content.getvalue().to_pybytes())
    total = len(rows) + len(known)
    return (
        f"{output}: {len(rows)} labels added, {total} in all; {len(found) - len(rows)} of the run's were there already"
    )


def _computed(run: Path, levels: tuple[str, ...]) -> pa.Table:
    """One calculation of each material."""
    wanted = "WHERE converged AND list_contains($levels, level)"
    sql = f"SELECT DISTINCT ON (material_id) * FROM read_parquet($files) {wanted} ORDER BY material_id, level, calculation"
    params = {"files": str(run / VERIFIED / "*.parquet"), "levels": list(levels)}
    none = RunError(f"{run}: no computed spectra of level {' or '.join(levels)}; compute some with jobs/verify.py")
    if not any((run / VERIFIED).glob("*.parquet")):
        raise none
    with duckdb.connect() as connection:
        found = connection.sql(sql, params=params).to_arrow_table()
    if not len(found):
        raise none
    return found


def _labels(computed: pa.Table, label: str, source: str) -> pa.Table:
    """Rows of computed spectra as rows of a table of labels."""
    spectra = [np.array(spectrum, np.float32) for spectrum in computed["spectrum"].to_pylist()]
    if label != "edos":
        spectra = [spectrum / spectrum.max() for spectrum in spectra]
    rows = computed.select([name for name in (*COLUMNS, *CURVES, *PROVENANCE) if name in computed.column_names])
    rows = rows.append_column("source", pa.array([source] * len(rows), pa.string()))
    return rows.append_column(label, pa.array(spectra, pa.list_(pa.float32())))


def _read(path: Path, label: str) -> pa.Table:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise TableError(f"{path}: cannot read the table of labels ({str(error).splitlines()[0]})") from None
    if missing := [name for name in ("material_id", label) if name not in table.column_names]:
        raise TableError(f"{path}: missing column {missing[0]}; it has {', '.join(table.column_names)}")
    return table


def _together(table: pa.Table, rows: pa.Table) -> pa.Table:
    """Put rows below a table, in its types; columns that only one has are NULL in the other."""
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
