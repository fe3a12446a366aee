"""A training on the cluster, undisturbed and disturbed."""

import json
import os
import re
import signal
import urllib.request
from pathlib import Path

import pytest
import torch
from faults import Gate, with_faults
from running import wait_until
from safetensors.torch import load_file

from mat2spec.model.checkpoint import CARD, TRAINING_IDS, WEIGHTS, Checkpoint

EPOCHS = 6

SUBMISSION = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+\s")
"""How lines of `ray job submit` itself begin."""


def printed(output: str) -> list[str]:
    """Lines of the job itself."""
    return [line for line in output.splitlines() if line.strip() and not SUBMISSION.match(line)]


def epoch_files(output: Path, epoch: int) -> list[Path]:
    return list((output / "ray").glob(f"epoch-{epoch:04d}-*/training.pt"))


def final_state(output: Path) -> dict:
    (file,) = epoch_files(output, EPOCHS)
    return torch.load(file, weights_only=True)


def test_training_prints_its_checkpoint_last(trained):
    directory, output = trained
    assert printed(output)[-1] == str(directory / "checkpoint")
    assert f"epoch {EPOCHS}/{EPOCHS}: loss " in output


def test_checkpoint_is_loadable_and_knows_its_training(trained, splits):
    checkpoint = Checkpoint.load(trained[0] / "checkpoint")
    assert checkpoint.card.name == "train"
    assert checkpoint.card.config.training.epochs == EPOCHS
    assert checkpoint.card.training.rows == {"train": 24, "valid": 6, "test": 6}
    assert checkpoint.training_ids == {*splits.train.material_ids, *splits.valid.material_ids}
    assert checkpoint.training_structures.ids == checkpoint.training_ids
    assert 0 <= checkpoint.card.training.epoch < EPOCHS


def test_mlflow_holds_settings_numbers_and_files_of_the_run(trained, mlflow_client, tmp_path):
    directory, _ = trained
    run = mlflow_client.get_run((directory / "mlflow_run_id").read_text())
    assert run.info.status == "FINISHED"
    assert {"training.epochs": "6", "model.width": "16", "workers.num_workers": "2"}.items() <= run.data.params.items()
    for name in ("train_loss", "train_prediction", "valid_mae", "valid_r2", "valid_wd", "learning_rate"):
        assert [point.step for point in mlflow_client.get_metric_history(run.info.run_id, f"curves/{name}")] == list(
            range(EPOCHS)
        ), name
    scores = json.loads((directory / "result.json").read_text())["test"]["true-sum"]
    assert {name: run.data.metrics[f"scores/test_{name}"] for name in scores} == pytest.approx(scores)
    assert {file.path for file in mlflow_client.list_artifacts(run.info.run_id)} >= {
        "predicted-and-true.png",
        "config.json",
    }
    assert (directory / "predicted-and-true.png").read_bytes().startswith(b"\x89PNG")


def test_registered_model_is_the_checkpoint_without_any_pickle(trained, mlflow_client):
    directory, _ = trained
    version = mlflow_client.get_model_version("phdos-test", "1")
    assert version.run_id == (directory / "mlflow_run_id").read_text()
    logged = [file for file in (directory.parent / "runs" / "mlflow-artifacts").rglob("*") if file.is_file()]
    assert {CARD, WEIGHTS, TRAINING_IDS} <= {file.name for file in logged}
    assert not [file for file in logged if file.suffix in (".pkl", ".pickle", ".pt", ".pth")]


