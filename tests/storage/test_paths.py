from pathlib import Path

import pytest

from mat2spec.errors import ConfigError, RunError
from mat2spec.storage.paths import resolve, resolve_output


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    """No home, and a directory to stand in."""
    monkeypatch.delenv("MAT2SPEC_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_relative_path_starts_at_home_or_here(here, monkeypatch):
    assert resolve("runs/a") == here / "runs" / "a"
    monkeypatch.setenv("MAT2SPEC_HOME", "/home/of/results")
    assert resolve("runs/a") == resolve_output("/home/of/results/runs/a") == Path("/home/of/results/runs/a")


def test_absolute_path_stays(monkeypatch):
    monkeypatch.setenv("MAT2SPEC_HOME", "/elsewhere")
    assert resolve("/data/a.parquet") == Path("/data/a.parquet")


def test_relative_result_in_an_uploaded_copy_is_refused_unless_there_is_a_home(here, monkeypatch):
    copy = here / "runtime_resources" / "working_dir_files" / "_ray_pkg_0"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    with pytest.raises(ConfigError, match=r"runs/a .*MAT2SPEC_HOME"):
        resolve_output("runs/a")
    assert resolve_output(str(here / "a")) == here / "a"
    monkeypatch.setenv("MAT2SPEC_HOME", str(here))
    assert resolve_output("runs/a") == here / "runs" / "a"


def test_result_below_a_file_is_refused(here):
    (here / "file").write_text("")
    for path in ("file/run", "file/deep/run"):
        with pytest.raises(
            RunError, match=r"cannot be written \(.*file is not a writable directory\); choose another path"
        ):
            resolve_output(path)


def test_result_in_an_object_store_is_refused_by_jobs_that_cannot_write_there():
    with pytest.raises(RunError, match="results go to a local or shared directory"):
        resolve_output("s3://bucket/run")


def test_resolving_makes_nothing(here):
    resolve_output("deep/down/run")
    assert not list(here.iterdir())
