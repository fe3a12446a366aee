"""What runs in the process of a calculation: `python process.py PROGRAM.py REQUEST.json ANSWER.json`.

The Python may be another than ours, so that this file and the programs beside it import nothing of mat2spec. A program has the function
that the request names, most often `compute(structure, settings, log)`; what it gives, or what goes wrong, is the answer.
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
    """Compute what the request asks."""
    request = json.loads(Path(request_file).read_text())
    end_with_parent(request["parent"])
    limit_memory(request["memory"])
    started = time.process_time()
    try:
        answer = getattr(load(program), request["function"])(
            request["structure"], request["settings"], f"{answer_file}.log"
        )
        answer["cpu_seconds"] = (
            time.process_time() - started + answer.get("cpu_seconds", 0.0)
        )  # and of processes that it has started
    except Exception as error:
        kind = MemoryError if isinstance(error, MemoryError) else type(error)  # numpy has a class of its own
        answer = {"error_type": kind.__name__, "error": " ".join(str(error).split()) or kind.__name__}
    partial = Path(f"{answer_file}.part")
    partial.write_text(json.dumps(answer))
    os.replace(partial, answer_file)


def end_with_parent(parent: int) -> None:
    """Ask Linux to end this process with the worker that started it: nobody would take the answer."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            sys.exit("the process that asked has ended")


def limit_memory(size: int) -> None:
    """Make this process run out of memory by itself, where it can still say so, before the machine does [bytes]."""
    if sys.platform == "linux":  # elsewhere it counts other things, and the limit is Ray's alone
        resource.setrlimit(resource.RLIMIT_DATA, (size, size))


def load(program: str) -> Any:
    """Import a file by its path."""
    found = importlib.util.spec_from_file_location("program", program)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


if __name__ == "__main__":
    del sys.path[0]  # this folder, in which modules have the names of packages
    main(*sys.argv[1:])
