"""A run whose spectra are known to be right: those of DFT."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mat2spec.checkpoint import Checkpoint
from mat2spec.crystal import Crystal
from mat2spec.data.schema import crystals
from mat2spec.errors import StructureError
from mat2spec.query.catalog import create_catalog
from mat2spec.results import REJECTS, prediction_table
from mat2spec.run_directory import RunDirectory
from mat2spec.spectrum import PHDOS_GRID

SHARD = 600


@pytest.fixture(scope="session")
def dft_run(bundled: Path, checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run over the 1,522 labelled crystals, with DFT spectra for predictions and three made-up rejects."""
    table = pq.read_table(bundled)
    labels = np.array(table["phdos"].to_pylist(), np.float32)
    spectra = labels * (3 / PHDOS_GRID.integrate(labels))[:, None].astype(np.float32)
    inputs = table.drop_columns(["row", "phdos"])
    run = RunDirectory(tmp_path_factory.mktemp("runs") / "dft")
    run.claim({"checkpoint": "DFT"}, {"grid": PHDOS_GRID.to_json()})
    for start in range(0, len(inputs), SHARD):
        rows = inputs.slice(start, SHARD)
        found = [row for row in crystals(rows) if isinstance(row, Crystal)]
        predictions = prediction_table(rows, found, rows["nsites"].to_pylist(), spectra[start : start + SHARD], None, checkpoint)
        rejects = _rejects() if start == 0 else REJECTS.empty_table()
        run.commit(f"part-{start // SHARD:06d}", predictions, rejects)
    create_catalog(run.path, PHDOS_GRID)
    run.finish(len(inputs) + 3, {})
    return run.path


def _rejects() -> pa.Table:
    errors = [StructureError(name, f"site {site} has no neighbour within 8 Å") for site, name in enumerate(("lost-a", "lost-b"))]
    rows = [(e.material_id, "table, row 1", "graph", "StructureError", str(e)) for e in errors]
    rows.append((None, "table, row 7", "read", "TableError", "table, row 7: material_id is NULL"))
    return pa.Table.from_pylist([dict(zip(REJECTS.names, row, strict=True)) for row in rows], REJECTS)


@pytest.fixture(scope="session")
def rows(dft_run: Path) -> list[dict]:
    """The predictions of the run, read without SQL."""
    return pa.concat_tables([pq.read_table(file) for file in sorted((dft_run / "predictions").iterdir())]).to_pylist()
