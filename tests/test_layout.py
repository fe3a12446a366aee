"""Layout: imports point down only and form no cycle, and each engine is imported in one place."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LAYERS = (
    {"cli"},
    {"distributed", "explore"},
    {"train"},
    {"evaluate"},
    {"predict", "active_learning", "verify"},
    {"model", "data", "dft", "query"},
    {"dos"},
    {"structure"},
    {"config", "storage"},
    {"ports"},
    {"errors", "elements", "provenance"},
)
"""Layers from top to bottom: a folder or module of mat2spec imports only from its own layer and those below."""

SIBLINGS = {frozenset({"data", "model"})}
"""Parts of one layer that never import each other."""

RE_EXPORTS = {"serving", "pymatgen_dos"}
"""Old names, still importable for one release; nothing in the project imports them."""

ENGINES = {
    "ray": "mat2spec/distributed/",
    "mlflow": "mat2spec/distributed/mlflow/",
    "mp_api": "mat2spec/data/materials_project/client.py",
    "dash": "mat2spec/explore/",
}
"""The only file or folder that imports each engine."""

SOURCES = sorted(
    path for part in ("mat2spec", "jobs", "benchmarks", "examples", "docs") for path in (ROOT / part).rglob("*.py")
)


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


def part_of(module: str) -> str | None:
    """Folder or module at the top of mat2spec to which a module belongs."""
    package, _, rest = module.partition(".")
    return rest.split(".")[0] or None if package == "mat2spec" else None


def layer_of(part: str) -> int:
    return next(number for number, parts in enumerate(LAYERS) if part in parts)


def imports_between_parts() -> Iterator[tuple[str, str, str]]:
    """Every import between two parts of mat2spec: the file, its part, and the part that it imports."""
    for path in SOURCES:
        part = part_of(name_of(path))
        if part is None or part in RE_EXPORTS:
            continue
        for imported in map(part_of, imports(path)):
            if imported and imported != part:
                yield str(path.relative_to(ROOT)), part, imported


def test_every_part_of_the_package_has_a_layer():
    parts = {part for part in map(part_of, MODULES) if part}
    assert parts == set().union(*LAYERS) | RE_EXPORTS, "add it to a layer in tests/test_layout.py"


def test_top_of_the_package_has_at_most_twenty_names():
    assert len({part for part in map(part_of, MODULES) if part} - RE_EXPORTS) <= 20


def test_imports_point_down():
    wrong = [
        f"{file} imports {imported}"
        for file, part, imported in imports_between_parts()
        if layer_of(imported) < layer_of(part) or {part, imported} in SIBLINGS
    ]
    assert not wrong


def test_imports_make_no_cycle():
    graph = TopologicalSorter[str]()
    for path in SOURCES:
        for imported in imports(path):
            if imported in MODULES and imported != name_of(path):
                graph.add(name_of(path), imported)
    graph.prepare()  # raises CycleError, which names the cycle


def test_parts_make_no_cycle():
    graph = TopologicalSorter[str]()
    for _, part, imported in imports_between_parts():
        graph.add(part, imported)
    graph.prepare()


@pytest.mark.parametrize("engine", ENGINES)
def test_each_engine_is_imported_in_one_place(engine):
    users = [
        str(path.relative_to(ROOT)) for path in SOURCES if engine in {name.split(".")[0] for name in imports(path)}
    ]
    assert not [user for user in users if not user.startswith((ENGINES[engine], "benchmarks/"))]


def test_no_module_has_a_meaningless_name():
    assert not {path.stem for path in SOURCES} & {"utils", "helpers", "common", "misc", "util", "tools"}


def test_no_job_hides_a_standard_module():
    """Ray puts the job's folder first on the path."""
    assert not {path.stem for path in (ROOT / "jobs").glob("*.py")} & sys.stdlib_module_names


def test_everything_below_the_command_line_loads_no_engine():
    below = {*set().union(*LAYERS), *RE_EXPORTS, None} - {"cli", "distributed", "explore"}
    names = sorted(name for name in MODULES if part_of(name) in below and name.startswith("mat2spec"))
    lines = ["import importlib, sys", f"for name in {names}: importlib.import_module(name)"]
    lines.append(f"print(*({set(ENGINES)} & set(sys.modules)))")
    loaded = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert loaded.stdout.split() == []


@pytest.mark.parametrize(
    ("module", "slow"),
    [
        ("mat2spec.distributed.training.worker", {"mlflow", "matplotlib", "scipy.stats", "numba"}),
        (
            "mat2spec.distributed.screening.run",
            {"torch._dynamo", "numba", "ase.io", "pymatgen.io.vasp", "pymatgen.io.cif"},
        ),
        ("mat2spec.predict.predictor", {"ray", "torch._dynamo", "numba", "scipy.stats", "ase.io", "matplotlib"}),
    ],
)
def test_every_process_loads_only_what_it_uses(module, slow):
    """Each takes half a second to two seconds of every start of a worker; torch_geometric imports torch._dynamo."""
    lines = ["import sys", f"import {module}", f"print(*({slow} & set(sys.modules)))"]
    loaded = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert loaded.stdout.split() == []
