"""The wheel: what it holds, and that it predicts with its base dependencies alone, from any directory."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from importlib.metadata import Distribution, PathDistribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from pymatgen.core import Lattice, Structure

import mat2spec
from mat2spec.cli.command import EXTRAS

ROOT = Path(__file__).parents[1]

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

CHECKPOINTS = ("phdos", "phdos-mat2spec", "edos", "band-gap")

EXAMPLE = """
from pymatgen.core import Structure
import mat2spec
model = mat2spec.load("phdos")
spectrum = model.predict(Structure.from_file("NaCl.cif"))
print(type(spectrum.to_pymatgen()).__name__, type(spectrum.plot()).__name__)
"""

IMPORT_ALL = """
import importlib, pkgutil, mat2spec
for module in pkgutil.walk_packages(mat2spec.__path__, "mat2spec."):
    try:
        importlib.import_module(module.name)
    except ModuleNotFoundError as error:
        print(error.name.partition(".")[0], module.name)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy: setuptools would leave build/ in the checkout, and take what an older build left there."""
    folder = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("mat2spec", "configs"):  # mat2spec/configs is a link
        shutil.copytree(ROOT / name, folder / "source" / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", PROJECT["readme"], *PROJECT["license-files"]):
        shutil.copy(ROOT / name, folder / "source")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, folder / "source")
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(
    scope="module", params=["linked", pytest.param("installed", marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]
)
def environment(request, wheel, tmp_path_factory) -> Path:
    """A fresh environment with the wheel and its base dependencies, from the index or linked to those of this one."""
    folder = tmp_path_factory.mktemp(request.param)
    venv.create(folder, symlinks=True)
    into = ("--python", folder / "bin" / "python", "install")
    if request.param == "installed":
        pip(*into, "--constraint", ROOT / "constraints.txt", wheel)
    else:
        link_dependencies(wheel, site_packages(folder))
        pip(*into, "--no-deps", "--no-index", wheel)
    return folder


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory) -> Path:
    """A directory outside the checkout with a structure of its own."""
    folder = tmp_path_factory.mktemp("elsewhere")
    sites = [[0, 0, 0], [0.5, 0.5, 0.5]]
    Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.69), ["Na", "Cl"], sites).to(str(folder / "NaCl.cif"))
    return folder


def pip(*arguments: object) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def site_packages(environment: Path) -> Path:
    return Path(sysconfig.get_path("purelib", "venv", {"base": str(environment)}))


def link_dependencies(wheel: Path, target: Path) -> None:
    """Link each file of the distributions that the wheel needs without any extra, and no file of others."""
    metadata = zipfile.Path(wheel, f"mat2spec-{PROJECT['version']}.dist-info/")
    for dependency in closure(PathDistribution(metadata)):
        for file in dependency.files or ():
            if ".." in file.parts:  # scripts, in bin/
                continue
            link = target / file
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                link.symlink_to(dependency.locate_file(file))


def closure(root: Distribution) -> list[Distribution]:
    """All installed distributions that one needs, at any depth, with the extras that each asks of the next."""
    seen: dict[tuple[str, str], Distribution] = {}
    waiting = [(root, "")]
    while waiting:
        needing, extra = waiting.pop()
        for requirement in map(Requirement, needing.requires or ()):
            if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
                continue
            for wanted in ("", *requirement.extras):
                if (requirement.name, wanted) not in seen:
                    seen[requirement.name, wanted] = distribution(requirement.name)
                    waiting.append((seen[requirement.name, wanted], wanted))
    return list(seen.values())


def run(environment: Path, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a program of the environment as a user does who has no checkout."""
    scrubbed = ("PYTHONPATH", "MAT2SPEC_HOME", "RAY_ADDRESS", "MLFLOW_TRACKING_URI")
    variables = {name: value for name, value in os.environ.items() if name not in scrubbed} | {"MPLBACKEND": "Agg"}
    program = environment / "bin" / command[0]
    return subprocess.run([program, *command[1:]], cwd=folder, env=variables, capture_output=True, text=True)


