"""A screening that is killed, interrupted and finished by three different ways to start it, and what it then holds."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Container
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from faults import Gate, with_faults
from running import ROOT, environment, job_lines, wait_until

from mat2spec.data.materials.schema import read_crystals
from mat2spec.dos.grid import PHDOS_GRID
from mat2spec.model.checkpoint import Checkpoint
from mat2spec.predict.predictor import Predictor
from mat2spec.structure.crystal import Crystal

pytestmark = pytest.mark.timeout(1200)  # a busy machine takes long to start so many processes

SAME_SPECTRUM = 1e-5
"""States per cm⁻¹ per atom: float32 sums in batches of another composition."""

ROWS_PER_SHARD, SHARDS = 5, 43

STEP = 8
"""Shards that each of the interrupted runs may commit: more than there ever are in flight, so that it commits some."""


def read(run: Path, folder: str) -> pa.Table:
    return pa.concat_tables([pq.read_table(file) for file in sorted((run / folder).iterdir())])


def files(run: Path) -> dict[Path, tuple[int, bytes]]:
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in run.rglob("*") if path.is_file()}


def shards(run: Path) -> set[str]:
    return {file.name for file in (run / "predictions").glob("*.parquet")}


def start(home: Path, *arguments: object, **variables: object) -> subprocess.Popen:
    """Start a screening as a user in a terminal does: a process group of its own, with its own Ray."""
    command = [sys.executable, "jobs/screen.py", "screen.yaml", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment(MAT2SPEC_HOME=home, **variables), start_new_session=True, **pipes
    )


def gate_from(shard: int, table: pa.Table, folder: Path) -> Gate:
    """A gate at the materials of a shard and of all after it; a material that comes before, too, is left out."""
    ids = table["material_id"].to_pylist()
    first = shard * ROWS_PER_SHARD
    return Gate(set(ids[first:]) - {None, *ids[:first]}, folder)


def kill(name: str, processes: list[psutil.Process]) -> bool:
    """Kill the first process whose title begins so; Ray's workers have titles of their own."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if (" ".join(process.cmdline()) or process.name()).startswith(name) or process.name() == name:
                process.kill()
                return True
    return False


def end(others: list[psutil.Process]) -> None:
    """Await the processes of a Ray whose driver is gone; some may take minutes to notice."""
    for left in psutil.wait_procs(others, timeout=5)[1]:
        left.kill()


@pytest.fixture(scope="module")
def run(home, trained, mlflow_client, head, table_with_bad_rows, tmp_path_factory) -> Path:
    """A run whose driver and raylet were killed, then interrupted and stopped as a job; a killed worker at the end.

    Each of these comes while a gate keeps the run from being finished.
    """
    made = home / "screened"
    arguments = ("--output", "screened", "--checkpoint", "undisturbed/checkpoint")
    gates = (
        gate_from(shard, table_with_bad_rows[0], tmp_path_factory.mktemp("gate")) for shard in range(STEP, SHARDS, STEP)
    )
    with start(home, *arguments, **next(gates).variables) as process:
        wait_until(lambda: shards(made) or process.poll() is not None, "the first shard")
        others = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.communicate()
    end(others)
    first = {path: content for path, content in files(made).items() if path.parent.name == "predictions"}
    assert 0 < len(shards(made)) < SHARDS
    assert not (made / "catalog.duckdb").exists()

    with start(home, *arguments, **next(gates).variables) as process:
        wait_until(lambda: len(shards(made)) > len(first) or process.poll() is not None, "another shard")
        others = psutil.Process(process.pid).children(recursive=True)
        assert kill("raylet", others)
        process.communicate(timeout=240)
    assert process.returncode not in (0, 2)
    end(others)
    assert len(first) < len(shards(made)) < SHARDS

    before = len(shards(made))
    with start(home, *arguments, **next(gates).variables) as process:
        wait_until(lambda: len(shards(made)) > before or process.poll() is not None, "one more shard")
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (1, "")
    (line,) = job_lines(err)
    assert line.startswith("interrupted; ")
    assert before < len(shards(made)) < SHARDS

    mlflow_client.set_registered_model_alias("phdos-test", "champion", "1")
    champion = ("--output", "screened", "--checkpoint", "models:/phdos-test@champion", "--track")
    submission = ("python", "jobs/screen.py", "screen.yaml", *champion)
    before = len(shards(made))
    with head.submit(*submission, home=home, variables=next(gates).variables, name="stopped") as process:
        wait_until(lambda: len(shards(made)) > before or process.poll() is not None, "a shard of a job that is stopped")
        assert "was stopped" in head.stop("stopped")
        process.communicate(timeout=240)
    assert before < len(shards(made)) < SHARDS

    before = len(shards(made))
    gate = next(gates)
    with head.submit(*submission, home=home, variables=gate.variables) as process:
        wait_until(lambda: gate.held() or process.poll() is not None, "a worker of the submitted job is held")
        assert process.poll() is None, process.communicate()[0]
        wait_until(lambda: len(shards(made)) > before, "a shard of the submitted job")
        for worker in gate.held():
            os.kill(worker, signal.SIGKILL)
        gate.open()
        output = process.communicate(timeout=240)[0]
    assert process.returncode == 0, output
    assert f"211 input rows: 200 predictions, 11 rejects in {made}" in output
    # Ray may have tried the shards of the killed worker again; if not, they were isolated, and no others.
    assert re.search(
        r"1 worker, .*\d+% .*bottleneck: [^;\n]*(; \d shards? [^;\n]*in isolation)?$", output, re.MULTILINE
    )
    assert {path: content for path, content in files(made).items() if path in first} == first, (
        "what was done stays as it was"
    )
    return made


