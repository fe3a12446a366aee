"""Main script of a calculation's process: `python process_main.py PROGRAM.py REQUEST.json ANSWER.json`.

The interpreter may not have mat2spec, so this file and the programs beside it import nothing from it. A program has
the function that the request names, usually `compute(structure, settings, log)`. Its return value, or its error, is
the answer.
"""

import ctypes
import importlib.util
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any


def main(program: str, request_file: str, answer_file: str) -> None:
    """Run the requested function, and write its answer."""
    request = json.loads(Path(request_file).read_text())
    end_with_parent(request["parent"])
    limit_memory(request["memory"])
    started = time.process_time()
    try:
        function = getattr(load_program(program), request["function"])
        answer = function(request["structure"], request["settings"], f"{answer_file}.log")
        children_seconds = answer.get("cpu_seconds", 0.0)  # CPU time of processes that the function has started
        answer["cpu_seconds"] = time.process_time() - started + children_seconds
    except Exception as error:
        kind = MemoryError if isinstance(error, MemoryError) else type(error)  # numpy raises a subclass
        answer = {"error_type": kind.__name__, "error": " ".join(str(error).split()) or kind.__name__}
    partial = Path(f"{answer_file}.part")
    partial.write_text(json.dumps(answer))
    os.replace(partial, answer_file)


def end_with_parent(parent: int) -> None:
    """Ask Linux to kill this process when the worker that started it ends, as nothing would read the answer."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            sys.exit("the parent process has ended")


def limit_memory(size: int) -> None:
    """Limit the memory of this process [bytes], so that it can report a failure before the machine is full."""
    if sys.platform == "linux":  # on other systems RLIMIT_DATA counts other memory, and only Ray's limit applies
        resource.setrlimit(resource.RLIMIT_DATA, (size, size))


def load_program(path: str) -> Any:
    """Import a file by its path."""
    spec = importlib.util.spec_from_file_location("program", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    del sys.path[0]  # this folder: its modules could hide packages of the same name
    main(*sys.argv[1:])
