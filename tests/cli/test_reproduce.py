"""A benchmark table: a worker killed, trainings resumed, made an ensemble, evaluated, written."""

import json
import re
import statistics
import warnings
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
import yaml
from faults import Gate
from running import Head, wait_until

from mat2spec.model.checkpoint import Checkpoint
from mat2spec.predict.predictor import Predictor

CPU = torch.device("cpu")

EPOCHS = 30

HELD = 3
"""Epoch before which a worker is killed."""

SMALL = {
    "data": {"table": "labels.parquet"},
    "model": {"architecture": "gatgnn", "layers": 1, "heads": 1, "width": 8},
    "training": {"epochs": EPOCHS, "batch_size": 8, "checkpoint_every": 1},
}

ROWS = [
    {"group": "Networks", "name": "GATGNN", "config": "small.yaml", "seeds": [1, 2], "published": {"mae": 0.177}},
    {
        "group": "Networks",
        "name": "GATGNN, longer",
        "config": "small.yaml",
        "depends_on": "GATGNN",
        "changes": {"training.epochs": 1},
    },
    {
        "group": "Networks",
        "name": "Both",
        "config": "small.yaml",
        "seeds": [1, 2],
        "depends_on": "GATGNN",
        "kind": "ensemble",
    },
    {
        "group": "Networks",
        "name": "Unlike",
        "config": "small.yaml",
        "depends_on": "GATGNN",
        "changes": {"model.width": 9},
    },
    {
        "group": "Kinds",
        "name": "Oxides",
        "config": "small.yaml",
        "depends_on": "GATGNN",
        "kind": "evaluate",
        "changes": {"data.fraction": 0.5},
    },
]
TABLE = {"title": "A small table", "notes": "Of no use.", "rows": ROWS}


@pytest.fixture(scope="module")
def table(head: Head, home: Path, tmp_path_factory) -> tuple[Path, str]:
    """The table, after a worker was killed on its way: its directory and what the job printed."""
    (home / "small.yaml").write_text(yaml.safe_dump(SMALL))
    (home / "table.yaml").write_text(yaml.safe_dump(TABLE))
    output = home / "table"
    gate = Gate([f"epoch {HELD}, workers 1"], tmp_path_factory.mktemp("gate"))
    command = ("python", "jobs/reproduce.py", "table.yaml", "--output", "table", "--results", "table.md")
    with head.submit(*command, home=home, variables=gate.variables) as job:

        def held() -> list[psutil.Process]:
            return [process for process in head.processes("ray::gatgnn-1") if process.pid in gate.held()]

        wait_until(lambda: held() or job.poll() is not None, "the training of the first seed is held")
        assert job.poll() is None, job.communicate()[0]
        held()[0].kill()
        gate.open()
        printed = job.communicate(timeout=600)[0]
    assert job.returncode == 1, "one row cannot be trained, and ray job submit says 1 for every failure"
    return output, printed


def result(directory: Path) -> dict:
    return json.loads((directory / "result.json").read_text())


def cells(home: Path, name: str) -> list[list[str]]:
    """The lines of a row in the table that was written."""
    lines = (home / "table.md").read_text().splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith(f"| {name} |")]


def test_killed_worker_is_followed_by_one_that_goes_on(table):
    """Its epochs are all there, and those before the kill were not run again."""
    epochs = [json.loads(line)["epoch"] for line in (table[0] / "gatgnn-1" / "epochs.jsonl").read_text().splitlines()]
    assert sorted(set(epochs)) == list(range(EPOCHS))
    assert len(epochs) == EPOCHS


def test_numbers_are_means_over_seeds_beside_the_published_ones(table, home):
    output, _ = table
    maes = [result(output / f"gatgnn-{seed}")["test"]["true-sum"]["mae"] for seed in (1, 2)]
    numbers, origin = cells(home, "GATGNN")
    assert numbers[2] == f"{statistics.fmean(maes):.4f} ± {statistics.stdev(maes):.4f} [0.177]"
    assert origin[1:3] == ["`small.yaml`", "1, 2"]
    assert re.fullmatch(r"[0-9a-f]{7,12}(-dirty)?|unknown", origin[5])
    assert "cores" in origin[6]


