"""A training and a screening that lose one of two nodes and get a new one; both log to an MLflow server."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from faults import Gate, with_faults
from nodes import DEADLINE, Cluster, wait_until

from mat2spec.data.materials.schema import read_crystals
from mat2spec.model.checkpoint import Checkpoint
from mat2spec.predict.predictor import Predictor
from mat2spec.structure.crystal import Crystal

EPOCHS = 16

HELD_ALONE, HELD_WITH_BOTH, HELD_AFTER_LOSS = 2, 6, 10
"""Epochs before which the training waits: if it started with one worker, for a second; to lose one; for a new one."""

TRAIN = {
    "data": {"table": "labels.parquet"},
    "model": {
        "layers": 2,
        "heads": 2,
        "width": 16,
        "components": 3,
        "latent": 8,
        "representation": 32,
        "projection": 32,
    },
    "training": {"epochs": EPOCHS, "batch_size": 8, "checkpoint_every": 1},
    "workers": {"num_workers": 2, "min_workers": 1, "cpus_per_worker": 1, "resize_interval": 2},
    "register_as": "elastic",
}

ROWS, ROWS_PER_SHARD = 3000, 25

HELD_FROM = ROWS // 2
"""Row from which on the screening waits until it has lost a node and got a new one."""

SAME_SPECTRUM = 1e-5
"""[states per cm⁻¹ per atom] Rounding of float32 sums, which depends on how crystals are batched."""


@pytest.fixture(scope="module")
def client(mlflow_server: str) -> object:
    from mlflow import MlflowClient  # takes seconds

    return MlflowClient(tracking_uri=mlflow_server, registry_uri=mlflow_server)


@pytest.fixture(scope="module")
def trained(
    cluster: Cluster, mlflow_server: str, client, small_table: pa.Table, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Directory of a training that lost a node and got a new one.

    Gates hold it where it could finish first: Ray changes the number of workers whatever they are doing.
    """
    home = tmp_path_factory.mktemp("nodes")
    pq.write_table(small_table, home / "labels.parquet")
    (home / "train.yaml").write_text(yaml.safe_dump(TRAIN))
    output = home / "trained"
    start = Gate([f"epoch {HELD_ALONE}, workers 1"], tmp_path_factory.mktemp("gate"))
    loss = Gate([f"epoch {HELD_WITH_BOTH}, workers 2"], tmp_path_factory.mktemp("gate"))
    rejoining = Gate([f"epoch {HELD_AFTER_LOSS}, workers 1"], tmp_path_factory.mktemp("gate"))
    faults = with_faults(start.faults | loss.faults | rejoining.faults, home)
    places = {"MAT2SPEC_HOME": home, "MLFLOW_TRACKING_URI": mlflow_server}
    process = cluster.start("jobs/train.py", home / "train.yaml", "--output", output, on_nodes=faults, **places)
    wait_until((output / "mlflow_run_id").exists, "the training has started", process)

    def last_size() -> int:
        history = client.get_metric_history((output / "mlflow_run_id").read_text(), "curves/workers")
        return int(history[-1].value) if history else 0

    wait_until(lambda: len(loss.held()) == 2, "both workers are held", process)
    wait_until(lambda: last_size() == 2, "an epoch with two workers", process)
    cluster.kill_node()
    start.open()
    loss.open()
    wait_until(lambda: len(rejoining.held()) == 1, "the only worker is held", process)
    wait_until(lambda: last_size() == 1, "an epoch with one worker", process)
    cluster.add_nodes(1)
    out, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, err
    assert out.splitlines()[-1] == str(output / "checkpoint")
    return output


