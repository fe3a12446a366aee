"""What MLflow's store holds after a training, in this process, and after a screening by its checkpoint."""

import io
import json
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
import torch

from mat2spec.config import TrainConfig
from mat2spec.data.labels.dataset import LabeledSplits
from mat2spec.distributed.mlflow.screenings import close_screening, open_screening
from mat2spec.distributed.mlflow.store import EXPERIMENT, store_uri
from mat2spec.distributed.training.settings import CONFIG, flat_settings
from mat2spec.distributed.training.tracking import TrainingTracking
from mat2spec.model.checkpoint import Checkpoint
from mat2spec.predict.mlflow_model import EXAMPLE
from mat2spec.predict.predictor import Predictor
from mat2spec.structure.crystal import Crystal
from mat2spec.train.loop import Training
from mat2spec.train.result import CHECKPOINT, write_result

EPOCHS = 3


@dataclass(frozen=True)
class Store:
    """MLflow's store, and what was written beside it.

    Args:
        client: MLflow's client.
        uri: Of the store.
        output: Directory of the training.
        result: Of the training.
        training: Its MLflow run.
        screening: MLflow run of a screening.
        printed: What the end of the training printed.
    """

    client: object
    uri: str
    output: Path
    result: dict
    training: object
    screening: object
    printed: str

    @property
    def model(self) -> object:
        """The model that the training has logged."""
        return self.client.get_logged_model(self.training.outputs.model_outputs[0].model_id)


def train(output: Path, config: TrainConfig, splits: LabeledSplits) -> dict:
    """Train in this process, as the driver of a training does, and return the result."""
    output.mkdir(parents=True)
    tracking = TrainingTracking.open(output, "tiny.v2", config, flat_settings(config.model_dump(mode="json")))
    training = Training(config, splits, torch.device("cpu"))
    for _ in range(EPOCHS):
        tracking.log_epoch(training.run_epoch())
    (output / CONFIG).write_text("{}")
    result = write_result(output, "tiny.v2", config, training.state_dict(), splits, None, {"commit": "abc"})
    tracking.log_result(result, output, config)
    tracking.finish()
    return result


def screen(output: Path, checkpoint: Checkpoint, uri: str) -> str:
    """Record a finished screening of two rows, and return MLflow's id."""
    record = {
        "identity": {"checkpoint": checkpoint.fingerprint, "input": 64 * "c", "where": None, "rows_per_shard": 5},
        "checkpoint": {"name": checkpoint.card.name, "path": "/x/checkpoint", "weights": checkpoint.card.weights},
        "input": {"path": "/data/oxides.parquet", "files": 1},
        "counts": {"input": 2, "predictions": 1, "rejects": 1},
        "stages": {"predict_seconds": 0.5, "bottleneck": "predict"},
    }
    run = open_screening(output, record, checkpoint.card.training.mlflow_run_id)
    assert run
    assert run.uri == uri
    close_screening(run, record)
    return run.run_id


@pytest.fixture(scope="module")
def mlflow() -> Iterator[ModuleType]:
    with warnings.catch_warnings():  # MLflow's own
        warnings.simplefilter("ignore")
        import mlflow

        yield mlflow


@pytest.fixture(scope="module")
def store(mlflow, train_config, splits, tmp_path_factory) -> Iterator[Store]:
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setenv("MAT2SPEC_HOME", str(home))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setattr(sys, "argv", ["/bin/mat2spec", "train", "configs/tiny.v2.yaml", "--register_as", "tiny"])
        printed = io.StringIO()
        patch.setattr(sys, "stdout", printed)
        output = home / "elsewhere" / "tiny"
        settings = train_config.training.model_copy(update={"epochs": EPOCHS})
        config = train_config.model_copy(update={"training": settings, "register_as": "tiny"})
        result = train(output, config, splits)
        uri = f"sqlite:///{home / 'runs' / 'mlflow.db'}"
        screening = screen(home / "screened", Checkpoint.load(output / CHECKPOINT), uri)
        client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
        training = client.get_run((output / "mlflow_run_id").read_text())
        yield Store(client, uri, output, result, training, client.get_run(screening), printed.getvalue())


