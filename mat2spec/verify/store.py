"""The calculations stored in a run: one file for each, named by its key, and one for each that failed."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mat2spec.data.materials.schema import CRYSTAL_SCHEMA
from mat2spec.dos.descriptors import GAP_PARTS
from mat2spec.dos.grid import SpectrumGrid
from mat2spec.storage.atomic import write_parquet
from mat2spec.storage.rejects import REJECT_COLUMNS, Reject
from mat2spec.storage.run_directory import VERIFIED, VERIFIED_REJECTS

_EMPTY = "none"
"""Name of the empty file in each folder, from which a view takes its columns."""

_GAP_COLUMNS = tuple(f"{gap}_{part}" for gap in ("vb_gap", "cb_gap") for part in GAP_PARTS)

_REJECTS_SCHEMA = pa.schema([*REJECT_COLUMNS, ("calculation", pa.string()), ("limits", pa.string())])


def verified_schema(grid: SpectrumGrid) -> pa.Schema:
    """Return the columns of computed spectra on a grid."""
    numbers: tuple[str, ...] = (
        "total_energy",
        "min_frequency",
        "max_frequency",
        "mean_frequency",
        "heat_capacity_300K",
        "entropy_300K",
        "free_energy_300K",
        "share_above_grid",
        "mean_frequency_above_grid",
    )
    flags = {"exceeds_grid": pa.bool_()}
    if grid.per_cell:
        numbers = ("efermi", "vbm", "cbm", "band_gap", "total_energy", "bands_cover_ev", "dos_sum", *_GAP_COLUMNS)
        flags = {"vb_mask": pa.int64(), "cb_mask": pa.int64(), "is_metal": pa.bool_()}
    return pa.schema(
        {
            "material_id": pa.string(),
            "calculation": pa.string(),
            "energies" if grid.per_cell else "frequencies": pa.list_(pa.float64()),
            "densities": pa.list_(pa.float32()),
            "spectrum": pa.list_(pa.float32(), len(grid)),
            **dict.fromkeys(numbers, pa.float64()),
            **flags,
            "level": pa.string(),
            "engine": pa.string(),
            "settings": pa.string(),
            "cpu_seconds": pa.float64(),
            "converged": pa.bool_(),
            **{field.name: field.type for field in CRYSTAL_SCHEMA if field.name != "material_id"},
        }
    )


@dataclass(frozen=True)
class CalculationStore:
    """Results and rejects of calculations. A calculation has one or the other, in a file that is whole or absent.

    Args:
        run: The run's directory.
        grid: Grid of its spectra.
    """

    run: Path
    grid: SpectrumGrid

    def prepare(self) -> None:
        """Create both folders, each with an empty table, and delete rejects of calculations that have a result.

        A job that is killed can leave such a reject, if a later attempt succeeded.
        """
        for folder, schema in ((VERIFIED, verified_schema(self.grid)), (VERIFIED_REJECTS, _REJECTS_SCHEMA)):
            (self.run / folder).mkdir(exist_ok=True)
            self._write(folder, _EMPTY, schema.empty_table())
        for file in (self.run / VERIFIED).glob("*.parquet"):
            if file.stem != _EMPTY:
                self._file(VERIFIED_REJECTS, file.stem).unlink(missing_ok=True)

    def reuse_result(self, key: str, ids: list[str]) -> bool:
        """Record an existing result for these materials too (the same crystal); return whether there is one."""
        file = self._file(VERIFIED, key)
        if not file.exists():
            return False
        rows = pq.read_table(file)
        recorded = rows["material_id"].to_pylist()
        if not set(ids) <= set(recorded):
            self.write_result(key, rows.slice(0, 1), sorted({*recorded, *ids}))
        return True

    def reuse_reject(self, key: str, ids: list[str], limits: Mapping[str, Any]) -> bool:
        """Record an existing reject for these materials too; return whether there is one, within the same limits.

        What failed within other limits may be retried.
        """
        file = self._file(VERIFIED_REJECTS, key)
        if not file.exists():
            return False
        rows = pq.read_table(file)
        if rows["limits"][0].as_py() != _to_json(limits):
            return False
        recorded = rows["material_id"].to_pylist()
        if not set(ids) <= set(recorded):
            first = rows.slice(0, 1).to_pylist()[0]
            copies = [first | {"material_id": material_id} for material_id in sorted({*recorded, *ids})]
            self._write(VERIFIED_REJECTS, key, pa.Table.from_pylist(copies, _REJECTS_SCHEMA))
        return True

    def write_result(self, key: str, row: pa.Table, ids: list[str]) -> None:
        """Write a result for all materials that are this crystal, and delete the calculation's reject, if any."""
        schema = verified_schema(self.grid)
        column = row.column_names.index("material_id")
        copies = [row.set_column(column, "material_id", pa.array([material_id])) for material_id in ids]
        self._write(VERIFIED, key, pa.concat_tables(copies).select(schema.names).cast(schema))
        self._file(VERIFIED_REJECTS, key).unlink(missing_ok=True)

    def write_reject(self, key: str, reject: Reject, ids: list[str], limits: Mapping[str, Any]) -> None:
        """Write why a calculation has no result, for all materials that are this crystal."""
        shared = reject | {"calculation": key, "limits": _to_json(limits)}
        rows = [shared | {"material_id": material_id} for material_id in ids]
        self._write(VERIFIED_REJECTS, key, pa.Table.from_pylist(rows, _REJECTS_SCHEMA))

    def _file(self, folder: str, key: str) -> Path:
        return self.run / folder / f"{key}.parquet"

    def _write(self, folder: str, key: str, table: pa.Table) -> None:
        write_parquet(self._file(folder, key), table)


def _to_json(limits: Mapping[str, Any]) -> str:
    return json.dumps(dict(limits), sort_keys=True)
