from pathlib import Path

import pytest

from mat2spec.errors import ConfigError, RunError
from mat2spec.storage.paths import (
    CONFIGS,
    PACKAGE,
    locate_input,
    resolve,
    resolve_config,
    resolve_input,
    resolve_output,
)


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


@pytest.fixture
def home(here, monkeypatch) -> Path:
    """A MAT2SPEC_HOME other than the current directory."""
    folder = here / "home"
    folder.mkdir()
    monkeypatch.setenv("MAT2SPEC_HOME", str(folder))
    return folder


def write(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    return file


def test_input_is_looked_for_here_and_then_at_home(here, home):
    assert resolve_input("a/Si.cif") == here / "a" / "Si.cif", "of one that is nowhere, the first place is named"
    at_home = write(home / "a" / "Si.cif")
    assert resolve_input("a/Si.cif") == at_home
    assert resolve_input("a/*.cif") == home / "a" / "*.cif"
    assert resolve_input("a") == home / "a"
    assert write(here / "a" / "Si.cif") == resolve_input("a/Si.cif")
    assert resolve_input("a/*.cif") == here / "a" / "*.cif"
    assert resolve_input(str(at_home)) == at_home


def test_input_of_a_submitted_job_is_looked_for_at_home_first(here, home, monkeypatch):
    """Its current directory is Ray's copy, to which no record should point."""
    copy = here / "runtime_resources" / "working_dir_files" / "_ray_pkg_0"
    copied = write(copy / "Si.cif")
    monkeypatch.chdir(copy)
    assert resolve_input("Si.cif") == copied
    at_home = write(home / "Si.cif")
    assert resolve_input("Si.cif") == at_home


def test_tables_that_ship_are_found_from_any_directory(here):
    name = "mat2spec/data/bundled/mp_structures.parquet"
    shipped = PACKAGE / "data" / "bundled" / "mp_structures.parquet"
    assert resolve_input(name) == shipped
    assert shipped.exists()
    assert write(here / name) == resolve_input(name), "a file here goes before the package"
    assert resolve_input("mat2spec/data/bundled/none.parquet") == here / "mat2spec/data/bundled/none.parquet"


def test_input_at_a_url_stays():
    assert str(locate_input("memory://bucket/a/*.cif")) == "memory://bucket/a/*.cif"


@pytest.mark.parametrize(
    "name", ["configs/screen-phdos.yaml", "screen-phdos.yaml", "configs/screen-phdos", "screen-phdos"]
)
def test_configuration_that_ships_is_found_from_any_directory(name):
    assert resolve_config(name) == CONFIGS / "screen-phdos.yaml"


def test_configuration_of_a_table_is_found_from_any_directory():
    assert (
        resolve_config("tables/phdos") == resolve_config("configs/tables/phdos.yaml") == CONFIGS / "tables/phdos.yaml"
    )


def test_own_configuration_goes_before_the_one_that_ships(here, home):
    assert write(home / "configs" / "screen-phdos.yaml") == resolve_config("screen-phdos")
    assert write(here / "configs" / "screen-phdos.yaml") == resolve_config("screen-phdos")
    (here / "tables").mkdir()  # a folder is no configuration
    assert resolve_config("tables/phdos") == CONFIGS / "tables/phdos.yaml"
    assert write(here / "mine.conf") == resolve_config("mine.conf")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("configs/screen-phods.yaml", "did you mean screen-phdos or "),
        ("screen-phods", "did you mean screen-phdos or "),
        ("zzz", f"name a YAML file, or one of those in {CONFIGS}, such as screen-phdos"),
    ],
)
def test_configuration_that_is_nowhere_is_refused_in_one_line(here, name, hint):
    with pytest.raises(ConfigError) as caught:
        resolve_config(name)
    assert str(caught.value).startswith(
        f"{here / name}: cannot read the configuration (No such file or directory); {hint}"
    )
    assert "\n" not in str(caught.value)


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
