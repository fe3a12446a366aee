"""A small run of real crystals, finished or still being written, and the page over it in a real browser."""

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from s3fs import S3FileSystem
from werkzeug.serving import make_server

from mat2spec.data.materials.schema import read_crystals
from mat2spec.data.materials.screening_input import MaterialsInput
from mat2spec.dos.grid import PHDOS_GRID
from mat2spec.explore.reader import RunReader
from mat2spec.explore.server import make_app
from mat2spec.ports import HOST, bind
from mat2spec.predict.table import Prediction, prediction_table
from mat2spec.query.catalog import create_catalog
from mat2spec.storage.rejects import reject_table
from mat2spec.storage.run_directory import RunDirectory

TOKEN = "the-token-of-the-tests"

ROWS = 240


@pytest.fixture
def no_store_of_before() -> Iterator[None]:
    """s3fs keeps a connection with the credentials and the address of its first use, also for the tests that follow."""
    S3FileSystem.clear_instance_cache()
    yield
    S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="session")
def small_run(bundled, checkpoint, tmp_path_factory) -> Path:
    """A finished run over 240 crystals, with spectra by DFT as predictions, two computed spectra and three rejects."""
    folder = tmp_path_factory.mktemp("explore")
    table = pq.read_table(bundled).slice(0, ROWS)
    labels = np.array(table["phdos"].to_pylist(), np.float32)
    spectra = labels * (3 / PHDOS_GRID.integrate(labels))[:, None].astype(np.float32)
    inputs = table.drop_columns(["row", "phdos"])
    pq.write_table(inputs, folder / "materials.parquet")
    fingerprint = MaterialsInput.open(folder / "materials.parquet").fingerprint

    run = RunDirectory(folder / "run")
    identity = {"checkpoint": "DFT", "input": fingerprint, "where": None}
    source = {"path": str(folder / "materials.parquet"), "files": 1}
    run.claim(identity, {"grid": PHDOS_GRID.to_json(), "input": source, "config": {"checkpoint": "phdos"}})
    crystals = list(read_crystals(inputs))
    spread = np.full(ROWS, 0.001, np.float32)
    predictions = prediction_table(
        inputs, crystals, inputs["nsites"].to_pylist(), [2.0] * len(crystals), Prediction(spectra, spread), checkpoint
    )
    rows = [
        ("lost-a", "graph", "site 1 has no neighbor"),
        ("lost-b", "graph", "site 2 has no neighbor"),
        (None, "read", "no id"),
    ]
    rejects = [
        {"material_id": name, "source": "table", "stage": stage, "error_type": f"{stage.title()}Error", "error": error}
        for name, stage, error in rows
    ]
    half = ROWS // 2
    run.commit("part-000000", predictions.slice(0, half), reject_table(rejects))
    run.commit("part-000001", predictions.slice(half), reject_table([]))
    add_computed(run.path, predictions.slice(0, 2))
    create_catalog(run.path, PHDOS_GRID)
    run.finish(ROWS + len(rejects), {})
    return run.path


def add_computed(run: Path, predictions: pa.Table) -> None:
    """Write computed spectra: those of the predictions, turned around."""
    spectra = [spectrum[::-1] for spectrum in predictions["spectrum"].to_pylist()]
    computed = pa.table(
        {
            "material_id": predictions["material_id"],
            "calculation": ["a", "b"],
            "spectrum": pa.array(spectra, pa.list_(pa.float32(), len(PHDOS_GRID))),
            "level": ["dft", "dft"],
        }
    )
    for folder, table in (("verified", computed), ("verification", computed.select(["material_id", "calculation"]))):
        (run / folder).mkdir()
        pq.write_table(table, run / folder / "a.parquet")


@pytest.fixture(scope="session")
def reader(small_run) -> RunReader:
    return RunReader(small_run)


@pytest.fixture
def unfinished_run(small_run, tmp_path) -> Path:
    """The run while its second shard is not done."""
    run = shutil.copytree(small_run, tmp_path / "unfinished")
    for folder in ("predictions", "rejects"):
        (run / folder / "part-000001.parquet").unlink()
    record = json.loads((run / "run.json").read_text())
    del record["counts"]
    (run / "run.json").write_text(json.dumps(record | {"status": "running"}))
    return run


@pytest.fixture(scope="session")
def serve() -> Iterator:
    """Serve the page of a run until the end of the tests; gives its address."""
    servers = []

    def start(reader: RunReader) -> str:
        listener = bind(8300)
        port = listener.getsockname()[1]
        server = make_server(HOST, port, make_app(reader, TOKEN), threaded=True, fd=listener.fileno())
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append((server, listener))
        return f"http://{HOST}:{port}/?token={TOKEN}"

    yield start
    for server, listener in servers:
        server.shutdown()
        server.server_close()
        listener.close()
