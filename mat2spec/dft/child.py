"""A calculation in a process of its own: a request goes in, an answer comes out, and limits of time and memory hold."""

import json
import os
import resource
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mat2spec.dft.calculation import Limits

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""Cells this small gain nothing from more, and materials are computed side by side."""

_GIGABYTE = 10**9
_OUT_OF_MEMORY = ("MemoryError", "ArrayMemoryError")


class ChildError(Exception):
    """A process that gave no spectrum; the text says why and what to do. `hopeless` where another attempt cannot help."""

    def __init__(self, text: str, *, hopeless: bool = False) -> None:
        super().__init__(text)
        self.hopeless = hopeless


def run_child(command: Sequence[str], request: Mapping[str, Any], limits: Limits, environment: Mapping[str, str]) -> dict[str, Any]:
    """Run `command REQUEST.json ANSWER.json` and give the answer.

    Args:
        command: The program.
        request: What it is asked.
        limits: It is killed with all its children when it takes longer, and gets no more memory.
        environment: Variables besides this process's.

    Raises:
        ChildError: If it takes too long, dies, or answers with an error.
    """
    with TemporaryDirectory(prefix="mat2spec-") as folder:
        files = [Path(folder, name) for name in ("request.json", "answer.json", "stderr")]
        files[0].write_text(json.dumps(request))
        with files[2].open("wb") as stderr:
            process = subprocess.Popen(
                [*command, str(files[0]), str(files[1])],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                env={**os.environ, **ONE_THREAD, **environment, "MAT2SPEC_PARENT": str(os.getpid())},
                cwd=folder,
                start_new_session=True,
            )
            _limit_memory(process.pid, limits.memory_gb)
            try:
                process.wait(limits.seconds)
            except subprocess.TimeoutExpired:
                raise ChildError(f"no answer within {limits.seconds:g} s; raise --time_limit") from None
            finally:
                _end(process)
        return _answer(process.returncode, files[1], files[2], limits)


def _limit_memory(pid: int, gigabytes: float) -> None:
    if hasattr(resource, "prlimit"):  # Linux; elsewhere the limit is Ray's alone
        size = int(gigabytes * _GIGABYTE)
        with suppress(ProcessLookupError):  # it has ended already
            resource.prlimit(pid, resource.RLIMIT_AS, (size, size))


def _end(process: subprocess.Popen) -> None:
    """End the process and whatever it has started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, 9)
    process.wait()


def _answer(code: int, answer: Path, stderr: Path, limits: Limits) -> dict[str, Any]:
    if not answer.exists():
        said = (stderr.read_text(errors="replace").strip().splitlines() or ["nothing on stderr"])[-1][:200]
        if code == -9 or any(name in said for name in _OUT_OF_MEMORY):
            raise ChildError(f"killed, most likely out of memory (limit {limits.memory_gb:g} GB); raise --memory_gb")
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        raise ChildError(f"died without an answer ({how}: {said})")
    found = json.loads(answer.read_text())
    if "error" not in found:
        return found
    if found["error_type"] in _OUT_OF_MEMORY:
        raise ChildError(f"out of memory (limit {limits.memory_gb:g} GB); raise --memory_gb")
    raise ChildError(f"{found['error_type']}: {found['error'][:300]}", hopeless=bool(found.get("hopeless")))
