"""A calculation in a process of its own: a request goes in, an answer comes out, and limits of time and memory hold."""

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
"""What runs a program, in whatever Python."""

_GIGABYTE = 10**9


def run_program(
    python: str,
    program: Path,
    crystal: Crystal,
    settings: Mapping[str, Any],
    limits: Limits,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """Let a program compute a crystal, and give its answer.

    Args:
        python: Which Python runs it.
        program: A file with a function `compute`, as process.py has it.
        crystal: What is computed.
        settings: How.
        limits: It is killed with all its children when it takes longer, and gets no more memory.
        environment: Variables besides this process's.

    Raises:
        AttemptError: If it takes too long, dies, or answers with an error.
        CalculationError: If it needs more memory than it may have: so would another attempt.
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
        asked, answered, stderr = (Path(folder, name) for name in ("request.json", "answer.json", "stderr"))
        asked.write_text(json.dumps(request))
        code = _run([python, str(PROCESS), str(program), str(asked), str(answered)], variables, stderr, limits.seconds)
        answer = _answer(code, answered, stderr)
    if answer.get("error_type") == "MemoryError":
        rule = f"out of memory (limit {limits.memory_gb:g} GB); raise --memory-gb"
        raise CalculationError(crystal.material_id, rule)
    if "error" in answer:
        raise AttemptError(f"{answer['error_type']}: {answer['error'][:300]}")
    return answer


def _run(command: list[str], variables: Mapping[str, str], stderr: Path, seconds: float) -> int:
    """Run a command in the folder of its stderr, and give its exit code."""
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
            raise AttemptError(f"no answer within {seconds:g} s; raise --time-limit") from None
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, 9)  # and whatever it has started
            process.wait()
    return process.returncode


def _answer(code: int, answer: Path, stderr: Path) -> dict[str, Any]:
    """Read the answer; of a process that died without one, why."""
    if answer.exists():
        return json.loads(answer.read_text())
    said = (stderr.read_text(errors="replace").strip().splitlines() or ["nothing on stderr"])[-1][:200]
    if "MemoryError" in said or "std::bad_alloc" in said:
        return {"error_type": "MemoryError", "error": said}
    if code == -9:
        raise AttemptError(
            "its process was killed, most likely because the machine ran out of memory; lower the load on it"
        )
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    raise AttemptError(f"its process died without an answer ({how}: {said})")
