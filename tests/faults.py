"""Faults in other processes: what some materials do to the process that computes them.

Production code has no hook for it. Python imports `sitecustomize` at its start, so a folder with one on PYTHONPATH reaches every process.
"""

import importlib.abc
import importlib.util
import json
import os
import sys

VARIABLE = "MAT2SPEC_TEST_FAULTS"
"""JSON: material_id, or * for all others → what it does when its graph is built, or with "predict:" before it when it is predicted."""

SITECUSTOMIZE = "import sys\nsys.path.append({folder!r})\nimport faults\nfaults.install()\n"


def raises() -> None:
    raise ZeroDivisionError("of a kind\nthat nobody foresaw")


def segv() -> None:
    import ctypes

    ctypes.string_at(0)


def kill() -> None:
    os.kill(os.getpid(), 9)


def hang() -> None:
    import time

    time.sleep(10_000)


def pause() -> None:
    import time

    time.sleep(0.05)


def nap() -> None:
    import time

    time.sleep(60)


def memory() -> None:
    kept = []
    while True:
        kept.append(bytearray(50_000_000))


DEEDS = {"raise": raises, "segv": segv, "kill": kill, "hang": hang, "pause": pause, "nap": nap, "memory": memory}


class Patch(importlib.abc.MetaPathFinder):
    """Changes a module when it is imported."""

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
    """Make primitive_nsites and prediction_table, the last steps of their stages, do the deeds."""
    deeds = json.loads(os.environ.get(VARIABLE, "{}"))
    of_graph = {name: deed for name, deed in deeds.items() if not deed.startswith("predict:")}
    of_predict = {name: deed.removeprefix("predict:") for name, deed in deeds.items() if name not in of_graph}

    def faulty_graph(works):
        def primitive_nsites(crystal, *rest):
            DEEDS.get(of_graph.get(crystal.material_id, of_graph.get("*")), int)()
            return works(crystal, *rest)

        return primitive_nsites

    def faulty_predict(works):
        def prediction_table(inputs, *rest):
            for material_id in inputs["material_id"].to_pylist():
                DEEDS.get(of_predict.get(material_id), int)()
            return works(inputs, *rest)

        return prediction_table

    sys.meta_path.insert(0, Patch("mat2spec.structure.symmetry", "primitive_nsites", faulty_graph))
    sys.meta_path.insert(0, Patch("mat2spec.predict.table", "prediction_table", faulty_predict))
