"""The files of a run that hold computed spectra: one for each calculation, under its key, and one for each that failed."""

import os
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mat2spec.rejects import REJECT_COLUMNS, Reject

VERIFIED, VERIFIED_REJECTS = "verified", "verified_rejects"

EMPTY = pa.schema({"material_id": pa.string(), "calculation": pa.string(), "spectrum": pa.list_(pa.float32())})
_NONE = "none"
"""Name of the empty file of each folder, so that there is always one to read."""


@dataclass(frozen=True)
class ComputedFiles:
    """Results and rejects of calculations, written whole or not at all.

    Args:
        run: The run's directory.
    """

    run: Path

    def open(self) -> None:
        """Make the folders; each holds a file at once."""
        for folder, schema in ((VERIFIED, EMPTY), (VERIFIED_REJECTS, REJECT_COLUMNS)):
            (self.run / folder).mkdir(exist_ok=True)
            self._write(folder, _NONE, schema.empty_table())

    def finished(self, key: str) -> set[str]:
        """Ids of the materials that have the result, or the reject, of a calculation."""
        files = [self.run / folder / f"{key}.parquet" for folder in (VERIFIED, VERIFIED_REJECTS)]
        return {name for file in files if file.exists() for name in pq.read_table(file, columns=["material_id"])["material_id"].to_pylist()}

    def commit(self, key: str, row: pa.Table, ids: list[str]) -> None:
        """Write a result for all materials that are this crystal."""
        copies = [row.set_column(row.column_names.index("material_id"), "material_id", pa.array([name])) for name in ids]
        self._write(VERIFIED, key, pa.concat_tables(copies))

    def reject(self, key: str, why: Reject, ids: list[str]) -> None:
        """Write why a calculation has no result."""
        self._write(VERIFIED_REJECTS, key, pa.Table.from_pylist([why | {"material_id": name} for name in ids], REJECT_COLUMNS))

    def again(self, key: str, ids: list[str]) -> bool:
        """Give a result that is there to further materials that are the same crystal; False if there is none."""
        file = self.run / VERIFIED / f"{key}.parquet"
        if not file.exists():
            return False
        table = pq.read_table(file)
        self.commit(key, table.slice(0, 1), sorted({*table["material_id"].to_pylist(), *ids}))
        return True

    def forget_rejects(self, keys: list[str]) -> None:
        """Let calculations that failed be tried again."""
        for key in keys:
            (self.run / VERIFIED_REJECTS / f"{key}.parquet").unlink(missing_ok=True)

    def _write(self, folder: str, name: str, table: pa.Table) -> None:
        partial = self.run / folder / f".{name}.{os.getpid()}.partial"
        pq.write_table(table, partial, compression="zstd")
        partial.replace(self.run / folder / f"{name}.parquet")
