"""The files of a run that hold computed spectra: one for each calculation, under its key, and one for each that failed."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mat2spec.dos.grid import SpectrumGrid
from mat2spec.storage.location import put
from mat2spec.storage.rejects import REJECT_COLUMNS, Reject
from mat2spec.storage.run_directory import VERIFIED, VERIFIED_REJECTS

_NONE = "none"
"""Name of the empty file of each folder, from which a view has its columns."""

_GAPS = ("vb_gap_lower", "vb_gap_upper", "vb_gap_width", "cb_gap_lower", "cb_gap_upper", "cb_gap_width")

_FAILURES = pa.schema([*REJECT_COLUMNS, ("calculation", pa.string()), ("limits", pa.string())])


def verified_schema(grid: SpectrumGrid) -> pa.Schema:
    """Columns of computed spectra on a grid."""
    numbers: tuple[str, ...] = (
        "total_energy",
        "min_frequency",
        "max_frequency",
        "mean_frequency",
        "heat_capacity_300K",
    )
    others = {"exceeds_grid": pa.bool_()}
    if grid.per_cell:
        numbers = ("efermi", "vbm", "cbm", "band_gap", "total_energy", "bands_cover_ev", "dos_sum", *_GAPS)
        others = {"vb_mask": pa.int64(), "cb_mask": pa.int64(), "is_metal": pa.bool_()}
    return pa.schema(
        {
            "material_id": pa.string(),
            "calculation": pa.string(),
            "energies" if grid.per_cell else "frequencies": pa.list_(pa.float64()),
            "densities": pa.list_(pa.float32()),
            "spectrum": pa.list_(pa.float32(), len(grid)),
            **dict.fromkeys(numbers, pa.float64()),
            **others,
            "level": pa.string(),
            "engine": pa.string(),
            "settings": pa.string(),
            "cpu_seconds": pa.float64(),
            "converged": pa.bool_(),
            "formula_pretty": pa.string(),
            "nsites": pa.int32(),
            "atomic_numbers": pa.list_(pa.uint8()),
            "lattice": pa.list_(pa.float64(), 9),
            "frac_coords": pa.list_(pa.float64()),
        }
    )


@dataclass(frozen=True)
class ComputedFiles:
    """Results and rejects of calculations, written whole or not at all. A calculation has one or the other.

    Args:
        run: The run's directory.
        grid: Axis of its spectra.
    """

    run: Path
    grid: SpectrumGrid

    def open(self) -> None:
        """Make the folders, each with a file, and remove rejects that a kill left beside the result of a later attempt."""
        for folder, schema in ((VERIFIED, verified_schema(self.grid)), (VERIFIED_REJECTS, _FAILURES)):
            (self.run / folder).mkdir(exist_ok=True)
            self._write(folder, _NONE, schema.empty_table())
        for file in (self.run / VERIFIED).glob("*.parquet"):
            if file.stem != _NONE:
                self._file(VERIFIED_REJECTS, file.stem).unlink(missing_ok=True)

    def computed(self, key: str, ids: list[str]) -> bool:
        """Whether a calculation is done; its result is then given to all materials that are this crystal."""
        file = self._file(VERIFIED, key)
        if not file.exists():
            return False
        there = pq.read_table(file)
        known = there["material_id"].to_pylist()
        if not set(ids) <= set(known):
            self.commit(key, there.slice(0, 1), sorted({*known, *ids}))
        return True

    def rejected(self, key: str, ids: list[str], limits: Mapping[str, Any]) -> bool:
        """Whether a calculation failed within the same limits; within others it may be tried again."""
        file = self._file(VERIFIED_REJECTS, key)
        if not file.exists():
            return False
        there = pq.read_table(file)
        if there["limits"][0].as_py() != _text(limits):
            return False
        known = there["material_id"].to_pylist()
        if not set(ids) <= set(known):
            rows = [there.slice(0, 1).to_pylist()[0] | {"material_id": name} for name in sorted({*known, *ids})]
            self._write(VERIFIED_REJECTS, key, pa.Table.from_pylist(rows, _FAILURES))
        return True

    def commit(self, key: str, row: pa.Table, ids: list[str]) -> None:
        """Write a result for all materials that are this crystal, in place of a reject."""
        schema = verified_schema(self.grid)
        copies = [
            row.set_column(row.column_names.index("material_id"), "material_id", pa.array([name])) for name in ids
        ]
        self._write(VERIFIED, key, pa.concat_tables(copies).select(schema.names).cast(schema))
        self._file(VERIFIED_REJECTS, key).unlink(missing_ok=True)

    def reject(self, key: str, why: Reject, ids: list[str], limits: Mapping[str, Any]) -> None:
        """Write why a calculation has no result."""
        rows = [why | {"material_id": name, "calculation": key, "limits": _text(limits)} for name in ids]
        self._write(VERIFIED_REJECTS, key, pa.Table.from_pylist(rows, _FAILURES))

    def _file(self, folder: str, key: str) -> Path:
        return self.run / folder / f"{key}.parquet"

    def _write(self, folder: str, key: str, table: pa.Table) -> None:
        content = pa.BufferOutputStream()
        pq.write_table(table, content, compression="zstd")
        put(self._file(folder, key), content.getvalue().to_pybytes())


def _text(limits: Mapping[str, Any]) -> str:
    return json.dumps(dict(limits), sort_keys=True)
