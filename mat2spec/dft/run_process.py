"""Calculations in a separate process, with limits on time and memory."""

import json
import os
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

from mat2spec.dft.engine import AttemptError, Limits
from mat2spec.errors import CalculationError
from mat2spec.structure.crystal import Crystal

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

PROCESS = Path(__file__).with_name("process_main.py")
"""The script that runs a program, in any Python."""

_GIGABYTE = 10**9


def run_program(
    python: str,
    program: Path,
    crystal: Crystal,
    settings: Mapping[str, Any],
    limits: Limits,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """Run a program on a crystal in a separate process, and return its answer.

    Args:
        python: Path of the interpreter.
        program: A file with a function `compute`, as described in process_main.py.
        crystal: The crystal.
        settings: Passed to the program.
        limits: The process and its children are killed after the time limit, and cannot allocate more memory.
        environment: Variables added to those of this process.

    Raises:
        AttemptError: If the process takes too long, crashes, or answers with an error.
        CalculationError: If it exceeds its memory limit, as another attempt would.
    """
    request = {
        "structure": crystal.to_row(),
        "settings": dict(settings),
        "function": "compute",
        "memory": int(limits.memory_gb * _GIGABYTE),
        "parent": os.getpid(),
    }
    variables = {**os.environ, **dict.fromkeys(THREADS, str(limits.threads)), **environment}
    with TemporaryDirectory(prefix="mat2spec-") as folder:
        request_file, answer_file, stderr = (Path(folder, name) for name in ("request.json", "answer.json", "stderr"))
        request_file.write_text(json.dumps(request))
        command = [python, str(PROCESS), str(program), str(request_file), str(answer_file)]
        exit_code = _run(command, variables, stderr, limits.seconds)
        answer = _read_answer(exit_code, answer_file, stderr)
    if answer.get("error_type") == "MemoryError":
        rule = f"out of memory (limit {limits.memory_gb:g} GB); raise --limits.memory-gb"
        raise CalculationError(crystal.material_id, rule)
    if "error" in answer:
        raise AttemptError(f"{answer['error_type']}: {answer['error'][:300]}")
    return answer


def _run(command: list[str], variables: Mapping[str, str], stderr: Path, seconds: float) -> int:
    """Run a command in the folder of its stderr file, and return its exit code."""
    with stderr.open("wb") as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=file,
            env=variables,
            cwd=stderr.parent,
            start_new_session=True,
        )
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AttemptError(f"no answer within {seconds:g} s; raise --limits.time-limit") from None
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, 9)  # with the processes that it has started
            process.wait()
    return process.returncode


def _read_answer(exit_code: int, answer_file: Path, stderr: Path) -> dict[str, Any]:
    """Read the answer of a process.

    Raises:
        AttemptError: If there is none; the message has the exit code and the last line of stderr.
    """
    if answer_file.exists():
        return json.loads(answer_file.read_text())
    last_line = (stderr.read_text(errors="replace").strip().splitlines() or ["nothing on stderr"])[-1][:200]
    if "MemoryError" in last_line or "std::bad_alloc" in last_line:
        return {"error_type": "MemoryError", "error": last_line}
    if exit_code == -9:
        raise AttemptError(
            "its process was killed, most likely because the machine ran out of memory; reduce the load on the machine"
        )
    cause = f"signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"
    raise AttemptError(f"its process died without an answer ({cause}: {last_line})")
