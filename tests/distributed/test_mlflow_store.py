"""MLflow's store: created by one of the jobs that start together, and a server that does not answer."""

import os
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from unittest.mock import Mock

import pytest
from mlflow.store.tracking.dbmodels.models import SqlDataset
from sqlalchemy.orm import Query, Session

from mat2spec.distributed.mlflow.runs import TrackedRun, dataset_input
from mat2spec.distributed.mlflow.screenings import open_screening
from mat2spec.distributed.screening.tracking import Tracking
from mat2spec.distributed.training.tracking import TrainingTracking
from mat2spec.errors import ServiceError
from mat2spec.storage.run_directory import RunDirectory

ROOT = Path(__file__).parents[2]

RECORD = {
    "identity": {"input": "0" * 64, "checkpoint": "1" * 64},
    "checkpoint": {},
    "input": {"path": "table.parquet"},
}

JOBS = f"""
import os, sys
from pathlib import Path
from unittest.mock import Mock
from mat2spec.distributed.mlflow.runs import TrackedRun
from mat2spec.distributed.mlflow.screenings import open_screening

home = Path(sys.argv[1])
ready, start = os.pipe()
for number in range(3):
    if not os.fork():
        os.close(start)
        os.read(ready, 1)  # returns in all of them when the parent closes its end
        output = home / f"run-{{number}}"
        output.mkdir()
        if number:
            open_screening(output, {RECORD}, None).finish()
        else:
            TrackedRun.open(output, "run-0", {{}}).finish()
        os._exit(0)
os.close(start)
sys.exit(sum(os.waitstatus_to_exitcode(os.wait()[1]) != 0 for _ in range(3)))
"""


def test_first_jobs_that_start_together_are_all_recorded(tmp_path):
    """Each would create the tables of the store: two of three failed."""
    variables = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    variables["MAT2SPEC_HOME"] = str(tmp_path)
    command = [sys.executable, "-W", "ignore", "-c", JOBS, tmp_path]
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    with sqlite3.connect(tmp_path / "runs/mlflow.db") as store:
        runs = store.execute("SELECT name, status, experiment_id FROM runs ORDER BY name").fetchall()
    assert [run[:2] for run in runs] == [(f"run-{number}", "FINISHED") for number in range(3)]
    assert len({run[2] for run in runs}) == 1, "one experiment"


@pytest.mark.filterwarnings("ignore")  # MLflow's own
def test_dataset_that_another_job_logs_meanwhile(tmp_path, monkeypatch):
    """MLflow looked for it, the other job inserted it, and MLflow's own insertion failed."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    runs = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        runs.append(TrackedRun.open(tmp_path / name, name, {}))
    first, second = runs
    rows = [dataset_input("table", "0" * 64, "table.parquet", "screening")]
    find = Session.query

    def find_before_the_other_inserts(session: Session, *columns: object, **settings: object) -> Query:
        query = find(session, *columns, **settings)
        if columns == (SqlDataset,) and not query.count():
            patched.undo()
            query = query.filter(SqlDataset.name == "no such name")  # what was found before the next line
            first.log_inputs(rows)
        return query

    with monkeypatch.context() as patched:
        patched.setattr(Session, "query", find_before_the_other_inserts)
        second.log_inputs(rows)
    for run in runs:
        assert [row.dataset.name for row in run.client.get_run(run.run_id).inputs.dataset_inputs] == ["table"]


@pytest.fixture
def nobody(monkeypatch) -> Iterator[str]:
    """Address of a server that is down."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{bound.getsockname()[1]}")
        yield os.environ["MLFLOW_TRACKING_URI"]


@pytest.fixture
def broken_server(monkeypatch) -> Iterator[str]:
    """Address of a proxy whose server is down."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(503)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_port}")
        yield os.environ["MLFLOW_TRACKING_URI"]
        server.shutdown()


@pytest.mark.parametrize(("server", "reason"), [("nobody", "ConnectionError"), ("broken_server", "it answers 503")])
def test_server_that_is_down_is_one_line_at_once(request, tmp_path, server, reason):
    """MLflow itself tries for four minutes."""
    address = request.getfixturevalue(server)
    line = rf"^MLFLOW_TRACKING_URI {address}: no MLflow answers \({reason}\); start the server, or unset it$"
    with pytest.raises(ServiceError, match=line):
        open_screening(tmp_path, RECORD, None)
    with pytest.raises(ServiceError, match=line):
        TrackedRun.open(tmp_path, "run", {})


def test_screening_is_done_without_its_record_when_the_server_is_down(nobody, tmp_path, capsys):
    run = RunDirectory(tmp_path / "run")
    run.claim({}, RECORD)
    with Tracking(None, run) as tracking:
        tracking.wait()
    assert capsys.readouterr().err.splitlines() == [
        f"not recorded in MLflow: MLFLOW_TRACKING_URI {nobody}: no MLflow answers (ConnectionError); "
        "start the server, or unset it"
    ]


def test_training_goes_on_without_its_record_when_the_server_is_down(nobody, tmp_path, train_config, capsys):
    tracking = TrainingTracking.open(tmp_path, "run", train_config, {})
    tracking.log_epoch({"epoch": 0, "train_loss": 1.0})
    tracking.finish()
    assert capsys.readouterr().err.splitlines() == [
        f"not recorded in MLflow: MLFLOW_TRACKING_URI {nobody}: no MLflow answers (ConnectionError); "
        "start the server, or unset it"
    ]
    with pytest.raises(ServiceError, match="no MLflow answers"):
        TrainingTracking.open(tmp_path, "run", train_config.model_copy(update={"register_as": "model"}), {})


@pytest.mark.filterwarnings("ignore")  # MLflow's own
def test_epochs_while_the_server_was_away_are_logged_once_it_is_back(tmp_path, train_config, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    tracking = TrainingTracking.open(tmp_path, "run", train_config, {})
    history = [{"epoch": epoch, "train_loss": 1 / (1 + epoch)} for epoch in range(4)]
    tracking.log_epoch(history[0])
    with monkeypatch.context() as patched:
        patched.setattr("mat2spec.distributed.training.tracking.check_server", Mock(side_effect=ServiceError("away")))
        tracking.log_epoch(history[1])
        tracking.log_epoch(history[2])
    tracking.log_epoch(history[3])
    tracking.log_epochs(history)
    assert capsys.readouterr().err == "not recorded in MLflow: away\n"
    run = TrackedRun(os.environ["MLFLOW_TRACKING_URI"], (tmp_path / "mlflow_run_id").read_text())
    assert run.history("train_loss") == {metrics["epoch"]: metrics["train_loss"] for metrics in history}
