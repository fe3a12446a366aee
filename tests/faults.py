"""Fault injection: chosen materials crash, hang or exhaust the memory of the process that computes them.

Production code has no hook for it. Python imports `sitecustomize` when it starts, so a folder with that module on
PYTHONPATH reaches every process.
"""

import importlib.abc
import importlib.util
import json
import os
import sys

VARIABLE = "MAT2SPEC_TEST_FAULTS"
"""JSON object from material_id, or * for all others, to a fault.

It happens when the graph is built; with "predict:" before its name, when the spectrum is predicted.
"""

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


def pause() -> None:
    import time

    time.sleep(0.05)


def nap() -> None:
    import time

    time.sleep(60)


def memory() -> None:
    blocks = []
    while True:
        blocks.append(bytearray(50_000_000))


FAULTS = {"raise": raises, "segv": segv, "kill": kill, "hang": hang, "pause": pause, "nap": nap, "memory": memory}


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
    """Inject the faults of VARIABLE into primitive_nsites and prediction_table, the last steps of their stages."""
    faults = json.loads(os.environ.get(VARIABLE, "{}"))
    graph_faults = {name: fault for name, fault in faults.items() if not fault.startswith("predict:")}
    predict_faults = {name: faults[name].removeprefix("predict:") for name in faults if name not in graph_faults}

    def faulty_graph(original):
        def primitive_nsites(crystal, *rest):
            FAULTS.get(graph_faults.get(crystal.material_id, graph_faults.get("*")), int)()
            return original(crystal, *rest)

        return primitive_nsites

    def faulty_predict(original):
        def prediction_table(inputs, *rest):
            for material_id in inputs["material_id"].to_pylist():
                FAULTS.get(predict_faults.get(material_id), int)()
            return original(inputs, *rest)

        return prediction_table

    sys.meta_path.insert(0, Patch("mat2spec.structure.symmetry", "primitive_nsites", faulty_graph))
    sys.meta_path.insert(0, Patch("mat2spec.predict.table", "prediction_table", faulty_predict))
