"""What the process that starts a training does itself; its workers are replaced by a training in this process."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import Mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import mat2spec.distributed.training.run
from mat2spec.config import TrainConfig
from mat2spec.distributed.mlflow import TrackedRun
from mat2spec.distributed.training.run import TrainingRun
from mat2spec.errors import TableError
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.graph import build_graph
from mat2spec.train.inputs import TrainingInputs
from mat2spec.train.loop import Training


def training_run(table: pa.Table, config: TrainConfig, folder: Path) -> TrainingRun:
    path = folder / "labels.parquet"
    pq.write_table(table, path)
    return TrainingRun(config, "small", TrainingInputs(path, None, None, None), folder / "run")


@pytest.fixture
def built(monkeypatch) -> list[str]:
    """Ids of the crystals whose graphs were built."""
    ids: list[str] = []

    def build_and_record(crystal: Crystal, *settings: object) -> object:
        ids.append(crystal.material_id)
        return build_graph(crystal, *settings)

    for module in ("data.labels.table", "structure.graph"):
        monkeypatch.setattr(f"mat2spec.{module}.build_graph", build_and_record)
    return ids


@pytest.fixture
def without_ray(monkeypatch) -> None:
    @contextmanager
    def no_session(**_: object) -> Iterator[None]:
        yield

    monkeypatch.setattr(mat2spec.distributed.training.run, "ray_session", no_session)
    monkeypatch.setattr(TrackedRun, "open", lambda *_: Mock(spec=TrackedRun))
    monkeypatch.setattr(TrainingRun, "_scaling", lambda _: (None, 1))


@pytest.mark.usefixtures("without_ray")
def test_driver_builds_no_graph_before_the_workers_start_and_then_those_it_scores(
    small_table, splits, train_config, built, monkeypatch, tmp_path
):
    config = train_config.model_copy(update={"training": train_config.training.model_copy(update={"epochs": 1})})
    run = training_run(small_table, config, tmp_path)

    def train_in_process(*_: object) -> dict:
        assert not built
        training = Training(config, run.inputs.splits(config, check_graphs=False), torch.device("cpu"))
        training.run_epoch()
        built.clear()
        return training.state_dict()

    monkeypatch.setattr(TrainingRun, "_fit", train_in_process)
    assert run.run() == tmp_path / "run" / "checkpoint"
    assert built == [*splits.valid.material_ids, *splits.test.material_ids]


def test_label_whose_graph_cannot_be_built_is_refused_before_anything_is_written(small_table, train_config, tmp_path):
    coords = small_table["frac_coords"].to_pylist()
    coords[3][3:6] = coords[3][:3]
    column = small_table.schema.get_field_index("frac_coords")
    run = training_run(small_table.set_column(column, "frac_coords", pa.array(coords)), train_config, tmp_path)
    with pytest.raises(TableError, match=r"labels\.parquet: mp-10044: .*0\.5 Å") as caught:
        run.run()
    assert "\n" not in str(caught.value)
    assert not run.output.exists()
