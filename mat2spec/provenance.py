"""Provenance of a result: package versions, git commit and hardware."""

import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path


def environment() -> dict[str, str]:
    """Return package versions, git commit and hardware, which determine numbers and run times."""
    packages = ("mat2spec", "torch", "numpy", "pymatgen-core")
    return {name: version(name) for name in packages} | {"commit": _commit(), "hardware": _hardware()}


def _commit() -> str:
    """Commit of the checkout that this code is from, or "unknown"."""
    checkout = _checkout()
    if checkout is None or not shutil.which("git"):
        return "unknown"
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=12"]
    described = subprocess.run(command, capture_output=True, text=True, check=False)
    return described.stdout.strip() if described.returncode == 0 else "unknown"


def _checkout() -> Path | None:
    """The checkout that this package lies in; of a copy that Ray uploaded, where the job was submitted from.

    That is MAT2SPEC_HOME or the current directory, if it holds the same code: any other repository there, such as one
    of a user's own, says nothing about this program.
    """
    package = Path(__file__).parent
    for folder in (package.parent, Path(os.environ.get("MAT2SPEC_HOME") or Path.cwd())):
        if (folder / ".git").exists() and _is_same_file(folder / package.name / Path(__file__).name):
            return folder
    return None


def _is_same_file(other: Path) -> bool:
    return other.is_file() and other.read_bytes() == Path(__file__).read_bytes()


def _hardware() -> str:
    cpu_info = Path("/proc/cpuinfo")
    lines = cpu_info.read_text().splitlines() if cpu_info.exists() else []
    models = (line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    cpu = next(models, platform.processor() or "unknown CPU")
    return f"{os.cpu_count()} cores, {cpu}{_gpu()}"


def _gpu() -> str:
    """Name of the GPU, if this process has loaded torch.

    torch is not imported here: that takes seconds, and processes without it, such as those of an ingestion, use no GPU.
    """
    torch = sys.modules.get("torch")
    return f", {torch.cuda.get_device_name()}" if torch and torch.cuda.is_available() else ""
