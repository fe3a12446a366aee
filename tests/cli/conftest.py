"""One Ray with its job server for all tests of jobs, and a home for their results."""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from running import ROOT, Head, environment

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
    "training": {"epochs": 6, "batch_size": 8, "checkpoint_every": 1},
    "workers": {"num_workers": 2, "cpus_per_worker": 1},
}

SCREEN = {
    "input": "table_with_bad_rows.parquet",
    "checkpoint": "shipped",
    "inference": {"rows_per_shard": 5, "predictors": 1},
    "track": False,
}


@pytest.fixture(scope="session")
def head() -> Iterator[Head]:
    """A Ray that was started in the repository, beside any other on the machine."""
    interval = {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": 1}  # half the usual: an epoch is reported at each
    with _engines():
        from mat2spec.distributed.session import local_head

    with contextlib.chdir(ROOT), local_head(environment(**interval)) as started:
        yield Head(started.address, started.pid)


@pytest.fixture(scope="session")
def home(
    small_table: pa.Table,
    table_with_bad_rows: tuple[pa.Table, dict],
    checkpoint_directory: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Where jobs find configurations, tables and a checkpoint, and leave results."""
    made = tmp_path_factory.mktemp("home")
    pq.write_table(small_table, made / "labels.parquet")
    pq.write_table(table_with_bad_rows[0], made / "table_with_bad_rows.parquet")
    (made / "train.yaml").write_text(yaml.safe_dump(TRAIN))
    (made / "screen.yaml").write_text(yaml.safe_dump(SCREEN))
    (made / "shipped").symlink_to(checkpoint_directory)
    return made


@dataclass(frozen=True)
class Outcome:
    """Exit code and output of a command that ran in this process."""

    code: int
    out: str
    err: str


@pytest.fixture
def job(home, monkeypatch, capfd) -> Callable[..., Outcome]:
    """Run a command of mat2spec in this process, which saves the start of Python and Ray."""

    def run_here(*words: object) -> Outcome:
        monkeypatch.setenv("MAT2SPEC_HOME", str(home))
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        with _engines():
            from mat2spec.cli.main import run

            capfd.readouterr()
            code = run([str(word) for word in words])
        return Outcome(code, *capfd.readouterr())

    return run_here


@contextmanager
def _engines() -> Iterator[None]:
    """Silence warnings of Ray and MLflow about their own code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture(scope="session")
def trained(head: Head, home: Path) -> tuple[Path, str]:
    """An undisturbed training by two workers, submitted and registered: its directory and what the job printed."""
    options = ("--output", "undisturbed", "--register_as", "phdos-test")
    code, output = head.run("python", "jobs/train.py", "train.yaml", *options, home=home)
    assert code == 0, output
    return home / "undisturbed", output


@pytest.fixture(scope="session")
def mlflow_client(trained: tuple[Path, str]) -> Iterator[object]:
    """The store beside the results."""
    with _engines():
        from mlflow import MlflowClient

        uri = f"sqlite:///{trained[0].parent / 'runs' / 'mlflow.db'}"
        yield MlflowClient(tracking_uri=uri, registry_uri=uri)
