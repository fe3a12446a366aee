"""The floors of the house: imports point down only, and each engine has one door."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LIBRARY = (
    {
        "training",
        "checkpoint",
        "comparison",
        "dft",
        "draw",
        "predict",
        "query",
        "evaluation",
        "figures",
        "gap_evaluation",
        "joining",
        "labelling",
        "judgement",
        "outcome",
        "proposal",
        "report",
        "results",
        "serving",
        "verified",
    },
    {"data", "model"},
    {
        "config",
        "graph",
        "normalization",
        "metrics",
        "acquisition",
        "gaps",
        "thermo",
        "dos",
        "phonon_dos",
        "pymatgen_dos",
        "crystal",
        "symmetry",
        "perturbation",
        "run_directory",
        "computed_files",
        "rejects",
        "location",
        "lease",
    },
    {"errors", "spectrum", "elements"},
)
FLOORS = ({"jobs"}, {"cluster"}, *({f"mat2spec.{name}" for name in floor} for floor in LIBRARY))
"""From top to bottom."""

SIBLINGS = {"mat2spec.data", "mat2spec.model"}
"""On one floor, and strangers to each other."""

DOORS = {"ray": "cluster/", "mlflow": "cluster/tracking.py", "mp_api": "mat2spec/data/materials_project.py"}
"""The only place that imports each engine."""

SOURCES = sorted(path for part in ("mat2spec", "cluster", "jobs", "benchmarks") for path in (ROOT / part).rglob("*.py"))


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path) for path in SOURCES}


def imports(path: Path) -> Iterator[str]:
    """Full name of every module that a file imports, also inside functions."""
    package = name_of(path) if path.name == "__init__.py" else name_of(path).rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*above, *filter(None, [node.module])])
            parts = {f"{module}.{alias.name}" for alias in node.names} & MODULES
            yield from parts or {module}


def room(module: str) -> tuple[int, str] | None:
    """Floor, and the entry on it, to which a module belongs."""
    for floor, entries in enumerate(FLOORS):
        for entry in entries:
            if module == entry or module.startswith(f"{entry}."):
                return floor, entry
    return None


def test_every_module_of_the_library_has_a_floor():
    homeless = [
        name for name in MODULES if name not in {"mat2spec", "benchmarks"} and not name.startswith("benchmarks.") and not room(name)
    ]
    assert not homeless, "put each on a floor of tests/test_layout.py"


def test_imports_point_down():
    wrong = []
    for path in SOURCES:
        here = room(name_of(path))
        for imported in imports(path):
            there = room(imported)
            if here is None or there is None or here[1] == there[1]:
                continue
            if there[0] < here[0] or (there[0] == here[0] and {here[1], there[1]} == SIBLINGS):
                wrong.append(f"{path.relative_to(ROOT)} imports {imported}")
    assert not wrong


@pytest.mark.parametrize("engine", DOORS)
def test_each_engine_has_one_door(engine):
    users = {str(path.relative_to(ROOT)) for path in SOURCES if any(name.split(".")[0] == engine for name in imports(path))}
    assert not {user for user in users if not user.startswith(DOORS[engine])}


def test_no_module_is_named_after_nothing():
    assert not {path.stem for path in SOURCES} & {"utils", "helpers", "common", "misc", "util", "tools"}


def test_no_job_hides_a_standard_module():
    """Ray puts the job's folder first on the path."""
    assert not {path.stem for path in (ROOT / "jobs").glob("*.py")} & sys.stdlib_module_names


def test_the_library_loads_no_engine():
    names = sorted(name for name in MODULES if name.split(".")[0] == "mat2spec")
    code = f"import sys, importlib\nfor name in {names}: importlib.import_module(name)\nprint(*({set(DOORS)} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == []


def test_files_stay_short():
    long = [str(path.relative_to(ROOT)) for path in SOURCES if len(path.read_text().splitlines()) > 250]
    assert not long, "at 250 lines, split by noun"
