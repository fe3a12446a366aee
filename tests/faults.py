"""Fault injection: chosen materials crash, hang, hold or exhaust the memory of the process that computes them.

Production code has no hook for it. Python imports `sitecustomize` when it starts, so a folder with that module on
PYTHONPATH reaches every process.
"""

import importlib.abc
import importlib.util
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path

VARIABLE = "MAT2SPEC_TEST_FAULTS"
"""JSON object from material_id to a fault, with its argument after a colon if it has one.

It happens when the graph is built; with "read:", "substitute:" or "predict:" before its name, when the structure is
read from its file, candidates are made of it, or the spectrum is predicted. The fault of "epoch 3, workers 2" happens
when so many workers begin that epoch of a training; the first is 0. The fault of "write rejects/part-000008.parquet"
happens before that file of a run, the first of its shard's two, is written.
"""

STAGES = ("read", "substitute", "predict")

SITECUSTOMIZE = "import sys\nsys.path.append({folder!r})\nimport faults\nfaults.install()\n"


def raises() -> None:
    raise ZeroDivisionError("an unexpected\nerror")


def segv() -> None:
    import ctypes

    ctypes.string_at(0)


def kill() -> None:
    os.kill(os.getpid(), 9)


def hang() -> None:
    import time

    time.sleep(10_000)


def gate(folder: str) -> None:
    """Wait at a Gate; the time limits of a shard go on."""
    import time

    Path(folder, str(os.getpid())).touch()
    while not Path(folder, OPEN).exists():
        time.sleep(0.02)


def memory() -> None:
    blocks = []
    while True:
        blocks.append(bytearray(50_000_000))


FAULTS = {"raise": raises, "segv": segv, "kill": kill, "hang": hang, "gate": gate, "memory": memory}

OPEN = "open"


def inject(fault: str | None) -> None:
    """Do what a material does to this process, if anything."""
    if fault:
        name, *arguments = fault.split(":", maxsplit=1)
        FAULTS[name](*arguments)


def with_faults(faults: dict[str, str], folder: Path) -> dict[str, str]:
    """Variables of processes in which materials have faults; the folder gets a module that each process imports."""
    (folder / "sitecustomize.py").write_text(SITECUSTOMIZE.format(folder=str(Path(__file__).parent)))
    return {VARIABLE: json.dumps(faults), "PYTHONPATH": os.pathsep.join([str(folder), str(Path(__file__).parents[1])])}


class Gate:
    """Holds every process that reaches one of some points, until it is opened or the process is killed.

    A test that acts while a process is held, or before the gate is opened, does not race against the rest of the work.

    Args:
        points: Keys of VARIABLE.
        folder: An empty folder, for what the processes and the test write to each other.
    """

    def __init__(self, points: Iterable[str], folder: Path) -> None:
        self._folder = folder
        self.faults = dict.fromkeys(points, f"gate:{folder}")

    @property
    def variables(self) -> dict[str, str]:
        """Variables of processes that it may hold, and that have no other fault."""
        return with_faults(self.faults, self._folder)

    def held(self) -> list[int]:
        """Ids of the processes that have reached it and are alive."""
        return [int(file.name) for file in self._folder.iterdir() if file.name.isdecimal() and is_alive(int(file.name))]

    def open(self) -> None:
        """Let the processes that it holds go on, and hold no others."""
        (self._folder / OPEN).touch()


def is_alive(pid: int) -> bool:
    import psutil

    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Patch(importlib.abc.MetaPathFinder):
    """Import hook that wraps one function of a module.

    Args:
        module: Full name of the module.
        name: Name of the function.
        wrap: Returns the function to use instead of the original.
    """

    def __init__(self, module: str, name: str, wrap) -> None:
        self._module, self._name, self._wrap = module, name, wrap

    def find_spec(self, name, path, target=None):
        if name != self._module:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def execute_and_patch(module) -> None:
            execute(module)
            setattr(module, self._name, self._wrap(getattr(module, self._name)))

        spec.loader.exec_module = execute_and_patch
        return spec


def install() -> None:
    """Inject the faults of VARIABLE into a function of each stage, into commits, and into epochs of trainings."""
    faults = json.loads(os.environ.get(VARIABLE, "{}"))
    by_stage: dict[str, dict[str, str]] = {stage: {} for stage in ("graph", *STAGES)}
    for name, fault in faults.items():
        stage, _, rest = fault.partition(":")
        by_stage[stage if stage in STAGES else "graph"][name] = rest if stage in STAGES else fault

    def faulty_reader(original):
        def read_structures(name, content, config, material_id=None):
            inject(by_stage["read"].get(material_id))
            return original(name, content, config, material_id)

        return read_structures

    def faulty_substitution(original):
        def substitute_rows(rows, *rest):
            for material_id in rows.table["material_id"].to_pylist():
                inject(by_stage["substitute"].get(material_id))
            return original(rows, *rest)

        return substitute_rows

    def faulty_graph(original):
        def build_graph(crystal, *rest):
            inject(by_stage["graph"].get(crystal.material_id))
            return original(crystal, *rest)

        return build_graph

    def faulty_predict(original):
        def prediction_table(inputs, *rest):
            for material_id in inputs["material_id"].to_pylist():
                inject(by_stage["predict"].get(material_id))
            return original(inputs, *rest)

        return prediction_table

    def faulty_write(original):
        def write_parquet(path, table):
            inject(faults.get(f"write {path.parent.name}/{path.name}"))
            return original(path, table)

        return write_parquet

    def faulty_training(original):
        run_undisturbed = original.run_epoch

        def run_epoch(self):
            inject(faults.get(f"epoch {self.next_epoch}, workers {self.workers}"))
            return run_undisturbed(self)

        original.run_epoch = run_epoch  # a class of another name could not be sent to workers
        return original

    sys.meta_path.insert(0, Patch("mat2spec.structure.readers.formats", "read_structures", faulty_reader))
    sys.meta_path.insert(0, Patch("mat2spec.data.substitution.candidates", "substitute_rows", faulty_substitution))
    sys.meta_path.insert(0, Patch("mat2spec.structure.graph", "build_graph", faulty_graph))
    sys.meta_path.insert(0, Patch("mat2spec.predict.table", "prediction_table", faulty_predict))
    sys.meta_path.insert(0, Patch("mat2spec.storage.run_directory", "write_parquet", faulty_write))
    sys.meta_path.insert(0, Patch("mat2spec.train.loop", "Training", faulty_training))
