"""The commit in a result is that of the code, not of whatever repository the user works in."""

import shutil
import subprocess
from pathlib import Path

import pytest

from mat2spec import provenance

FILE = Path(provenance.__file__)


def repository(folder: Path, *, with_code: bool) -> str:
    """Make a git repository with one commit and return the commit's short name."""
    code = folder / "mat2spec"
    code.mkdir(parents=True)
    if with_code:
        shutil.copy(FILE, code)
    else:
        (code / FILE.name).write_text("# another program\n")

    def git(*command: str) -> str:
        author = ("-c", "user.name=A", "-c", "user.email=a@example.org")
        return subprocess.run(["git", *author, *command], cwd=folder, check=True, capture_output=True, text=True).stdout

    git("init", "-q")
    git("add", "-A")
    git("commit", "-q", "-m", "one")
    return git("rev-parse", "--short=12", "HEAD").strip()


@pytest.fixture
def installed(tmp_path, monkeypatch) -> Path:
    """Let the code lie where no checkout is, as installed by pip."""
    package = tmp_path / "site-packages/mat2spec"
    package.mkdir(parents=True)
    monkeypatch.setattr(provenance, "__file__", str(shutil.copy(FILE, package)))
    monkeypatch.delenv("MAT2SPEC_HOME", raising=False)
    return package


def test_commit_is_that_of_the_checkout_wherever_it_is_run_from(tmp_path, monkeypatch):
    commit = repository(tmp_path / "checkout", with_code=True)
    repository(tmp_path / "own", with_code=False)
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "checkout/mat2spec" / FILE.name))
    monkeypatch.chdir(tmp_path / "own")
    monkeypatch.setenv("MAT2SPEC_HOME", str(tmp_path / "own"))
    assert provenance.environment()["commit"] == commit
    (tmp_path / "checkout/mat2spec/changed.py").touch()
    subprocess.run(["git", "add", "-A"], cwd=tmp_path / "checkout", check=True)
    assert provenance.environment()["commit"] == f"{commit}-dirty"


@pytest.mark.parametrize("variable", [True, False])
def test_copy_that_ray_uploaded_has_the_commit_it_was_submitted_from(installed, tmp_path, monkeypatch, variable):
    commit = repository(tmp_path / "checkout", with_code=True)
    if variable:
        monkeypatch.setenv("MAT2SPEC_HOME", str(tmp_path / "checkout"))
        monkeypatch.chdir(tmp_path)
    else:
        monkeypatch.chdir(tmp_path / "checkout")
    assert provenance.environment()["commit"] == commit


def test_repository_of_the_user_is_not_taken_for_that_of_the_code(installed, tmp_path, monkeypatch):
    repository(tmp_path / "own", with_code=False)
    monkeypatch.chdir(tmp_path / "own")
    assert provenance.environment()["commit"] == "unknown"


def test_environment_inside_a_repository_is_no_checkout(tmp_path, monkeypatch):
    repository(tmp_path / "own", with_code=False)
    package = tmp_path / "own/.venv/site-packages/mat2spec"
    package.mkdir(parents=True)
    monkeypatch.setattr(provenance, "__file__", str(shutil.copy(FILE, package)))
    monkeypatch.chdir(tmp_path / "own")
    assert provenance.environment()["commit"] == "unknown"