def test_training_continues_with_fewer_workers_and_adds_one_when_a_node_joins(trained, client):
    run = client.get_run((trained / "mlflow_run_id").read_text())
    assert run.info.status == "FINISHED"
    by_epoch = {point.step: point.value for point in client.get_metric_history(run.info.run_id, "curves/workers")}
    assert sorted(by_epoch) == list(range(EPOCHS))
    sizes = [by_epoch[epoch] for epoch in range(EPOCHS)]
    changes = [size for size, previous in zip(sizes, [None, *sizes], strict=False) if size != previous]
    assert changes[-3:] == [2, 1, 2], "it may have started with one, because Ray counts nodes only now and then"
    losses = {point.step: point.value for point in client.get_metric_history(run.info.run_id, "curves/train_loss")}
    assert np.mean([losses[epoch] for epoch in range(EPOCHS - 3, EPOCHS)]) < losses[0]


def test_server_holds_the_files_and_the_model(trained, client):
    run_id = (trained / "mlflow_run_id").read_text()
    assert {file.path for file in client.list_artifacts(run_id)} >= {"predicted-and-true.png", "config.json"}
    assert client.get_model_version("elastic", "1").run_id == run_id
    assert not list(trained.parent.rglob("mlflow.db")), (
        "runs are logged to MLFLOW_TRACKING_URI, not to a file beside the results"
    )


@pytest.fixture(scope="module")
def screened(
    cluster: Cluster, trained: Path, mlflow_server: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, pa.Table]:
    """A screening that lost a node and got a new one, with a checkpoint from the server; the run and its input."""
    home = trained.parent
    table = next(pq.ParquetFile("mat2spec/data/bundled/mp_structures.parquet").iter_batches(batch_size=ROWS))
    table = pa.Table.from_batches([table])
    pq.write_table(table, home / "structures.parquet")
    settings = {
        "input": "structures.parquet",
        "checkpoint": "models:/elastic/1",
        "inference": {"rows_per_shard": ROWS_PER_SHARD},
    }
    (home / "screen.yaml").write_text(yaml.safe_dump(settings))
    output = home / "screened"

    def committed() -> int:
        return len(list(output.glob("predictions/*.parquet")))

    gate = Gate(table["material_id"].to_pylist()[HELD_FROM::5], tmp_path_factory.mktemp("gate"))
    process = cluster.start(
        "jobs/screen.py",
        home / "screen.yaml",
        "--output",
        output,
        on_nodes=gate.variables,
        MAT2SPEC_HOME=home,
        MLFLOW_TRACKING_URI=mlflow_server,
    )
    wait_until(lambda: committed() >= 5, "the fifth shard", process)
    cluster.kill_node()
    wait_until(lambda: len(gate.held()) == 1, "the only worker is held", process)
    cluster.add_nodes(1)
    wait_until(lambda: len(gate.held()) == 2, "a worker of the new node is held, too", process)
    gate.open()
    out, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, err
    assert out.splitlines()[-1].startswith(f"{ROWS} input rows: "), "above it Ray reports the lost node"
    return output, table


def test_every_row_is_one_prediction_or_one_reject_although_a_node_was_lost(screened):
    run, table = screened
    ids = [row for folder in ("predictions", "rejects") for row in read(run, folder)["material_id"].to_pylist()]
    assert sorted(ids) == sorted(table["material_id"].to_pylist())
    assert json.loads((run / "run.json").read_text())["counts"]["input"] == ROWS


def test_screened_spectra_are_those_of_the_predictor(screened, trained):
    run, table = screened
    spectra = {
        row["material_id"]: row["spectrum"]
        for row in read(run, "predictions").select(["material_id", "spectrum"]).to_pylist()
    }
    chosen = [row for row in read_crystals(table) if isinstance(row, Crystal) and row.material_id in spectra][::10]
    expected = Predictor(Checkpoint.load(trained / "checkpoint"), torch.device("cpu")).predict_spectra(chosen)
    np.testing.assert_allclose([spectra[crystal.material_id] for crystal in chosen], expected, atol=SAME_SPECTRUM)


def read(run: Path, folder: str) -> pa.Table:
    return pa.concat_tables([pq.read_table(file) for file in sorted((run / folder).iterdir())])
