"""Export of computed spectra to a table of training labels."""

from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from mat2spec.config import LabelsConfig
from mat2spec.data.labels.growing_table import existing_labels, write_labels
from mat2spec.data.materials.schema import COLUMNS
from mat2spec.errors import RunError, counted
from mat2spec.query.catalog import parquet_files
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
    table = existing_labels(output, base, grid)
    labeled = set() if table is None else set(table["material_id"].to_pylist())
    new = computed.filter(pa.array([name not in labeled for name in computed["material_id"].to_pylist()], pa.bool_()))
    rows = _labels(new, grid, run.name)
    if table is not None and "split" in table.column_names:
        rows = rows.append_column("split", pa.array(["train"] * len(rows), pa.string()))
    write_labels(output, table, rows, grid)
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