def test_store_lies_in_runs_wherever_the_output_is(store, tmp_path, monkeypatch):
    assert Path(store.uri.removeprefix("sqlite:///")).exists()
    assert not list(store.output.parent.glob("*.db"))
    copy = tmp_path / "runtime_resources" / "working_dir_files" / "_ray_pkg_0"
    copy.mkdir(parents=True)
    monkeypatch.delenv("MAT2SPEC_HOME", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(copy)
    assert store_uri(tmp_path / "results" / "a") == f"sqlite:///{tmp_path / 'results' / 'mlflow.db'}", (
        "Ray deletes its copy of the working directory"
    )


def test_experiment_is_one_of_machine_learning(store):
    experiment = store.client.get_experiment_by_name(EXPERIMENT)
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"


def test_curves_and_single_scores_are_in_sections_of_their_own_and_curves_come_first(store):
    assert min(store.training.data.metrics).startswith("curves/"), "MLflow sorts the sections by name"
    for name in store.training.data.metrics:
        points = store.client.get_metric_history(store.training.info.run_id, name)
        assert len(points) == (1 if name.startswith("scores/") else EPOCHS), name
    assert {"scores/valid_mae", "scores/test_mae", "curves/train_loss"} <= store.training.data.metrics.keys()


def test_run_holds_figures_configuration_command_and_a_table_of_its_scores(store):
    files = {file.path for file in store.client.list_artifacts(store.training.info.run_id)}
    assert files >= {"predicted-and-true.png", "error-histogram.png", "config.json"}
    tags = store.training.data.tags
    assert (tags["kind"], tags["mlflow.source.name"]) == ("training", "mat2spec train tiny.v2.yaml")
    assert tags["command"] == "mat2spec train configs/tiny.v2.yaml --register_as tiny"
    mae = store.result["test"]["true-sum"]["mae"]
    assert f"| {mae:.4g} |" in tags["mlflow.note.content"]


def test_datasets_of_a_training_are_named_and_their_digest_is_that_of_the_labels(store, splits):
    inputs = {entry.tags[0].value: entry.dataset for entry in store.training.inputs.dataset_inputs}
    assert {context: entry.name for context, entry in inputs.items()} == {
        "training": "small train",
        "validation": "small valid",
        "testing": "small test",
    }
    for entry in inputs.values():
        assert splits.fingerprint.startswith(entry.digest)
        assert json.loads(entry.source)["uri"].endswith("small.parquet")
    assert json.loads(inputs["training"].profile) == {"num_rows": 24}


def test_logged_model_is_named_as_the_checkpoint_and_shows_the_scores_of_its_epoch(store):
    assert store.model.name == "tiny-v2", "MLflow allows no dot in a name"
    card = Checkpoint.load(store.output / CHECKPOINT).card
    scores = {metric.key: metric for metric in store.model.metrics}
    history = store.client.get_metric_history(store.training.info.run_id, "curves/train_loss")
    assert scores["curves/train_loss"].value == history[card.training.epoch].value
    for part, values in (("valid", store.result["valid"]), ("test", store.result["test"]["true-sum"])):
        for name, value in values.items():
            metric = scores[f"scores/{part}_{name}"]
            assert metric.value == pytest.approx(value)
            assert (metric.step, metric.dataset_name) == (card.training.epoch, f"small {part}")


def test_registration_is_told_and_described(store):
    assert store.printed == f"registered as models:/tiny/1 in {store.uri}; mat2spec ui shows it\n"
    version = store.client.get_model_version("tiny", "1")
    assert version.run_id == store.training.info.run_id
    assert str(store.output / CHECKPOINT) in version.description


def test_input_example_of_the_model_is_answered_as_by_the_checkpoint(store, mlflow):
    model = mlflow.pyfunc.load_model(store.model.model_uri)
    assert [column.name for column in model.metadata.signature.inputs] == list(EXAMPLE)
    example = model.input_example
    predictor = Predictor(Checkpoint.load(store.output / CHECKPOINT), "cpu")
    expected = predictor.predict_spectra([Crystal.from_row(EXAMPLE)])
    assert model.predict(example) == expected.tolist()
    assert model.metadata.signature.outputs.inputs[0].shape == (-1, expected.shape[1])


def test_model_takes_rows_of_a_materials_table_as_parquet_holds_them(store, mlflow, small_table):
    model = mlflow.pyfunc.load_model(store.model.model_uri)
    rows: pd.DataFrame = small_table.slice(0, 2).to_pandas()
    assert len(model.predict(rows)) == 2


def test_screening_names_its_input_and_the_training_and_model_of_its_checkpoint(store):
    run = store.screening
    (entry,) = run.inputs.dataset_inputs
    assert (entry.dataset.name, entry.dataset.digest) == ("oxides", 12 * "c")
    assert json.loads(entry.dataset.source) == {"uri": "/data/oxides.parquet"}
    assert run.data.tags["training_run_id"] == run.data.tags["mlflow.parentRunId"] == store.training.info.run_id
    assert [model.model_id for model in run.inputs.model_inputs] == [store.model.model_id]
    assert {"input": "/data/oxides.parquet", "checkpoint_name": "tiny.v2"}.items() <= run.data.params.items()
    assert run.data.metrics == {
        "screening/input": 2.0,
        "screening/predictions": 1.0,
        "screening/rejects": 1.0,
        "screening/predict_seconds": 0.5,
    }


def test_screening_by_a_checkpoint_of_another_store_still_names_its_training(store, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("MAT2SPEC_HOME", str(tmp_path))
    record = {
        "identity": {"checkpoint": "a", "input": "b"},
        "checkpoint": {"name": "other"},
        "input": {"path": "s3://bucket/oxides.parquet"},
    }
    run = open_screening(tmp_path / "screened", record, "0123")
    assert run
    tags = run.client.get_run(run.run_id).data.tags
    assert tags["training_run_id"] == "0123"
    assert "mlflow.parentRunId" not in tags
