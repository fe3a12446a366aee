"""Labels from files, and a training that tunes an ensemble on labels, by the commands that a user types."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from mat2spec.model.checkpoint import Checkpoint
from mat2spec.model.ensemble import Ensemble

EPOCHS = 2


@pytest.fixture(scope="module")
def tuned(head, home, small_ensemble):
    """Directory of a fine-tuning of two members, and what the job printed."""
    settings = {
        "data": {"table": "labels.parquet"},
        "training": {"epochs": EPOCHS, "batch_size": 12, "learning_rate": 3e-3, "freeze_batch_norm": True},
        "workers": {"num_workers": 2, "cpus_per_worker": 1},
        "start_from": str(small_ensemble),
        "start_with": "checkpoint",
    }
    (home / "tune.yaml").write_text(yaml.safe_dump(settings))
    code, output = head.run("python", "jobs/train.py", "tune.yaml", "--output", "tuned", home=home)
    assert code == 0, output
    return home / "tuned", output


def test_tuned_ensemble_predicts_and_says_what_it_was_worth(tuned, small_ensemble, job, home):
    directory, output = tuned
    checkpoint, before = Checkpoint.load(directory / "checkpoint"), Checkpoint.load(small_ensemble)
    assert isinstance(checkpoint.network, Ensemble)
    assert checkpoint.card.training.parents["whole"] == before.fingerprint
    result = json.loads((directory / "result.json").read_text())
    assert result["valid"]["mae"] < result["before"]["valid"]["mae"]
    assert f"mae {result['before']['valid']['mae']:.4g} → {result['valid']['mae']:.4g}" in output
    assert "best epoch (0: as it started): " in output
    scored = job("evaluate", "tuned/checkpoint", "--output", "tuned-scores.json")
    assert scored.code == 0, scored.err
    scores = json.loads((home / "tuned-scores.json").read_text())["scores"]
    assert scores["true-sum"] == pytest.approx(result["test"]["true-sum"])


@pytest.mark.filterwarnings("default")  # of MLflow about its own code
@pytest.mark.filterwarnings("ignore")  # MLflow's own
def test_mlflow_has_the_curves_of_each_member(tuned):
    from mlflow import MlflowClient

    uri = f"sqlite:///{tuned[0].parent / 'runs' / 'mlflow.db'}"
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    run = (tuned[0] / "mlflow_run_id").read_text()
    assert client.get_run(run).info.status == "FINISHED"
    for member in ("member-1", "member-2"):
        points = client.get_metric_history(run, f"curves/{member}/valid_mae")
        assert [point.step for point in points] == list(range(EPOCHS))


def test_labels_under_another_name_are_evaluated_where_they_are_named(tuned, job, home):
    table = pq.read_table(home / "labels.parquet")
    pq.write_table(table.rename_columns({"phdos": "spectrum"}), home / "renamed.parquet")
    options = ("evaluate", "tuned/checkpoint", "--labels", "renamed.parquet", "--output", "renamed-scores.json")
    refused = job(*options)
    assert refused.code == 2
    assert "missing column phdos" in refused.err
    assert "name the labels with --data.label" in refused.err
    named = job(*options, "--label", "spectrum")
    assert named.code == 0, named.err
    same = json.loads((tuned[0] / "result.json").read_text())["test"]
    scores = json.loads((home / "renamed-scores.json").read_text())["scores"]
    assert scores["true-sum"] == pytest.approx(same["true-sum"])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("nowhere",), "nowhere: does not exist"),
        (("labels.parquet",), "labels.parquet: holds no density of states that is known; known are total_dos.dat"),
        (("nowhere", "--split", "none", "--start-from", "phdos"), "start_from decides which rows train"),
        (("nowhere", "--fractions", "0.5", "0.2", "0.2"), "with sum 1"),
    ],
)
def test_mistakes_of_ingest_labels_are_one_line(options, reason, job, home):
    outcome = job("ingest", "labels", *options, "--output", "of-calculations.parquet")
    assert outcome.code == 2
    assert reason in outcome.err
    assert outcome.err.count("\n") == 1
    assert not (home / "of-calculations.parquet").exists()


def test_ingest_labels_writes_a_table_and_the_same_command_again_adds_nothing(job, home):
    folder = home / "calculations" / "salt"
    folder.mkdir(parents=True)
    (folder / "POSCAR").write_text("NaCl\n5.64\n0 .5 .5\n.5 0 .5\n.5 .5 0\nNa Cl\n1 1\nDirect\n0 0 0\n.5 .5 .5\n")
    (folder / "total_dos.dat").write_text("".join(f"{i / 10} {0.15 * (40 - abs(40 - i)) / 4}\n" for i in range(81)))
    printed = [job("ingest", "labels", "calculations", "--output", "of-calculations.parquet") for _ in range(2)]
    assert [one.code for one in printed] == [0, 0], printed
    assert "1 label added (1 from total_dos.dat), 1 in total, column phdos, maximum 1" in printed[0].out
    assert "0 labels added, 1 in total, column phdos, maximum 1; 1 were already in it" in printed[1].out
    table = pq.read_table(home / "of-calculations.parquet")
    assert table["material_id"].to_pylist() == ["salt"]
    assert pa.types.is_string(table.schema.field("source").type)