def test_training_that_is_killed_and_stopped_ends_at_the_same_bits(
    trained, mlflow_client, head, home, tmp_path, tmp_path_factory
):
    """A worker dies after epoch 2, and the job is stopped after epoch 4; the same command then finishes it.

    A gate holds the workers each time.
    """
    undisturbed, disturbed = trained[0], home / "disturbed"
    command = ("python", "jobs/train.py", "train.yaml", "--output", "disturbed")
    death, stop = (Gate([f"epoch {epoch}, workers 2"], tmp_path_factory.mktemp("gate")) for epoch in (2, 4))
    variables = with_faults(death.faults | stop.faults, tmp_path)
    with head.submit(*command, home=home, variables=variables, name="disturbed") as process:
        wait_until(lambda: len(death.held()) == 2, "both workers are held after the second epoch")
        os.kill(death.held()[0], signal.SIGKILL)
        death.open()
        wait_until(lambda: len(stop.held()) == 2, "the fourth epoch, by workers that were started again")
        assert epoch_files(disturbed, 4)
        assert not epoch_files(disturbed, 5)
        request = urllib.request.Request(f"{head.address}/api/jobs/disturbed/stop", method="POST")
        with urllib.request.urlopen(request) as answer:
            assert json.load(answer) == {"stopped": True}
        output = process.communicate()[0]
    assert "was stopped" in output
    assert not (disturbed / "result.json").exists()
    run_id = (disturbed / "mlflow_run_id").read_text()

    code, output = head.run(*command, home=home)
    assert code == 0, output
    assert f"epoch 1/{EPOCHS}" not in output, "it must resume, not start again"
    run = mlflow_client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert (disturbed / "mlflow_run_id").read_text() == run_id
    runs = mlflow_client.search_runs([run.info.experiment_id])
    assert sum("disturbed" in one.data.tags["command"].split() for one in runs) == 1, "resumed, not begun again"
    history = {(point.step, point.value) for point in mlflow_client.get_metric_history(run_id, "curves/train_loss")}
    expected = mlflow_client.get_metric_history((undisturbed / "mlflow_run_id").read_text(), "curves/train_loss")
    assert history == {(point.step, point.value) for point in expected}, (
        "an epoch that was run twice gave the same loss"
    )
    one, two = final_state(undisturbed), final_state(disturbed)
    assert one["network"].keys() == two["network"].keys()
    for name, tensor in one["network"].items():
        assert tensor.equal(two["network"][name]), name
    best, again = (load_file(directory / "checkpoint" / WEIGHTS) for directory in (undisturbed, disturbed))
    assert all(best[name].equal(again[name]) for name in best)


def test_command_that_is_done_does_nothing(trained, job, home):
    directory, _ = trained
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in home.rglob("*") if path.is_file()}
    outcome = job(
        "train", "train.yaml", "--output", "undisturbed", "--register_as", "phdos-test", "--workers.num_workers", 1
    )
    assert (outcome.code, outcome.out) == (0, f"{directory / 'checkpoint'}\n")
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in home.rglob("*") if path.is_file()} == before


def test_other_settings_into_the_same_directory_are_refused_by_name(trained, job):
    outcome = job(
        "train", "train.yaml", "--output", "undisturbed", "--training.learning_rate", "0.01", "--graph.cutoff", "6"
    )
    assert outcome.code == 2
    assert (
        "holds a training with other settings (graph.cutoff 8.0 → 6.0, training.learning_rate 0.001 → 0.01)"
        in outcome.err
    )
    assert outcome.err.count("\n") == 1


def test_evaluation_prints_the_metrics_and_writes_them(trained, job, home):
    outcome = job("evaluate", "undisturbed/checkpoint", "--output", "scores.json")
    assert outcome.code == 0, outcome.err
    record = json.loads((home / "scores.json").read_text())
    assert (record["checkpoint"], record["split"], record["materials"]) == ("train", "test", 6)
    assert record["fingerprint"] == Checkpoint.load(trained[0] / "checkpoint").fingerprint
    result = json.loads((trained[0] / "result.json").read_text())
    for scaling, scores in record["scores"].items():
        assert scores == pytest.approx(result["test"][scaling]), "the job of the training said the same"
        assert scaling in outcome.out
        assert all(
            name in outcome.out and f"{scores[name]:.4g}"[:5] in outcome.out for name in ("r2", "mae", "mse", "wd")
        )
