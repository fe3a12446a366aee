"""Ways to run a job, and to wait for what it does."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import psutil

ROOT = Path(__file__).parents[2]

RAY = Path(sys.executable).with_name("ray")

SCRUBBED = ("MAT2SPEC_HOME", "RAY_ADDRESS", "MLFLOW_TRACKING_URI")
"""Variables that decide where jobs read and write."""

DEADLINE = 240
"""[s] For whatever a job is waited for; each takes a few seconds where nothing else runs."""


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Poll until something has happened."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen within {DEADLINE} s"
        time.sleep(0.005)


def environment(**variables: object) -> dict[str, str]:
    """This process's variables without those that a test must not inherit."""
    kept = {name: value for name, value in os.environ.items() if name not in SCRUBBED}
    kept["PATH"] = f"{RAY.parent}{os.pathsep}{kept['PATH']}"
    return kept | {"RAY_AUTH_MODE": "disabled"} | {name: str(value) for name, value in variables.items()}


def job_lines(stderr: str) -> list[str]:
    """Lines that a job printed, without those of Ray's C++, which begin with a bracket, and of its progress."""
    return [line for line in stderr.splitlines() if not re.match(r"\[|\d+/\d+ ", line)]


def tree(folder: Path) -> dict[Path, int]:
    """Everything below a folder, and when it was last changed."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@dataclass(frozen=True)
class Head:
    """A running Ray.

    Args:
        address: Of its job server.
        pid: Of the process that started it.
    """

    address: str
    pid: int

    def submit(
        self,
        *command: object,
        home: Path | None = None,
        upload: bool = True,
        name: str | None = None,
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> subprocess.Popen:
        """Submit a job from the repository; its output goes to stdout."""
        options = [
            "--address",
            self.address,
            *(["--working-dir", "."] if upload else []),
            *(["--submission-id", name] if name else []),
        ]
        if home:
            options += ["--runtime-env-json", json.dumps({"env_vars": {"MAT2SPEC_HOME": str(home), **variables}})]
        arguments = [str(part) for part in (RAY, "job", "submit", *options, "--", *command)]
        return subprocess.Popen(
            arguments, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def run(self, *command: object, **options: object) -> tuple[int, str]:
        """Submit a job and give its exit code and output."""
        with self.submit(*command, **options) as process:
            output = process.communicate(timeout=2 * DEADLINE)[0]
        return process.returncode, output

    def stop(self, name: str) -> str:
        """Stop a submitted job as a user does, and give what is printed."""
        command = [RAY, "job", "stop", "--address", self.address, name]
        return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=DEADLINE).stdout

    def processes(self, name: str) -> list[psutil.Process]:
        """Processes of this Ray, and of its jobs, whose command begins so."""
        found = []
        for process in psutil.Process(self.pid).children(recursive=True):
            try:
                if " ".join(process.cmdline()).startswith(name):
                    found.append(process)
            except psutil.NoSuchProcess:
                continue
        return found
