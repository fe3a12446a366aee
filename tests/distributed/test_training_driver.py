"""What the process that starts a training does itself; its workers are replaced by a training in this process."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import Mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
import torch

import mat2spec.distributed.training.run
from mat2spec.config import TableConfig, TrainConfig, WorkersConfig, validate
from mat2spec.distributed.mlflow.runs import TrackedRun
from mat2spec.distributed.training.run import TrainingRun
from mat2spec.distributed.training.settings import identifying_settings, refuse_other_settings
from mat2spec.distributed.training.table import BenchmarkTable
from mat2spec.distributed.training.tracking import TrainingTracking
from mat2spec.errors import ConfigError, RunError, TableError
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.graph import build_graph
from mat2spec.train.inputs import TrainingInputs
from mat2spec.train.loop import Training


def training_run(table: pa.Table, config: TrainConfig, folder: Path) -> TrainingRun:
    path = folder / "labels.parquet"
    pq.write_table(table, path)
    return TrainingRun(config, "small", TrainingInputs(path, None, None, None), folder / "run")


def tracked_run(losses: dict[int, float]) -> Mock:
    """An MLflow run that has these training losses, by epoch."""
    run = Mock(spec=TrackedRun, uri="sqlite:///x")
    run.history.return_value = losses
    return run


@pytest.fixture
def built(monkeypatch) -> list[str]:
    """Ids of the crystals whose graphs were built."""
    ids: list[str] = []

    def build_and_record(crystal: Crystal, *settings: object) -> object:
        ids.append(crystal.material_id)
        return build_graph(crystal, *settings)

    for module in ("data.labels.lazy_graphs", "structure.graph"):
        monkeypatch.setattr(f"mat2spec.{module}.build_graph", build_and_record)
    return ids


@pytest.fixture
def without_ray(monkeypatch) -> None:
    @contextmanager
    def no_session(**_: object) -> Iterator[None]:
        yield

    monkeypatch.setattr(mat2spec.distributed.training.run, "ray_session", no_session)
    monkeypatch.setattr(TrackedRun, "open", lambda *_: tracked_run({}))
    monkeypatch.setattr("mat2spec.distributed.training.tracking.log_checkpoint", lambda *_: None)  # not registered
    monkeypatch.setattr(TrainingRun, "_scaling", lambda _: (None, 1))


@pytest.mark.usefixtures("without_ray")
def test_driver_builds_no_graph_before_the_workers_start_and_then_those_it_scores(
    small_table, splits, train_config, built, monkeypatch, tmp_path
):
    config = train_config.model_copy(update={"training": train_config.training.model_copy(update={"epochs": 1})})
    run = training_run(small_table, config, tmp_path)

    def train_in_process(*_: object) -> list[dict]:
        assert not built
        training = Training(config, run.inputs.splits(config, check_graphs=False), torch.device("cpu"))
        training.run_epoch()
        built.clear()
        return [training.state_dict()]

    monkeypatch.setattr(TrainingRun, "_fit", train_in_process)
    assert run.run() == tmp_path / "run" / "checkpoint"
    assert built == [*splits.valid.material_ids, *splits.test.material_ids]


GPUS = [
    ({}, 1, True, 1, None),
    ({"num_workers": 2}, 1, False, 0, None),
    ({"num_workers": 2, "gpus_per_worker": 0.5}, 1, True, 0.5, "gloo"),
    ({"num_workers": 5, "gpus_per_worker": 0.5}, 2, False, 0, "gloo"),
    ({"use_gpu": False}, 1, False, 0, None),
]


@pytest.mark.parametrize(("settings", "gpus", "use_gpu", "share", "backend"), GPUS)
def test_workers_share_gpus_if_told_to(
    small_table, train_config, monkeypatch, tmp_path, settings, gpus, use_gpu, share, backend
):
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 8.0, "GPU": float(gpus)})
    workers = WorkersConfig(cpus_per_worker=1, **settings)
    run = training_run(small_table, train_config.model_copy(update={"workers": workers}), tmp_path)
    scaling, _ = run._scaling()
    assert scaling.use_gpu is use_gpu
    assert scaling.resources_per_worker == {"CPU": 1, "GPU": share}
    assert run._backend().backend == backend, "NCCL refuses two processes on one GPU"


def test_more_workers_than_shares_of_gpus_are_refused(small_table, train_config, monkeypatch, tmp_path):
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 8.0, "GPU": 1.0})
    workers = WorkersConfig(num_workers=3, cpus_per_worker=1, use_gpu=True, gpus_per_worker=0.5)
    run = training_run(small_table, train_config.model_copy(update={"workers": workers}), tmp_path)
    with pytest.raises(ConfigError, match=r"^workers: 3 workers with 1 CPU and 0\.5 GPU each do not fit the cluster, "):
        run._scaling()


def test_label_whose_graph_cannot_be_built_is_refused_before_anything_is_written(small_table, train_config, tmp_path):
    coords = small_table["frac_coords"].to_pylist()
    coords[3][3:6] = coords[3][:3]
    column = small_table.schema.get_field_index("frac_coords")
    run = training_run(small_table.set_column(column, "frac_coords", pa.array(coords)), train_config, tmp_path)
    with pytest.raises(TableError, match=r"labels\.parquet: mp-10044: .*overlap") as caught:
        run.run()
    assert "\n" not in str(caught.value)
    assert not run.output.exists()


def test_epoch_that_a_stop_kept_from_mlflow_is_logged_at_the_end(splits, train_config):
    """Ray Train keeps a checkpoint before it calls back, so a training stopped between the two resumes after it."""
    training = Training(train_config, splits, torch.device("cpu"))
    epochs = [training.run_epoch() for _ in range(3)]
    tracked = tracked_run({0: epochs[0]["train_loss"], 2: epochs[2]["train_loss"]})
    TrainingTracking(tracked).log_epochs(training.state_dict()["history"])
    missing = {name: value for name, value in epochs[1].items() if name != "epoch"}
    tracked.log_metrics.assert_called_once_with(missing, 1)


def test_ensemble_of_rows_joins_their_runs_of_a_fold_and_one_of_a_row_its_seeds(tmp_path):
    (tmp_path / "small.yaml").write_text("data: {table: labels.parquet}\n")
    config = str(tmp_path / "small.yaml")
    folds = {"group": "a", "config": config, "seeds": [1, 2], "folds": True}
    rows = [
        folds | {"name": "One"},
        folds | {"name": "Other"},
        folds | {"name": "Both", "kind": "ensemble", "depends_on": ["One", "Other"]},
        folds | {"name": "Seeds", "kind": "ensemble", "depends_on": "One"},
    ]
    table = BenchmarkTable(validate(TableConfig, {"title": "t", "rows": rows}, "test"), tmp_path, tmp_path / "t.md")
    made = {run.name: [path.name for path in run.predecessors] for run in table.runs if run.row.kind == "ensemble"}
    assert made == {
        "both-1": ["one-1", "other-1"],
        "both-2": ["one-2", "other-2"],
        "seeds-1": ["one-1", "one-2"],
    }
    assert [run.config.data.fold for run in table.runs if run.row.name == "Both"] == [1, 2]


def test_setting_that_an_earlier_version_did_not_know_had_its_default(train_config, tmp_path):
    settings = identifying_settings(train_config)
    stored = settings | {"data": {name: value for name, value in settings["data"].items() if name != "level"}}
    (tmp_path / "config.json").write_text(json.dumps(stored | {"labels": "a"}))
    refuse_other_settings(tmp_path, settings | {"labels": "a"})
    other = settings | {"data": settings["data"] | {"level": "surrogate"}, "labels": "a"}
    with pytest.raises(RunError, match=r"data\.level dft → surrogate"):
        refuse_other_settings(tmp_path, other)