def test_wheel_holds_one_package_with_weights_and_data(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"mat2spec", f"mat2spec-{PROJECT['version']}.dist-info"}
    wanted = {
        f"mat2spec/checkpoints/{name}/{part}"
        for name in CHECKPOINTS
        for part in ("card.json", "weights.safetensors", "training_ids.txt", "training_structures.parquet")
    }
    wanted |= {"mat2spec/elements.csv", "mat2spec/query/cookbook.sql", "mat2spec/py.typed"}
    wanted |= {f"mat2spec/explore/assets/{name}" for name in ("page.js", "3dmol/3Dmol-min.js", "3dmol/LICENSE.txt")}
    wanted |= {str(path.relative_to(ROOT)) for path in (ROOT / "mat2spec" / "data" / "bundled").glob("*.parquet")}
    assert wanted <= set(names)
    assert not [name for name in names if name.endswith(".png")]
    assert {name for name in names if name.endswith(".py")} == {
        str(path.relative_to(ROOT)) for path in (ROOT / "mat2spec").rglob("*.py")
    }


def test_wheel_holds_the_configurations_of_the_checkout(wheel):
    content = zipfile.ZipFile(wheel)
    packed = {name: content.read(name) for name in content.namelist() if name.startswith("mat2spec/configs/")}
    assert packed == {
        f"mat2spec/{path.relative_to(ROOT)}": path.read_bytes() for path in (ROOT / "configs").rglob("*.yaml")
    }
    assert len(packed) > 20


def test_version_is_in_one_place():
    assert mat2spec.__version__ == PROJECT["version"]
    quoted = f'"{PROJECT["version"]}"'
    assert not [path for path in (ROOT / "mat2spec").rglob("*.py") if quoted in path.read_text()]


def test_every_optional_package_has_an_extra():
    assert set(EXTRAS.values()) <= set(PROJECT["optional-dependencies"])
    (everything,) = (Requirement(text) for text in PROJECT["optional-dependencies"]["all"])
    repeating = {"chgnet"}  # what only repeats a pre-training that ships
    assert everything.extras == set(PROJECT["optional-dependencies"]) - {"all", "dev", "docs"} - repeating


def test_nothing_but_the_wheel_predicts_from_any_directory(environment, elsewhere):
    done = run(environment, elsewhere, "python", "-c", EXAMPLE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["PhononDos", "Axes"]


@pytest.mark.parametrize("model", ["phdos", "edos"])
def test_command_predicts_and_writes_a_picture(environment, elsewhere, model):
    done = run(environment, elsewhere, "mat2spec", "predict", "NaCl.cif", "--model", model, "--plot", f"{model}.png")
    assert (done.returncode, done.stderr) == (0, "")
    assert "NaCl" in done.stdout
    assert (elsewhere / f"{model}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["configs/phdos-sum-kl.yaml", "phdos-sum-kl"])
def test_configurations_and_their_tables_are_found_without_a_checkout(environment, elsewhere, name):
    code = (
        "from mat2spec.config import TrainConfig, load_config; from mat2spec.storage.paths import *; "
        f"config = load_config(TrainConfig, resolve_config({name!r})); "
        "print(resolve_input(config.data.table).is_file())"
    )
    done = run(environment, elsewhere, "python", "-c", code)
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_modules_that_cannot_be_imported_lack_an_extra(environment, elsewhere):
    """Whatever the base dependencies do not bring belongs to the commands of an extra."""
    done = run(environment, elsewhere, "python", "-c", IMPORT_ALL)
    assert done.returncode == 0, done.stderr
    missing = dict(line.split()[::-1] for line in done.stdout.splitlines())
    assert set(missing.values()) <= set(EXTRAS)
    assert EXTRAS[missing["mat2spec.distributed.session"]] == "cluster"
    prefixes = (
        "mat2spec.distributed",
        "mat2spec.cli",
        "mat2spec.data.materials_project",
        "mat2spec.model.e3nn",
        "mat2spec.explore",
    )
    assert not [name for name in missing if not name.startswith(prefixes)]


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        (("train", "--data.table", "labels.parquet"), "cluster"),
        (("screen", "--input", "NaCl.cif", "--checkpoint", "phdos"), "cluster"),
        (("verify", "run", "--where", "true"), "cluster"),
        (("predict", "NaCl.cif", "--model", "models:/mine@champion"), "cluster"),
        (("ingest", "mp", "candidates", "--output", "out", "--query.preset", "paper"), "mp"),
    ],
)
def test_command_that_lacks_packages_names_their_extra_in_one_line(environment, elsewhere, command, extra):
    before = set(elsewhere.iterdir())
    done = run(environment, elsewhere, "mat2spec", *command)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert f"pip install 'mat2spec[{extra}]'" in done.stderr
    assert set(elsewhere.iterdir()) == before