def test_every_row_is_one_prediction_or_one_reject_with_its_reason(run, table_with_bad_rows):
    table, reasons = table_with_bad_rows
    rejects = {row["material_id"]: row for row in read(run, "rejects").to_pylist()}
    assert len(read(run, "rejects")) == len(rejects) == len(reasons)
    for material_id, (stage, error_type, part) in reasons.items():
        row = rejects[material_id]
        assert (row["stage"], row["error_type"]) == (stage, error_type)
        assert part in row["error"]
    wanted = [name for name in table["material_id"].to_pylist() if name not in reasons or name == "mp-1000"]
    assert sorted(read(run, "predictions")["material_id"].to_pylist()) == sorted(set(wanted))
    assert len(shards(run)) == SHARDS


def test_predictions_have_the_columns_of_the_contract(run, table_with_bad_rows, contract):
    schema = read(run, "predictions").schema
    kept = [name for name in table_with_bad_rows[0].column_names[6:] if name != "spectrum"]
    assert schema.names == [*contract, *kept, "input_spectrum"]
    assert {name: schema.field(name).type for name in contract} == contract
    assert read(run, "rejects").schema.names == ["material_id", "source", "stage", "error_type", "error"]
    assert not [path for path in run.rglob("*") if path.name.startswith(".")]
    assert not [path for folder in ("predictions", "rejects") for path in (run / folder).iterdir() if path.is_dir()]


def test_spectra_are_those_of_the_predictor_and_hold_three_modes(run, table_with_bad_rows, trained):
    checkpoint = Checkpoint.load(trained[0] / "checkpoint")
    by_id = {}
    for row in read_crystals(table_with_bad_rows[0]):
        if isinstance(row, Crystal):
            by_id.setdefault(row.material_id, row)
    table = read(run, "predictions")
    spectra = np.array(table["spectrum"].to_pylist())
    expected = Predictor(checkpoint, torch.device("cpu")).predict_spectra(
        [by_id[name] for name in table["material_id"].to_pylist()]
    )
    np.testing.assert_allclose(spectra, expected, atol=SAME_SPECTRUM)
    np.testing.assert_allclose(np.trapezoid(spectra, PHDOS_GRID.points, axis=1), 3, rtol=1e-5)
    for row in table.to_pylist():
        assert row["seen_in_training"] == (row["material_id"] in checkpoint.training_ids)
        assert row["unseen_elements"] == [e for e in row["elements"] if e not in checkpoint.card.training.elements]
        assert row["elements"] == by_id[row["material_id"]].elements
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
    assert record["stages"]["rows"] < 211, "the last attempt did only what was missing"


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
    assert (outcome.code, outcome.out) == (0, f"211 input rows: 200 predictions, 11 rejects in {run}\n")
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


def test_rows_that_end_their_process_are_rejected_and_nothing_else_suffers(
    home, run, table_with_bad_rows, tmp_path, job, trained
):
    """Rows raise, crash, hang and are killed with their process.

    Meanwhile the checkpoint vanishes, and a second job is refused.
    """
    ids = read(run, "predictions")["material_id"].to_pylist()
    deeds = {ids[20]: "segv", ids[60]: "hang", ids[61]: "predict:raise", ids[120]: "predict:kill", ids[150]: "raise"}
    made, copy = home / "poisoned", home / "copied-checkpoint"
    shutil.copytree(trained[0] / "checkpoint", copy)
    arguments = ("--output", "poisoned", "--checkpoint", "copied-checkpoint", "--inference.seconds_per_shard", "20")
    with start(home, *arguments, **with_faults(deeds, tmp_path)) as process:
        wait_until(lambda: shards(made) or process.poll() is not None, "the first shard")
        process.send_signal(signal.SIGSTOP)  # so that it cannot end first
        second = job("screen", "screen.yaml", *arguments)
        shutil.rmtree(copy)
        process.send_signal(signal.SIGCONT)
        out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert (second.code, second.err.count("\n")) == (2, 1)
    assert f"{made}: in use by another job (process {process.pid} on " in second.err
    assert "211 input rows: 195 predictions, 16 rejects" in out
    found = {row["material_id"]: (row["stage"], row["error_type"]) for row in read(made, "rejects").to_pylist()}
    died, late, odd = "WorkerDiedError", "TimeLimitError", "ZeroDivisionError"
    expected = {
        ids[20]: ("graph", died),
        ids[60]: ("graph", late),
        ids[61]: ("predict", odd),
        ids[120]: ("predict", died),
    }
    assert {name: found.get(name) for name in deeds} == {**expected, ids[150]: ("graph", odd)}
    assert found.keys() - deeds.keys() == table_with_bad_rows[1].keys()
    same_spectra(made, run, deeds)


def same_spectra(made: Path, reference: Path, without: Container[str] = ()) -> None:
    """Two runs say the same of every material, but for those left out."""
    tables = (
        pa.concat_tables([pq.read_table(file) for file in sorted((path / "predictions").iterdir())])
        for path in (made, reference)
    )
    here, there = ({row["material_id"]: row["spectrum"] for row in table.to_pylist()} for table in tables)
    wanted = [name for name in there if name not in without]
    assert list(here) == wanted, "the same rows in the same order, none twice"
    np.testing.assert_allclose([here[name] for name in wanted], [there[name] for name in wanted], atol=1e-6)