def test_later_training_begins_where_the_earlier_ended(table):
    output, _ = table
    card = Checkpoint.load(output / "gatgnn-longer-1" / "checkpoint").card
    assert card.config.start_from == "table/gatgnn-1/checkpoint"
    before, after = (result(output / name)["valid"]["mae"] for name in ("gatgnn-1", "gatgnn-longer-1"))
    assert after == pytest.approx(before, rel=0.2), "one more epoch moves little; fresh weights are far away"


def test_ensemble_is_the_mean_of_its_members_and_says_how_far_off_it_may_be(table, splits):
    output, _ = table
    joined = Checkpoint.load(output / "both-1" / "checkpoint")
    graphs = splits.test.graphs
    spectra, expected, *_ = Predictor(joined, CPU).predict_graphs(graphs)
    members = [
        Predictor(Checkpoint.load(output / f"gatgnn-{seed}" / "checkpoint"), CPU).predict_graphs(graphs).spectra
        for seed in (1, 2)
    ]
    np.testing.assert_allclose(
        spectra, np.mean(members, axis=0), rtol=0.01
    )  # shapes are averaged, whose integrals differ a little
    disagreement = np.abs(members[0] - members[1]).mean(axis=1) / 2
    offset, slope = joined.network.calibration.tolist()
    assert offset >= 0
    assert slope >= 0
    np.testing.assert_allclose(expected, offset + slope * disagreement, rtol=0.01)
    assert set(result(output / "both-1")["spread"]) >= {"rank_correlation", "within_expected", "within_twice_expected"}


def test_row_that_cannot_be_trained_is_reported_and_the_others_are_trained(table, home):
    output, printed = table
    assert re.search(
        r"unlike-1: .*cannot start from it: its model is .*width=8.*, this training's is .*width=9", printed
    )
    assert cells(home, "Unlike")[0][1] == "not run"
    assert not (output / "unlike-1" / "result.json").exists()
    assert cells(home, "Oxides")[0][1] != "not run"


def test_what_is_finished_stays_and_what_is_missing_is_planned(table, home, job):
    output, _ = table
    before = {path: path.stat().st_mtime_ns for path in output.glob("*/checkpoint/*")}
    outcome = job("reproduce", "table.yaml", "--output", "table", "--results", "other.md", "--plan")
    assert outcome.code == 0, outcome.err
    assert "1 of 6 trainings are missing" in outcome.out
    assert "unlike-1" in outcome.out
    assert before == {path: path.stat().st_mtime_ns for path in output.glob("*/checkpoint/*")}
    assert not (home / "other.md").exists()


def test_finished_runs_of_other_settings_are_refused(table, home, job):
    (home / "other.yaml").write_text(yaml.safe_dump(TABLE | {"rows": [ROWS[0] | {"changes": {"training.epochs": 5}}]}))
    outcome = job("reproduce", "other.yaml", "--output", "table", "--results", "other.md")
    assert outcome.code == 2
    assert re.search(
        rf"gatgnn-1: holds a training with other settings \(training.epochs {EPOCHS} → 5\); choose another --output",
        outcome.err,
    )


def test_mlflow_holds_every_epoch_of_every_training(table, home):
    with warnings.catch_warnings():  # MLflow's own
        warnings.simplefilter("ignore")
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=f"sqlite:///{home / 'runs' / 'mlflow.db'}")
        client.search_experiments()
    for name, epochs in (("gatgnn-1", EPOCHS), ("gatgnn-2", EPOCHS), ("gatgnn-longer-1", 1)):
        run = (table[0] / name / "mlflow_run_id").read_text()
        assert [point.step for point in client.get_metric_history(run, "curves/valid_mae")] == list(range(epochs)), name
