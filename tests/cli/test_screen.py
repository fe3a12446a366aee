"""A screening, submitted as a job: what it holds, records and answers, and what is refused afterwards."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from running import ROOT, Head
from screening import DONE, SHARDS, assert_complete, files, predicted, read

from mat2spec.dos.grid import PHDOS_GRID
from mat2spec.model.checkpoint import Checkpoint

pytestmark = pytest.mark.timeout(1200)  # a busy machine takes long to start so many processes


@pytest.fixture(scope="module")
def run(home: Path, trained: tuple[Path, str], mlflow_client, head: Head) -> Path:
    """A run with a registered model, recorded in MLflow."""
    mlflow_client.set_registered_model_alias("phdos-test", "champion", "1")
    options = ("--output", "screened", "--checkpoint", "models:/phdos-test@champion", "--track")
    code, output = head.run("python", "jobs/screen.py", "screen.yaml", *options, home=home)
    assert code == 0, output
    assert f"{DONE} in {home / 'screened'}" in output
    assert re.search(r"1 worker, .*\d+% .*bottleneck: [^;\n]*$", output, re.MULTILINE)
    return home / "screened"


def test_every_row_is_one_prediction_or_one_reject_with_its_reason(run, table_with_bad_rows, trained):
    checkpoint = Checkpoint.load(trained[0] / "checkpoint")
    assert_complete(read(run, "predictions"), read(run, "rejects"), checkpoint, table_with_bad_rows)
    for row in read(run, "rejects").to_pylist():
        stage, _, part = table_with_bad_rows[1][row["material_id"]]
        assert row["stage"] == stage
        assert part in row["error"]
    assert len(predicted(run)) == SHARDS


def test_predictions_have_the_columns_of_the_contract(run, table_with_bad_rows, contract):
    schema = read(run, "predictions").schema
    kept = [name for name in table_with_bad_rows[0].column_names[6:] if name != "spectrum"]
    assert schema.names == [*contract, *kept, "input_spectrum"]
    assert {name: schema.field(name).type for name in contract} == contract
    assert read(run, "rejects").schema.names == ["material_id", "source", "stage", "error_type", "error"]
    assert not [path for path in run.rglob("*") if path.name.startswith(".")]
    assert not [path for folder in ("predictions", "rejects") for path in (run / folder).iterdir() if path.is_dir()]


def test_spectra_hold_three_modes_and_rows_say_what_the_checkpoint_has_seen(run, trained):
    checkpoint = Checkpoint.load(trained[0] / "checkpoint")
    table = read(run, "predictions")
    integrals = np.trapezoid(table["spectrum"].to_pylist(), PHDOS_GRID.points, axis=1)
    np.testing.assert_allclose(integrals, 3, rtol=1e-5)
    for row in table.to_pylist():
        assert row["seen_in_training"] == (row["material_id"] in checkpoint.training_ids)
        assert row["unseen_elements"] == [e for e in row["elements"] if e not in checkpoint.card.training.elements]
    assert 0 < sum(table["seen_in_training"].to_pylist()) < 200


def test_record_says_what_made_the_run(run, trained):
    record = json.loads((run / "run.json").read_text())
    checkpoint = Checkpoint.load(trained[0] / "checkpoint")
    assert record["status"] == "finished"
    assert record["identity"]["checkpoint"] == checkpoint.fingerprint
    assert record["checkpoint"]["weights"] == checkpoint.card.weights
    assert record["grid"] == PHDOS_GRID.to_json()
    assert record["counts"] == {"input": 211, "predictions": 200, "rejects": 11}
    assert {"torch", "ray", "commit", "hardware"} <= record["versions"].keys()
    assert record["stages"]["rows"] == 211


def test_record_lies_in_mlflow_beside_the_training_of_its_checkpoint(run, trained, mlflow_client):
    record = json.loads((run / "run.json").read_text())
    kept = mlflow_client.get_run(record["mlflow_run_id"])
    assert kept.info.status == "FINISHED"
    assert (
        kept.data.tags["training_run_id"]
        == kept.data.tags["mlflow.parentRunId"]
        == (trained[0] / "mlflow_run_id").read_text()
    )
    assert kept.data.params["checkpoint_fingerprint"] == record["identity"]["checkpoint"]
    assert kept.data.metrics["screening/predictions"] == 200
    assert kept.data.metrics["screening/predict_seconds"] == record["stages"]["predict_seconds"] > 0
    assert [file.path for file in mlflow_client.list_artifacts(kept.info.run_id)] == ["run.json"]


def test_same_command_once_more_changes_no_file(run, job):
    before = files(run)
    outcome = job("screen", "screen.yaml", "--output", "screened", "--checkpoint", "undisturbed/checkpoint")
    assert (outcome.code, outcome.out) == (0, f"{DONE} in {run}\n")
    assert files(run) == before


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        (("--checkpoint", "shipped"), r"\(checkpoint: [^\s]{1,60} in the run, [^\s]+ in this command\)"),
        (("--where", "nsites < 5"), r"where\b.*None.*nsites < 5"),
        (("--inference.rows_per_shard", 6), r"rows_per_shard\b.*5.*6"),
    ],
)
def test_another_screening_into_the_same_run_is_refused(run, job, trained, checkpoint, change, shown):
    before = files(run)
    outcome = job("screen", "screen.yaml", "--output", "screened", "--checkpoint", "undisturbed/checkpoint", *change)
    assert outcome.code == 2
    assert f"{run}: holds another run (" in outcome.err
    assert re.search(shown, outcome.err)
    assert outcome.err.count("\n") == 1
    assert files(run) == before


@pytest.mark.parametrize(
    "question",
    [
        "@reject_reasons",
        "SELECT count(*) AS n FROM predictions",
        "SELECT material_id, mean_frequency, exceeds_grid FROM predictions ORDER BY 1 LIMIT 10",
    ],
)
def test_query_prints_tables_csv_and_json_of_the_same_answer(run, job, question):
    answers = {name: job("query", "screened", question, "--format", name) for name in ("table", "csv", "json")}
    assert {outcome.code for outcome in answers.values()} == {0}
    rows = json.loads(answers["json"].out)
    lines = answers["csv"].out.splitlines()
    assert len(lines) == len(rows) + 1 > 1
    assert lines[0].replace('"', "").split(",") == list(rows[0])
    for name in rows[0]:
        assert name in answers["table"].out


def test_lists_fit_into_csv(run, job):
    outcome = job("query", "screened", "SELECT elements, spectrum FROM predictions LIMIT 1", "--format", "csv")
    assert outcome.code == 0, outcome.err
    assert outcome.out.count("\n") == 2


def test_query_draws_the_spectra_of_its_answer(run, job, tmp_path):
    question = "SELECT material_id FROM predictions ORDER BY material_id LIMIT 7"
    assert job("query", "screened", question, "--plot", tmp_path / "seven.png").code == 0
    assert (tmp_path / "seven.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("question", ["SELECT nosuch FROM predictions", "@nosuch", "SELEC"])
def test_question_that_fails_is_one_line_and_exit_two(run, job, question):
    outcome = job("query", "screened", question)
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert outcome.err.startswith("error: ")


def test_submission_without_upload_runs_in_the_repository(run, head):
    """The literal form of the contract, on a head that was started there."""
    code, output = head.run(
        "jobs/query.py", run, "SELECT count(*) + 41 AS answer FROM rejects", "--format", "csv", upload=False
    )
    assert code == 0, output
    assert '"answer"\n52\n' in output


def test_relative_result_in_the_uploaded_copy_fails_with_the_way_out(home, head):
    arguments = (
        home / "screen.yaml",
        "--input",
        home / "table_with_bad_rows.parquet",
        "--checkpoint",
        home / "shipped",
        "--output",
        "lost",
    )
    code, output = head.run("python", "jobs/screen.py", *arguments)
    assert code == 1
    assert re.search("^error: output lost .*MAT2SPEC_HOME", output, re.MULTILINE)
    assert "Traceback" not in output
    assert not (ROOT / "lost").exists()
